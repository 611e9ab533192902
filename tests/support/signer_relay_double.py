"""A relay in miniature for a real signer process: its control channel, what it keeps, and what it is told to do.

It stores pushes as a relay does (one digest a number), re-sends hello and results at each attachment, and passes calls
on. A test may act at a push before it is answered (`at_push`): that is where processes are killed.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from appliance.cli.signersocket import SignerUnreachable, ask
from appliance.controlplane import create_control_plane
from appliance.keyfiles import KeyFile, read
from protocol.caller import sign_request
from protocol.codec import decode, encode
from protocol.control import (
    ApplianceHead,
    Attach,
    Attached,
    Call,
    Push,
    Pushed,
    Reply,
    Statement,
    TimeWanted,
    parse_from_signer,
)
from protocol.enrol import parse_token
from protocol.frames import Frame, frame_bytes
from protocol.keys import KeyRing
from protocol.messages import MAX_COMMAND, Command
from protocol.sealing import SealKey
from protocol.signed import SigningKey, parse_envelope
from tests.support.signer_device import TENANT, Device

HANG_S = 20.0
Numbers = dict[tuple[str, int, int], bytes]


@dataclass
class RelayDouble:
    """What a relay holds, and the attached signer.

    Attributes:
        commands: (appliance, epoch, seq) -> envelope; a second, other envelope for a number is an error.
        kept: (kind, appliance) -> newest envelope of records, epochs, receipts, manifests.
        times: Signed times, in order.
        statements: What is sent again at each attachment, as a relay sends its newest.
        at_push: Called for each push before it is stored; False: it is not answered.
        port: Where we listen.
    """

    commands: Numbers = field(default_factory=dict)
    kept: dict[tuple[str, str], bytes] = field(default_factory=dict)
    times: list[bytes] = field(default_factory=list)
    statements: dict[tuple[str, str, int], Statement] = field(default_factory=dict)
    pushes: list[Push] = field(default_factory=list)
    clashes: list[tuple[str, int, int]] = field(default_factory=list)
    refuse: Callable[[Push], str] = lambda _push: ""
    at_push: Callable[[Push], bool] = lambda _push: True
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    attaches: list[Attach] = field(default_factory=list)
    port: int = 0
    _socket: web.WebSocketResponse | None = None
    _calls: dict[int, "asyncio.Future[Reply]"] = field(default_factory=dict)

    def heads(self) -> tuple[ApplianceHead, ...]:
        """Return what a relay states: per appliance the highest contiguous command of its newest epoch."""
        found = []
        for name in sorted({name for kind, name in self.kept if kind == "record"}):
            epoch = max((e for n, e, _ in self.commands if n == name), default=1)
            seq = 0
            while (name, epoch, seq + 1) in self.commands:
                seq += 1
            found.append(ApplianceHead(tenant=TENANT, appliance=name, epoch=epoch, seq=seq))
        return tuple(found)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Run one attachment."""
        socket = web.WebSocketResponse(max_msg_size=8 * 1024 * 1024)
        await socket.prepare(request)
        frame = parse_from_signer((await socket.receive()).data)
        assert isinstance(frame, Attach)
        self._socket = socket
        await self._send(Attached(appliances=self.heads()))
        for statement in list(self.statements.values()):
            await self._send(statement)
        self.attaches.append(frame)
        self.changed.set()
        try:
            async for message in socket:
                await self._take(parse_from_signer(message.data))
        finally:
            if self._socket is socket:  # not the next one's
                self._socket = None
        return socket

    async def state(self, kind: Any, device: Device, env: bytes, report: bytes = b"") -> None:
        """Hand a device's statement to the signer, now and at each later attachment."""
        statement = Statement(kind=kind, tenant=TENANT, appliance=device.id, env=env, report=report)
        number = len(self.statements) if kind == "result" else 0
        self.statements[device.id, kind, number] = statement
        if self._socket is not None:
            await self._send(statement)

    async def ask_time(self, device: Device, nonce: bytes) -> None:
        """Pass an appliance's question for the time on."""
        await self._send(TimeWanted(tenant=TENANT, appliance=device.id, nonce=nonce))

    async def call(
        self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> Reply:
        """Pass an HTTP request through and return the signer's answer."""
        number = len(self._calls) + 1
        self._calls[number] = asyncio.get_running_loop().create_future()
        await self._send(
            Call(call=number, method=method, path=path, headers=headers or {}, body=body)
        )
        async with asyncio.timeout(HANG_S):
            return await self._calls[number]

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until what came from the signer makes `done` true."""
        async with asyncio.timeout(HANG_S):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    async def drop(self) -> None:
        """Cut the connection."""
        if self._socket is not None:
            await self._socket.close()

    async def _take(self, frame: Any) -> None:
        match frame:
            case Push():
                self.pushes.append(frame)
                if self.at_push(frame):
                    code = self.refuse(frame)
                    if not code:
                        self._store(frame)
                    await self._send(Pushed(push=frame.push, code=code))
            case Reply():
                self._calls[frame.call].set_result(frame)
        self.changed.set()

    def _store(self, push: Push) -> None:
        match push.kind:
            case "command":
                envelope = parse_envelope(push.env, limit=MAX_COMMAND)
                command = decode(envelope.p, Command, limit=MAX_COMMAND)
                number = (push.appliance, command.epoch, command.seq)
                if self.commands.setdefault(number, push.env) != push.env:
                    self.clashes.append(number)
            case "time":
                self.times.append(push.env)
            case _:
                self.kept[push.kind, push.appliance] = push.env

    async def _send(self, frame: Frame) -> None:
        if self._socket is not None:
            await self._socket.send_bytes(frame_bytes(frame))


@asynccontextmanager
async def relay_double() -> AsyncIterator[RelayDouble]:
    """Listen on a free port of this machine."""
    double = RelayDouble()
    app = web.Application()
    app.router.add_get("/v1/control", double.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    double.port = runner.addresses[0][1]
    try:
        yield double
    finally:
        await double.drop()
        await runner.cleanup()


@dataclass
class SignerProcess:
    """A signer in a process of its own, with all keys of a small control plane.

    Attributes:
        folder: Keys, configuration, database, socket, logs.
        port: The relay's.
    """

    folder: Path
    port: int
    child: "subprocess.Popen[bytes] | None" = None
    orders: int = 0

    @property
    def socket(self) -> Path:
        """The local administrator's socket."""
        return self.folder / "run" / "s"

    @property
    def keys(self) -> Path:
        """The control plane's keys."""
        return self.folder / "keys"

    @property
    def database(self) -> Path:
        """The signer's database."""
        return self.folder / "state" / "signer.db"

    @property
    def caller(self) -> KeyFile:
        """The first caller's key."""
        return read(self.keys / "caller.key")

    def prepare(self, token: str) -> None:
        """Make keys and configuration; `token` replaces the made one, for a relay that knows others."""
        self.folder.mkdir(exist_ok=True)
        create_control_plane(self.keys, tenant=TENANT, now_ms=_now_ms())
        (self.keys / "root.key").rename(self.folder / "offline-root.key")
        if token:
            (self.keys / "relay.token").write_text(token)
        self.move(self.port)

    def move(self, port: int) -> None:
        """Let the next start dial another port."""
        self.port = port
        (self.folder / "signer.toml").write_text(
            'state_dir = "state"\nsocket = "run/s"\nkeys_dir = "keys/signer"\n'
            'root = "keys/root.pub"\nmanifest = "keys/manifest"\n'
            f'[relay]\nurl = "http://127.0.0.1:{self.port}"\ntoken_file = "keys/relay.token"\n'
        )

    def start(self) -> None:
        """Start it and wait until its socket answers."""
        command = [
            sys.executable,
            "-c",
            "import sys; from appliance.cli.main import main; sys.exit(main())",
        ]
        with (self.folder / "log").open("ab") as log:
            self.child = subprocess.Popen(
                [*command, "signer", "serve", "--config", str(self.folder / "signer.toml")],
                stderr=log,
                stdout=log,
            )
        deadline = time.monotonic() + HANG_S
        while True:
            try:
                self.ask("GET", "/v1/status")
            except SignerUnreachable:
                assert self.child.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def stop(self) -> int:
        """End it as systemd would; return its exit code."""
        assert self.child is not None
        self.child.terminate()
        return self.child.wait(timeout=HANG_S)

    def ask(
        self, method: str, target: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Ask over the unix socket."""
        return ask(self.socket, method, target, body, headers=headers)

    def order_request(self, device: Device) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of a new, signed job request."""
        self.orders += 1
        body = json.dumps(
            {
                "request": os.urandom(16).hex(),
                "tenant": TENANT,
                "appliance": device.id,
                "op": "diagnostics",
                "args": {},
            }
        ).encode()
        return body, self.signed("POST", "/v1/jobs", body, key=f"order-{self.orders}")

    def signed(self, method: str, path: str, body: bytes, *, key: str) -> dict[str, str]:
        """Return the headers of the first caller's signature."""
        headers = sign_request(
            self.caller.signing_key(),
            method=method,
            path=path,
            body=body,
            idempotency_key=key,
            now_ms=_now_ms(),
        )
        return {name.lower(): value for name, value in headers.items()}


@contextmanager
def signer_process(folder: Path, port: int, *, token: str = "") -> Iterator[SignerProcess]:
    """Make a signer and start it; it is killed at the end."""
    signer = SignerProcess(folder, port)
    signer.prepare(token)
    signer.start()
    caller = read(signer.keys / "caller.pub")
    signer.ask("POST", "/v1/callers", {"public": caller.public.hex(), "tenant": TENANT})
    try:
        yield signer
    finally:
        if signer.child is not None and signer.child.poll() is None:
            signer.kill()


async def enrol(signer: SignerProcess, relay: RelayDouble) -> Device:
    """Enrol a device through the relay and let it say hello."""
    await relay.until(lambda: bool(relay.attaches))
    token = parse_token(signer.ask("POST", "/v1/tokens", {"tenant": TENANT})["token"])
    root = read(signer.keys / "root.pub").public
    ring = KeyRing.open((signer.keys / "manifest").read_bytes(), root=root)
    kit: Any = SimpleNamespace(authority=SimpleNamespace(ring=ring), now_ms=_now_ms())
    device = Device(kit, SigningKey.generate(), SealKey.generate())
    reply = await relay.call("POST", "/v1/enrolments", encode(device.request(token)))
    assert reply.status == 200, reply.body
    device.trust(reply.body)
    await relay.state("hello", device, device.hello_env())
    await relay.until(lambda: len(relay.times) == 1)
    return device


async def order(signer: SignerProcess, relay: RelayDouble, device: Device) -> dict[str, Any]:
    """Order a job through the relay and return the answer."""
    body, headers = signer.order_request(device)
    reply = await relay.call("POST", "/v1/jobs", body, headers)
    assert reply.status == 202, reply.body
    return dict(json.loads(reply.body))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
