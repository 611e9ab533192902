"""The relay's port against strangers: slow heads and bodies, bytes that are no HTTP, unread answers."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from protocol.frames import Credit, frame_bytes
from relay import door as door_module
from relay.app import serving
from relay.door import Door, listen
from relay.lobby import Lobby
from relay.wire import BODY_S, HEAD_S, STRANGER_S
from tests.e2e.test_relay_process import certificate
from tests.support.relay_world import HANG_S, World, running, until

pytestmark = pytest.mark.e2e

HALF_HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-"
KEY = b"Authorization: Bearer operator\r\n"
LATE_S = 1.0


class Raw:
    """A connection of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, world: World, data: bytes = b"", *, source: str = "127.0.0.1") -> "Raw":
        """Connect from an address of this machine and send."""
        port = int(world.url.rpartition(":")[2])
        raw = cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))
        raw.writer.write(data)
        return raw

    async def rest(self) -> bytes:
        """Read until the relay ends the connection."""
        async with asyncio.timeout(HANG_S):
            try:
                data = await self.reader.read()
            except ConnectionError:
                data = b""
        self.writer.close()
        return data

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer: status, headers in lower case, body."""
        async with asyncio.timeout(HANG_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
            }
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split(" ")[1]), headers, body


class Clock:
    """A clock that only a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as made:
        made.door.clock = Clock()
        await made.know_appliance()
        yield made


def later(world: World, seconds: float) -> None:
    """Let time pass."""
    world.door.clock.now += seconds  # type: ignore[attr-defined]  # Clock
    world.door.sweep()


async def seen(world: World, count: int) -> None:
    """Wait until the relay has read from so many connections."""
    await until(lambda: sum(wire._head_bytes > 0 for wire in world.door._wires) == count)


# --- time ---


async def test_half_heads_are_answered_and_ended_after_their_time(world: World) -> None:
    slow = [await Raw.to(world, HALF_HEAD) for _ in range(50)]
    await seen(world, 50)
    later(world, HEAD_S - LATE_S)
    assert len(world.door._wires) == 50
    later(world, 2 * LATE_S)
    for raw in slow:
        status, headers, body = await raw.answer()
        assert (status, json.loads(body)["code"]) == (408, "relay.too-slow")
        assert headers["content-type"] == "application/problem+json"
        assert await raw.rest() == b""
    await until(lambda: not world.door._wires and not len(world.door.lobby))


async def test_dripping_bytes_do_not_prolong_a_heads_time(world: World) -> None:
    raw = await Raw.to(world, HALF_HEAD)
    await seen(world, 1)
    for n in range(3):
        raw.writer.write(b"a")
        await until(lambda n=n: next(iter(world.door._wires))._head_bytes == len(HALF_HEAD) + n + 1)  # type: ignore[misc]
        later(world, HEAD_S / 2.5)
    assert b"relay.too-slow" in await raw.rest()


async def test_second_half_head_of_a_connection_has_no_more_time(world: World) -> None:
    raw = await Raw.to(world, b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\n" + KEY + b"\r\n")
    assert (await raw.answer())[0] == 200
    later(world, 60)
    raw.writer.write(HALF_HEAD)
    await seen(world, 1)
    later(world, HEAD_S + LATE_S)
    assert b"relay.too-slow" in await raw.rest()


async def test_connection_that_says_nothing_is_ended_without_a_word(world: World) -> None:
    raw = await Raw.to(world)
    await until(lambda: [wire.made for wire in world.door._wires] == [True])
    later(world, HEAD_S + LATE_S)
    assert await raw.rest() == b""


async def test_body_that_stops_is_answered_and_ended(world: World) -> None:
    head = b"POST /v1/commands HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n" + KEY + b"\r\nhalf"
    raw = await Raw.to(world, head)
    await until(lambda: [wire.stranger for wire in world.door._wires] == [None])
    later(world, BODY_S - LATE_S)
    raw.writer.write(b"more")
    await until(lambda: next(iter(world.door._wires))._heard == world.door.clock())
    later(world, BODY_S - LATE_S)
    assert len(world.door._wires) == 1
    later(world, 2 * LATE_S)
    status, _, body = await raw.answer()
    assert (status, json.loads(body)["code"]) == (408, "relay.too-slow")
    assert await raw.rest() == b""


async def test_stranger_may_not_stay_however_busy_he_looks(world: World) -> None:
    async with world.signer():
        head = b"POST /v1/enrolments HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n"
        raw = await Raw.to(world, head)
        wires = world.door._wires
        await until(lambda: any(wire._reading_body() for wire in wires))
        (stranger,) = (wire for wire in wires if wire._reading_body())
        for _ in range(3):
            raw.writer.write(b"x")
            await until(lambda: stranger._heard == world.door.clock())
            later(world, BODY_S - LATE_S)
        assert await raw.rest() == b""


async def test_agents_signers_and_event_streams_are_not_hit(world: World) -> None:
    url = f"{world.url}/v1/events"
    async with (
        world.agent() as agent,
        world.signer(),
        world.http.get(url, headers=world.as_("reader")) as events,
    ):
        assert await events.content.readline() == b": open\n"
        assert len(world.door.lobby) == 0
        for _ in range(10):
            later(world, 10 * STRANGER_S)
        await agent.send(frame_bytes(Credit(n=1)))
        await agent.fetch(1)
        assert len(world.door._wires) == 3
        assert len(world.relay.shared.agents) == 1


# --- TLS, and answers that nobody reads ---


async def test_connection_in_its_tls_handshake_counts_and_can_be_cut(
    tmp_path: Path, world: World
) -> None:
    tls = _context(*certificate(tmp_path))
    door, ports = Door(Lobby(10, 1)), listen("127.0.0.1", 0)
    port = ports[0].getsockname()[1]
    async with serving(world.relay.metrics_application(), ports, door, tls=tls):
        first = Raw(*await asyncio.open_connection("127.0.0.1", port))
        await until(lambda: len(door.lobby) == 1)
        second = Raw(*await asyncio.open_connection("127.0.0.1", port))
        assert await first.rest() == b""
        await until(lambda: len(door._wires) == 1)
        second.writer.write(b"GET / HTTP/1.1\r\n\r\n" * 20)
        await second.rest()
        await until(lambda: not door._wires and not len(door.lobby))


async def test_tls_handshake_has_a_time(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "HANDSHAKE_S", 0.05)
    door, ports = Door(Lobby(10, 10)), listen("127.0.0.1", 0)
    tls = _context(*certificate(tmp_path))
    async with serving(world.relay.metrics_application(), ports, door, tls=tls):
        raw = Raw(*await asyncio.open_connection("127.0.0.1", ports[0].getsockname()[1]))
        assert await raw.rest() == b""
        await until(lambda: not door._wires)


async def test_client_that_reads_no_answer_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "UNREAD_S", 0.2)
    async with running(tmp_path) as world:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0)
        port = int(world.url.rpartition(":")[2])
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        request = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, request * 200)
        await until(lambda: len(world.door._wires) == 1)
        await until(lambda: not world.door._wires)
        client.close()


# --- bytes that are no HTTP ---

LONG = b"SECRETSECRET" * 1700
TOO_LARGE = (431, "relay.head-too-large")
NO_HTTP = (400, "relay.bad-http")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
ENROL = b"POST /v1/enrolments HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST /v1/commands HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + KEY + b"\r\n"
REFUSED = {
    "long-header": (GET + b"X: " + LONG + b"\r\n\r\n", *TOO_LARGE),
    "long-target": (b"GET /" + LONG + b" HTTP/1.1\r\nHost: a\r\n\r\n", *TOO_LARGE),
    "endless-head": (GET + (b"X: " + b"SECRET" * 900 + b"\r\n") * 20, *TOO_LARGE),
    "many-headers": (GET + b"X: SECRET\r\n" * 200 + b"\r\n", *NO_HTTP),
    "method": (b"SEC<RET> / HTTP/1.1\r\nHost: a\r\n\r\n", *NO_HTTP),
    "tls-hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03SECRET", *NO_HTTP),
    "version": (b"GET /SECRET HTTP/9.9\r\nHost: a\r\n\r\n", *NO_HTTP),
    "null": (b"GET /SEC\x00RET HTTP/1.1\r\nHost: a\r\n\r\n", *NO_HTTP),
    "null-header": (GET + b"X: SECRET\x00SECRET\r\n\r\n", *NO_HTTP),
    "space-header": (GET + b"X : SECRET\r\n\r\n", *NO_HTTP),
    "length": (ENROL + b"Content-Length: SECRET\r\n\r\n", *NO_HTTP),
    "length-sign": (ENROL + b"Content-Length: +5\r\n\r\nSECRE", *NO_HTTP),
    "two-lengths": (ENROL + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nSECRET", *NO_HTTP),
    "length-and-chunks": (
        ENROL + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        *NO_HTTP,
    ),
    "chunk": (CHUNKED + b"SECRET\r\n", *NO_HTTP),
    "chunk-absurd": (CHUNKED + b"fffffffffffffffffffffff\r\nSECRET", *NO_HTTP),
}


@pytest.mark.parametrize(("data", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_bytes_that_are_no_http_get_a_problem_and_one_line(
    world: World, data: bytes, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.signer():
        with capture_logs() as lines:
            raw = await Raw.to(world, data)
            found, headers, body = await raw.answer()
            assert await raw.rest() == b""
    assert (found, json.loads(body)["code"], json.loads(body)["status"]) == (status, code, status)
    assert headers["content-type"].startswith("application/problem+json")
    bad = [line for line in lines if line["event"] == "bad request"]
    assert [(line["peer"], line["code"]) for line in bad] == [("127.0.0.1", code)]
    assert b"SECRET" not in body
    assert "SECRET" not in f"{lines}{caplog.text}"
    assert "Traceback" not in f"{lines}{caplog.text}"


async def test_chunk_that_goes_bad_while_the_body_is_read_is_a_problem_too(world: World) -> None:
    with capture_logs() as lines:
        raw = await Raw.to(world, CHUNKED + b"5\r\nbegin\r\n")
        await until(lambda: any(wire._reading_body() for wire in world.door._wires))
        raw.writer.write(b"SECRET\r\n")
        status, _, body = await raw.answer()
        assert await raw.rest() == b""
    assert (status, json.loads(body)["code"]) == NO_HTTP
    assert "SECRET" not in f"{lines}"
    assert "exc_info" not in f"{lines}"


async def test_chunk_that_goes_bad_behind_the_answer_is_one_line(world: World) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with capture_logs() as lines:
        raw = await Raw.to(world, head + b"5\r\nbegin\r\n")
        assert (await raw.answer())[0] == 200
        raw.writer.write(b"SECRET\r\n")
        assert await raw.rest() == b""
    assert [line["event"] for line in lines] == ["bad request"]


@pytest.mark.parametrize("path", [b"/healthz", b"/nowhere"])
async def test_unknown_expectation_is_refused_and_not_quoted(world: World, path: bytes) -> None:
    with capture_logs() as lines:
        raw = await Raw.to(world, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nExpect: \xff\r\n\r\n")
        status, _, body = await raw.answer()
        raw.writer.close()
    assert (status, json.loads(body)["code"]) == (417, "relay.bad-request")
    assert lines == []


@pytest.mark.parametrize("path", [b"/v1/channel", b"/v1/control"])
@pytest.mark.parametrize(
    "header", [b"Upgrade", b"Connection", b"Sec-WebSocket-Version", b"Sec-WebSocket-Key"]
)
async def test_garbled_handshake_is_refused_and_not_quoted(
    world: World, path: bytes, header: bytes
) -> None:
    good = {
        b"Upgrade": b"websocket",
        b"Connection": b"Upgrade",
        b"Sec-WebSocket-Version": b"13",
        b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
    }
    lines = b"".join(b"%s: %s\r\n" % row for row in (good | {header: b"\xff"}).items())
    with capture_logs() as logged:
        raw = await Raw.to(world, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        status, _, body = await raw.answer()
        raw.writer.close()
    assert (status, json.loads(body)["code"]) == (400, "relay.bad-http")
    assert logged == []


async def test_compressed_body_is_refused_unread(world: World) -> None:
    more = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with world.http.post(
        f"{world.url}/v1/commands", data=b"{}", headers={**world.as_("operator"), **more}
    ) as got:
        assert (got.status, (await got.json(content_type=None))["code"]) == (
            415,
            "relay.unsupported-media",
        )


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context
