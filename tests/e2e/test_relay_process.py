"""The relay as a process: TLS with an own CA, systemd's notifications, SIGTERM with an agent connected, metrics."""

import asyncio
import datetime
import hashlib
import ipaddress
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.control import Attach, Attached
from protocol.frames import CLOSE_GOING_AWAY, GoingAway, Welcome
from relay.app import tls_context
from relay.client import RelayClient
from relay.config import RelayConfig
from relay.errors import Unreachable
from tests.support import protocol_world as w
from tests.support.relay_world import AgentDouble, SignerDouble

pytestmark = pytest.mark.e2e

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
LATER = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)
HANG_S = 30


@dataclass
class Process:
    """One running relay."""

    process: asyncio.subprocess.Process
    port: int
    output: bytearray


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(LONG_AGO)
        .not_valid_after(LATER)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert, secret


@asynccontextmanager
async def relay(folder: Path, *options: str, **environment: str) -> AsyncIterator[Process]:
    """Run `imageport relay serve` until the context ends."""
    rows = []
    for name, tenant, role in (("reader", "acme", "reader"), ("signer", "*", "control")):
        digest = hashlib.sha256(name.encode()).hexdigest()
        rows += [
            "[[api_keys]]",
            f'id = "{name}"',
            f'tenant = "{tenant}"',
            f'role = "{role}"',
            f'sha256 = "{digest}"',
        ]
    config = folder / "relay.toml"
    config.write_text("\n".join(rows))
    arguments = [
        "--config",
        str(config),
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        str(folder / "data"),
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance.cli.main", "relay", "serve", *arguments, *options,
        stderr=asyncio.subprocess.PIPE, env=environment or None, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stderr is not None
    output = bytearray()
    async with asyncio.timeout(HANG_S):
        while (match := re.search(rb"serving on port (\d+)", output)) is None:
            line = await process.stderr.readline()
            assert line, output
            output += line
    try:
        yield Process(process, int(match[1]), output)
    finally:
        if process.returncode is None:
            process.kill()
        output += await process.stderr.read()
        await process.wait()


async def test_client_trusts_the_ca_that_it_is_given_and_no_other(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    async with relay(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key)) as served:
        url = f"https://127.0.0.1:{served.port}"
        async with RelayClient(url, api_key="reader", ca_file=str(cert)) as client:
            assert await client.appliances() == []
        async with RelayClient(url, api_key="reader") as client:
            client._http.jitter = lambda _most: 0.0
            with pytest.raises(Unreachable, match="TLS"):
                await client.appliances()


async def test_sigterm_says_goodbye_and_ends_with_zero(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(HANG_S)
        async with (
            relay(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as served,
            aiohttp.ClientSession() as http,
            http.ws_connect(f"http://127.0.0.1:{served.port}/v1/control") as control,
        ):
            assert notified.recv(100) == b"READY=1"
            signer = SignerDouble(control)
            await signer.send(Attach(token="signer"))
            await signer.expect(Attached)
            await signer.introduce()
            async with http.ws_connect(f"http://127.0.0.1:{served.port}/v1/channel") as channel:
                agent = AgentDouble(channel)
                await agent.say_hello()
                await agent.expect(Welcome)
                served.process.send_signal(signal.SIGTERM)
                await agent.expect(GoingAway)
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", served.port)
                await agent.socket.close()
            assert (await signer.closed())[0] == CLOSE_GOING_AWAY
            assert notified.recv(100) == b"STOPPING=1"
            async with asyncio.timeout(HANG_S):
                assert await served.process.wait() == 0
    assert b"Traceback" not in served.output


async def test_killed_relay_goes_on_where_it_was(tmp_path: Path) -> None:
    async with (
        relay(tmp_path) as served,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"http://127.0.0.1:{served.port}/v1/control") as control,
    ):
        signer = SignerDouble(control)
        await signer.send(Attach(token="signer"))
        await signer.expect(Attached)
        await signer.introduce()
        assert (await signer.push("command", w.signed_command())).code == ""
        served.process.kill()
    async with (
        relay(tmp_path) as served,
        RelayClient(f"http://127.0.0.1:{served.port}", api_key="reader") as client,
    ):
        assert [job["seq"] async for job in client.jobs()] == [1]


async def test_what_it_keeps_is_for_its_own_user_only(tmp_path: Path) -> None:
    async with relay(tmp_path):
        kept = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
        assert {path.name for path in kept} >= {"data", "lock", "relay.db"}
        assert [path for path in kept if path.stat().st_mode & 0o077] == []


async def test_a_second_relay_on_one_folder_does_not_start(tmp_path: Path) -> None:
    async with relay(tmp_path):
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "appliance.cli.main", "relay", "serve"),
            *("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(second.communicate(), HANG_S)
    assert second.returncode == 78
    assert b"another relay holds" in said


async def test_without_aiohttps_parser_in_c_it_does_not_start(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appliance.cli.main", "relay", "serve"),
        *("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        env={"AIOHTTP_NO_EXTENSIONS": "1"},
        cwd=Path(__file__).parents[2],
    )
    _, said = await asyncio.wait_for(process.communicate(), HANG_S)
    assert process.returncode == 78
    assert b"AIOHTTP_NO_EXTENSIONS" in said


async def test_metrics_have_a_door_of_their_own(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with (
        relay(tmp_path, "--metrics-listen", f"127.0.0.1:{port}") as served,
        aiohttp.ClientSession() as http,
    ):
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert "relay_agents 0.0" in await answer.text()
        async with http.get(f"http://127.0.0.1:{served.port}/metrics") as answer:
            assert answer.status == 404


def test_context_refuses_old_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    context = tls_context(RelayConfig(tls_cert=str(cert), tls_key=str(key)))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
