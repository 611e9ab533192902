"""A durable command end to end against what it cannot do without: one HTTP round trip and two durable commits.

The way: POST /v1/commands -> relay's SQLite (FULL) -> websocket -> an agent double that commits to its own SQLite
(FULL) -> signed ack -> the relay verifies it, the attached signer hears of it. The measure beside it: an empty aiohttp
handler on the same kind of loop, asked by the same client, then one row into each of two files beside the
others. Relay and bare server are processes of their own; client, agent and signer share this one. Turn by turn, so that
whatever else the machine does meets both.
"""

import asyncio
import hashlib
import re
import sqlite3
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import uvloop

from protocol.control import Attach, Attached, Statement
from protocol.frames import CommandFrame, Credit, Welcome
from tests.support.relay_world import KEYS, AgentDouble, SignerDouble, commands

pytestmark = pytest.mark.bench

ROUNDS = 400
WARM_UP = 40

BARE = """
import asyncio, sys, uvloop
from aiohttp import web

async def handle(request):
    await request.read()
    return web.Response(body=b"{}", content_type="application/json")

async def main():
    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("port", runner.addresses[0][1], file=sys.stderr, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


class Inbox:
    """A database with one durable row a commit: the agent's own, and the measure."""

    def __init__(self, path: Path) -> None:
        self.conn = sqlite3.connect(path, isolation_level=None)
        self.conn.execute("PRAGMA journal_mode = WAL")
        self.conn.execute("PRAGMA synchronous = FULL")
        self.conn.execute("CREATE TABLE inbox (seq INTEGER PRIMARY KEY, env BLOB)")

    def commit(self, seq: int, env: bytes) -> None:
        self.conn.execute("BEGIN IMMEDIATE")
        self.conn.execute("INSERT INTO inbox VALUES (?, ?)", (seq, env))
        self.conn.execute("COMMIT")


@asynccontextmanager
async def server(*arguments: str) -> AsyncIterator[str]:
    """Run a Python process until it names its port; end it afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        while (
            match := re.search(rb"port (\d+)$", (await process.stderr.readline()).rstrip())
        ) is None:
            assert process.returncode is None
        yield f"http://127.0.0.1:{int(match[1])}"
    finally:
        process.terminate()
        await process.communicate()


def configure(folder: Path) -> Path:
    rows = ["[limits]", "requests_per_s = 1e9", "requests_burst = 1000000000"]
    for name, (tenant, role) in KEYS.items():
        digest = hashlib.sha256(name.encode()).hexdigest()
        rows += [
            "[[api_keys]]",
            f'id = "{name}"',
            f'tenant = "{tenant}"',
            f'role = "{role}"',
            f'sha256 = "{digest}"',
        ]
    path = folder / "relay.toml"
    path.write_text("\n".join(rows))
    return path


async def answer(agent: AgentDouble, inbox: Inbox) -> None:
    while True:
        frame = await agent.expect(CommandFrame)
        inbox.commit(frame.seq, frame.env)
        await agent.ack(frame.seq)


async def timed_post(http: aiohttp.ClientSession, url: str, body: bytes) -> float:
    headers = {"Authorization": "Bearer operator", "Content-Type": "application/msgpack"}
    began = time.perf_counter()
    async with http.post(url, data=body, headers=headers) as reply:
        await reply.read()
        assert reply.status < 300
    return time.perf_counter() - began


async def measure(folder: Path, relay: str, bare: str) -> None:
    envs = commands(ROUNDS + WARM_UP)
    inbox = Inbox(folder / "agent.db")
    floor = Inbox(folder / "floor-1.db"), Inbox(folder / "floor-2.db")
    rows: list[tuple[float, float, float]] = []
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{relay}/v1/control") as control,
        asyncio.TaskGroup() as group,
    ):
        signer = SignerDouble(control)
        await signer.send(Attach(token="signer"))
        await signer.expect(Attached)
        await signer.introduce()
        async with http.ws_connect(f"{relay}/v1/channel") as channel:
            agent = AgentDouble(channel)
            await agent.say_hello()
            await agent.expect(Welcome)
            await agent.expect(Credit)
            await agent.fetch(1)
            await signer.expect(Statement)  # the hello
            acker = group.create_task(answer(agent, inbox))
            for seq, env in enumerate(envs, start=1):
                began = time.perf_counter()
                posted = group.create_task(timed_post(http, f"{relay}/v1/commands", env))
                await signer.expect(Statement)  # the ack: durable at the relay
                await posted
                ours = time.perf_counter() - began
                trip = await timed_post(http, bare, env)
                began = time.perf_counter()
                for inbox_ in floor:
                    inbox_.commit(seq, env)
                rows.append((ours, trip + time.perf_counter() - began, trip))
            acker.cancel()
    report(rows[WARM_UP:])


def report(rows: list[tuple[float, float, float]]) -> None:
    ours, floor, trip = (statistics.median(column) * 1e3 for column in zip(*rows, strict=True))
    worst = sorted(row[0] for row in rows)[int(len(rows) * 0.99)] * 1e3
    print(  # noqa: T201
        f"\ndurable command, {len(rows)} rounds: p50 {ours:.2f} ms, p99 {worst:.2f} ms\n"
        f"bare round trip (p50 {trip:.2f} ms) and 2 commits: p50 {floor:.2f} ms\n"
        f"ratio {ours / floor:.2f} (must be <= 2.00)"
    )


async def both(folder: Path) -> None:
    config = str(configure(folder))
    serve = ("-m", "appliance.cli.main", "relay", "serve", "--config", config)
    more = ("--listen", "127.0.0.1:0", "--data-dir", str(folder / "relay"), "--log-level", "error")
    async with server(*serve, *more) as relay, server("-c", BARE) as bare:
        await measure(folder, relay, bare)


def test_durable_command_costs_at_most_two_bare_ones(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both(tmp_path))
