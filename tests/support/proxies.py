"""A site's gate in a thread of its own: a CONNECT proxy with a password, which passes TLS or opens it. Caches nothing.

It knows names that nobody else resolves:

    with running_gate(password="let me in", names={"relay.test": 8443}) as gate:
        ...  # https://relay.test reaches 127.0.0.1:8443 through gate.url, and cannot be reached without it

A direct connection to such a name fails, so whatever arrives came through the gate. With `opens`, TLS ends at the
gate and begins anew, as with a site's inspecting proxy: clients meet the gate's certificate, never the server's.
"""

import asyncio
import base64
import contextlib
import datetime
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOOPBACK = "127.0.0.1"
USER = "site-user"
START_SECONDS = 30.0
HEAD_LIMIT = 16 * 1024
PIPE_BYTES = 64 * 1024
VALID = (datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(days=365 * 60))


@dataclass(frozen=True)
class Authority:
    """A certificate authority with one certificate, for all names of a test.

    Attributes:
        name: Common name of the issuer.
        ca_file / cert_file / key_file: PEM files.
    """

    name: str
    ca_file: Path
    cert_file: Path
    key_file: Path

    def server(self) -> ssl.SSLContext:
        """Return the context of a server that shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority only."""
        return ssl.create_default_context(cafile=str(self.ca_file))


def make_authority(folder: Path, name: str, *hosts: str) -> Authority:
    """Make an authority, and a certificate of it for loopback and these host names."""
    folder.mkdir(parents=True)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    names = [x509.IPAddress(ip_address(LOOPBACK)), *map(x509.DNSName, hosts)]
    made = Authority(name, folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    usage = (x509.BasicConstraints(ca=True, path_length=0), True)
    _write(made.ca_file, _certificate(issuer, issuer, root, root, usage))
    _write(
        made.cert_file,
        _certificate(subject, issuer, key, root, (x509.SubjectAlternativeName(names), False)),
    )
    made.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


@dataclass
class Gate:
    """A running proxy.

    Attributes:
        password: What it wants from USER.
        names: The host names that it leads to and that nobody else resolves, and their ports here.
        opens: Whose certificate it shows when it opens TLS; None passes TLS through.
        trusts: Whom it trusts then towards the servers.
        url: Address for `proxy = ...`.
        tunnels: Every target that was let through, in order.
        forbidden: Every target that was not.
        refused: How many connections had no good password.
    """

    password: str
    names: Mapping[str, int]
    opens: Authority | None = None
    trusts: Authority | None = None
    url: str = ""
    tunnels: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    refused: int = 0
    _inner: tuple[str, int] = (LOOPBACK, 0)
    _meant: dict[int, tuple[str, int]] = field(default_factory=dict)

    @property
    def login(self) -> str:
        """What a file of proxy credentials holds."""
        return f"{USER}:{self.password}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection from outside: one CONNECT, then bytes both ways."""
        async with _closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split(" ", 2)
            if method != "CONNECT" or not self._lets_in(head):
                self.refused += 1
                writer.write(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
                )
                await writer.drain()
                return
            host = target.rpartition(":")[0]
            if host not in self.names:  # no test of ours reaches another machine
                self.forbidden.append(target)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            self.tunnels.append(target)
            await self._pass_on(reader, writer, (LOOPBACK, self.names[host]))

    async def serve_opened(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection whose TLS ended here: begin it anew towards the server that was meant."""
        async with _closing(writer):
            host, port = self._meant.pop(writer.get_extra_info("peername")[1])
            trust = self.trusts.client() if self.trusts else None
            far_reader, far_writer = await asyncio.open_connection(host, port, ssl=trust)
            async with _closing(far_writer):
                await _both_ways((reader, writer), (far_reader, far_writer))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: tuple[str, int]
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            *(self._inner if self.opens else where)
        )
        async with _closing(far_writer):
            if self.opens:  # known before the client may begin its handshake
                self._meant[far_writer.get_extra_info("sockname")[1]] = where
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _both_ways((reader, writer), (far_reader, far_writer))

    def _lets_in(self, head: str) -> bool:
        expected = "Basic " + base64.b64encode(self.login.encode()).decode()
        given = [
            line.partition(":")[2].strip()
            for line in head.split("\r\n")
            if line.lower().startswith("proxy-authorization:")
        ]
        return given == [expected]


@contextmanager
def running_gate(
    *,
    password: str,
    names: Mapping[str, int],
    opens: Authority | None = None,
    trusts: Authority | None = None,
) -> Iterator[Gate]:
    """Run a gate on a free port while the block runs."""
    gate = Gate(password, names, opens, trusts)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with _listening(gate):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(START_SECONDS)
    try:
        yield gate
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_SECONDS)
        loop.close()


@asynccontextmanager
async def _listening(gate: Gate) -> AsyncIterator[None]:
    inner = None
    if gate.opens:
        inner = await asyncio.start_server(gate.serve_opened, LOOPBACK, 0, ssl=gate.opens.server())
        gate._inner = inner.sockets[0].getsockname()
    outer = await asyncio.start_server(gate.serve, LOOPBACK, 0, limit=HEAD_LIMIT)
    gate.url = f"http://{LOOPBACK}:{outer.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        for server in filter(None, (outer, inner)):
            server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # connections that clients keep open: the block is over
        await asyncio.sleep(0)


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both_ways(near: Pair, far: Pair) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_pipe(near[0], far[1]))
        group.create_task(_pipe(far[0], near[1]))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PIPE_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close at the end; what the two ends do to each other is not the gate's matter."""
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, KeyError):
            yield
    finally:
        writer.close()


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: tuple[x509.ExtensionType, bool],
) -> x509.Certificate:
    begin, life = VALID
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + life)
        .add_extension(extension[0], critical=extension[1])
        .sign(signer, hashes.SHA256())
    )


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
