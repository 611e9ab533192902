"""A relay on a free port of this process, with doubles of an agent and of a signer that speak frame by frame.

The doubles do nothing by themselves: a test says what they send and what it expects to come.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from protocol.codec import encode
from protocol.control import (
    ApplianceHead,
    Attach,
    Attached,
    Push,
    Pushed,
    parse_to_signer,
)
from protocol.frames import (
    AckFrame,
    Challenge,
    Credit,
    EventFrame,
    Fetch,
    Frame,
    HelloFrame,
    NackFrame,
    ResultFrame,
    Welcome,
    frame_bytes,
    parse_from_relay,
)
from protocol.jobs import EventBody
from protocol.messages import Ack, Event, Kind, Layout, Nack, Result
from protocol.signed import SigningKey, parse_envelope, sign
from relay.app import Relay, build, serving
from relay.config import ApiKey, RelayConfig
from relay.door import Door, listen
from relay.store.base import Kept, Store
from relay.store.memory import MemoryStore
from tests.support import protocol_world as w

JOURNAL = b"J" * 16
HANG_S = 20.0
F = TypeVar("F", bound=Frame)

KEYS = {
    "admin": ("acme", "admin"),
    "operator": ("acme", "operator"),
    "reader": ("acme", "reader"),
    "stranger": ("other", "admin"),
    "signer": ("*", "control"),
    "acme-signer": ("acme", "control"),
}
"""Key text and id -> tenant, role."""


def config(folder: Path, **changes: Any) -> RelayConfig:
    """Return a configuration with every role's key; a key's text is its id."""
    keys = tuple(
        ApiKey(id=name, tenant=tenant, role=role, sha256=hashlib.sha256(name.encode()).hexdigest())
        for name, (tenant, role) in KEYS.items()
    )
    fields: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "data_dir": str(folder),
        "store": "memory",
        "api_keys": keys,
        "drain_s": 1.0,
    }
    return RelayConfig(**(fields | changes))


@dataclass
class World:
    """One running relay."""

    relay: Relay
    door: Door
    url: str
    http: aiohttp.ClientSession
    now: int = w.T0 + w.HOUR_MS

    def as_(self, key: str) -> dict[str, str]:
        """Return the headers of an API key."""
        return {"Authorization": f"Bearer {key}"}

    async def get(self, path: str, *, key: str = "reader", **kwargs: Any) -> Any:
        """GET JSON; the answer must be 200."""
        async with self.http.get(self.url + path, headers=self.as_(key), **kwargs) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post_command(
        self, env: bytes, *, key: str = "operator", **headers: str
    ) -> tuple[int, Any]:
        """Queue an envelope; return status and body."""
        more = {"Content-Type": "application/msgpack", **headers}
        async with self.http.post(
            f"{self.url}/v1/commands", data=env, headers=self.as_(key) | more
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    @property
    def store(self) -> Store:
        """The relay's store."""
        return self.relay.shared.store

    async def know_appliance(self, *, manifest: bool = True) -> None:
        """Give the relay the appliance's record and the key manifest, as a signer once did."""
        env = w.envelope(Kind.RECORD, w.record(), w.RECORD)
        await self.store.keep(
            w.TENANT, w.APPLIANCE, Kept("record", 1, env, w.T0), actor="test", now=w.T0
        )
        if manifest:
            env = w.envelope(Kind.MANIFEST, w.manifest(), w.ROOT)
            await self.store.keep(
                w.TENANT, "*", Kept("manifest", 1, env, w.T0), actor="test", now=w.T0
            )

    @asynccontextmanager
    async def agent(self, **hello: Any) -> AsyncIterator["AgentDouble"]:
        """Connect an agent up to the relay's welcome."""
        async with self.http.ws_connect(f"{self.url}/v1/channel", max_msg_size=0) as socket:
            agent = AgentDouble(socket)
            await agent.say_hello(**hello)
            agent.welcome = await agent.expect(Welcome)
            await agent.expect(Credit)
            yield agent

    @asynccontextmanager
    async def signer(
        self, *heads: ApplianceHead, token: str = "signer"
    ) -> AsyncIterator["SignerDouble"]:
        """Attach a signer up to the relay's answer."""
        async with self.http.ws_connect(f"{self.url}/v1/control", max_msg_size=0) as socket:
            signer = SignerDouble(socket)
            await signer.send(Attach(token=token, appliances=heads))
            signer.attached = await signer.expect(Attached)
            yield signer


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds: what a peer saw, the relay may still be tidying up after."""
    async with asyncio.timeout(HANG_S):
        while not holds():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0)


@asynccontextmanager
async def running(
    folder: Path, *, store: Store | None = None, **changes: Any
) -> AsyncIterator[World]:
    """Serve a relay and close it at the end, as a process would."""
    world: list[World] = []
    relay = build(config(folder, **changes), store or MemoryStore(), now=lambda: world[0].now)
    ports, door = listen("127.0.0.1", 0), relay.door()
    url = f"http://127.0.0.1:{ports[0].getsockname()[1]}"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(relay.close)
        await stack.enter_async_context(serving(relay.application(), ports, door))
        stack.push_async_callback(relay.go_away)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        world.append(World(relay, door, url, http))
        yield world[0]


@dataclass
class Peer:
    """One end of a websocket."""

    socket: aiohttp.ClientWebSocketResponse

    async def send(self, frame: Frame | bytes) -> None:
        """Send a frame, or any bytes."""
        await self.socket.send_bytes(frame if isinstance(frame, bytes) else frame_bytes(frame))

    async def closed(self) -> tuple[int | None, str]:
        """Read on until the relay closes; return code and reason."""
        async with asyncio.timeout(HANG_S):
            while True:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.CLOSE:
                    return message.data, str(message.extra)
                if message.type is not aiohttp.WSMsgType.BINARY:
                    return self.socket.close_code, ""

    async def _receive(self) -> bytes:
        async with asyncio.timeout(HANG_S):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.BINARY, message
        data: bytes = message.data
        return data


@dataclass
class AgentDouble(Peer):
    """An appliance's end of the channel."""

    device: SigningKey = w.DEVICE
    welcome: Welcome | None = None
    skipped: list[Frame] = field(default_factory=list)

    async def say_hello(self, **changes: Any) -> None:
        """Answer the challenge."""
        challenge = await self.expect(Challenge)
        hello = w.hello(**{"challenge": challenge.challenge, **changes})
        env = sign(Kind.HELLO, hello, self.device)
        await self.send(HelloFrame(tenant=hello.tenant, appliance=hello.appliance, env=env))

    async def expect(self, type_: type[F]) -> F:
        """Read until a frame of this type comes; others go to `skipped`."""
        while True:
            frame = parse_from_relay(await self._receive())
            if isinstance(frame, type_):
                return frame
            self.skipped.append(frame)

    async def fetch(self, seq: int, *, epoch: int = 1, window: int = 64) -> None:
        """Ask for the commands from `seq` on."""
        await self.send(Credit(n=window))
        await self.send(Fetch(epoch=epoch, seq=seq))

    async def ack(self, have: int, *, epoch: int = 1) -> None:
        """Say what is durable."""
        await self.send(
            AckFrame(env=self._sign(Kind.ACK, Ack(epoch=epoch, have=have, head=b"h" * 32)))
        )

    async def nack(self, digest: bytes, code: str, *, have: int = 0) -> None:
        """Say what cannot be consumed."""
        nack = Nack(epoch=1, have=have, digest=digest, code=code)
        await self.send(NackFrame(env=self._sign(Kind.NACK, nack)))

    async def event(self, id_: bytes, n: int, body: EventBody) -> None:
        """Report a job's progress or state."""
        event = Event(
            v=1,
            tenant=w.TENANT,
            appliance=w.APPLIANCE,
            journal=JOURNAL,
            id=id_,
            n=n,
            body=encode(body),
        )
        await self.send(EventFrame(env=self._sign(Kind.EVENT, event)))

    async def result(self, result: Result, report: bytes = b"") -> bytes:
        """Send a result and return its envelope."""
        env = self._sign(Kind.RESULT, result)
        await self.send(ResultFrame(env=env, report=report))
        return env

    def _sign(self, kind: Kind, layout: Layout) -> bytes:
        return sign(kind, layout, self.device)


@dataclass
class SignerDouble(Peer):
    """A signer's end of the control channel."""

    attached: Attached | None = None
    skipped: list[Frame] = field(default_factory=list)
    _pushes: int = 0

    async def expect(self, type_: type[F]) -> F:
        """Read until a frame of this type comes; others go to `skipped`."""
        while True:
            frame = parse_to_signer(await self._receive())
            if isinstance(frame, type_):
                return frame
            self.skipped.append(frame)

    async def push(
        self, kind: Any, env: bytes, *, appliance: str = w.APPLIANCE, tenant: str = w.TENANT
    ) -> Pushed:
        """Push a signed thing and return the relay's answer."""
        self._pushes += 1
        await self.send(
            Push(push=self._pushes, kind=kind, tenant=tenant, appliance=appliance, env=env)
        )
        return await self.expect(Pushed)

    async def introduce(self) -> None:
        """Push the key manifest and the appliance's record."""
        manifest = w.envelope(Kind.MANIFEST, w.manifest(), w.ROOT)
        assert (await self.push("manifest", manifest, appliance="*")).code == ""
        assert (await self.push("record", w.envelope(Kind.RECORD, w.record(), w.RECORD))).code == ""


def commands(count: int) -> list[bytes]:
    """Return the envelopes of the first `count` commands, in one chain."""
    head, found = w.HEAD_0, []
    for _ in range(count):
        env = w.signed_command(head)
        found.append(env)
        head = head.after(parse_envelope(env, limit=2**20).digest)
    return found


def result(n: int, env: bytes, *, status: str = "succeeded", **changes: Any) -> Result:
    """Return result number `n`: the end of the command in an envelope, whose number is `n` too."""
    envelope = parse_envelope(env, limit=2**20)
    fields: dict[str, Any] = {
        "v": 1,
        "tenant": w.TENANT,
        "appliance": w.APPLIANCE,
        "journal": JOURNAL,
        "n": n,
        "id": n.to_bytes(16),
        "digest": envelope.digest,
        "epoch": 1,
        "seq": n,
        "op": "sweep",
        "status": status,
        "attempt": 1,
        "ended": w.T0 + 1,
        "outputs": (),
    }
    return Result(**(fields | changes))
