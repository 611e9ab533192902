"""The relay's process: builds the parts, serves them on one port, stops cleanly. The only file with a real clock.

Stop (SIGTERM, SIGINT): the port takes no new connection, agents hear `going_away`, event streams end, running
requests get `drain_s` seconds, then the store is closed. Nothing is lost by a harder end either; it only takes longer
to notice.
"""

import asyncio
import contextlib
import gc
import math
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from protocol.frames import CLOSE_GOING_AWAY
from relay import problems
from relay.agents import Agents
from relay.api import openapi
from relay.api.auth import Keys
from relay.api.context import Api
from relay.api.route import bind
from relay.api.routes import METRICS, ROUTES
from relay.artifacts import Artifacts
from relay.channel import Channel
from relay.config import RelayConfig, notify_socket, split_listen
from relay.control import Control
from relay.desk import Shared
from relay.door import Door, listen
from relay.errors import ConfigError
from relay.folder import FolderHeld, hold
from relay.hub import Hub
from relay.intake import Intake
from relay.limits import Buckets
from relay.lobby import Lobby
from relay.metrics import Metrics
from relay.sdnotify import notify
from relay.signers import Signers
from relay.store.base import Store
from relay.store.memory import MemoryStore
from relay.store.sqlite import open_sqlite
from relay.wire import STRANGER_S, need_c_parser

SWITCH_S = 0.0005
"""The store's thread waits this long at most for its turn after an fsync; Python's default is ten times more."""
COME_BACK_AFTER_S = 1.0
COME_BACK_SPREAD_S = 10.0

log = structlog.get_logger(__name__)


def now_ms() -> int:
    """Return the wall clock in ms UTC."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Relay:
    """All parts of one relay."""

    config: RelayConfig
    api: Api
    channel: Channel
    control: Control

    @property
    def shared(self) -> Shared:
        """The store and everything around it."""
        return self.api.shared

    def application(self) -> web.Application:
        """Return the web application: REST, the agents' and the signer's websockets."""
        app = web.Application(middlewares=[problems.middleware])
        app.on_response_prepare.append(_name_ourselves)
        for route in ROUTES:
            app.router.add_route(route.method, route.router_path, bind(self.api, route))
        if not self.config.metrics_listen:
            app.router.add_route(METRICS.method, METRICS.path, bind(self.api, METRICS))
        app.router.add_get("/v1/channel", self.channel.serve)
        app.router.add_get("/v1/control", self.control.serve)
        return app

    def metrics_application(self) -> web.Application:
        """Return the application of the metrics' own listener, which asks for no key."""

        async def show(_request: web.Request) -> web.Response:
            return web.Response(body=self.shared.metrics.text(), content_type="text/plain")

        app = web.Application(middlewares=[problems.middleware])
        app.router.add_get(METRICS.path, show)
        return app

    def door(self) -> Door:
        """Return who takes the connections of our port."""
        limits, proxied = self.config.limits, self.config.behind_proxy
        lobby = Lobby(
            min(limits.strangers, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2),
            0 if proxied else limits.strangers_per_address,
        )
        # A proxy keeps its connections to us; callers come and go on them. A caller may wait for the signer.
        stranger_s = math.inf if proxied else STRANGER_S + limits.call_s
        cut = self.shared.metrics.cut
        return Door(lobby, stranger_s, cut=lambda reason: cut.labels(reason=reason).inc())

    def metrics_door(self) -> Door:
        """Return who takes the connections of the metrics' own port: nobody proves there who he is."""
        door = self.door()
        door.stranger_s = math.inf
        return door

    async def go_away(self) -> None:
        """Say goodbye to agents, streams and signers; give what runs up to `drain_s` seconds."""
        self.channel.go_away(after=COME_BACK_AFTER_S, spread=COME_BACK_SPREAD_S)
        self.shared.hub.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_s):
                await self.shared.agents.empty.wait()
        for link in self.shared.agents:
            link.close(CLOSE_GOING_AWAY, "relay.going-away")
        self.control.close()

    async def close(self) -> None:
        """Let go of files and the database."""
        self.api.artifacts.close()
        await self.shared.store.close()


async def _name_ourselves(_request: web.Request, response: web.StreamResponse) -> None:
    """Tell strangers no versions of what we are made of."""
    response.headers["Server"] = "imageport"


def build(
    config: RelayConfig,
    store: Store,
    *,
    now: Callable[[], int] = now_ms,
    boot: Callable[[], float] = time.monotonic,
) -> Relay:
    """Put a relay together over a store."""
    agents, hub, metrics = Agents(), Hub(), Metrics()
    signers = Signers(expected=any(key.role == "control" for key in config.api_keys))
    roots = tuple(bytes.fromhex(root) for root in config.roots)
    intake = Intake(store, hub, agents, now, roots)
    shared = Shared(store, intake, agents, signers, hub, metrics, now)
    limits, keys = config.limits, Keys(config.api_keys)
    api = Api(
        config=config,
        shared=shared,
        keys=keys,
        artifacts=Artifacts(Path(config.data_dir) / "artifacts", limits.artifact_bytes),
        now_ms=now,
        boot_s=boot,
        requests=Buckets(limits.requests_per_s, limits.requests_burst),
        enrolments=Buckets(limits.enrolments_per_min / 60, limits.enrolments_per_min),
        openapi=openapi.text(),
    )
    channel = Channel(shared, boot, limits.unverified)
    control = Control(store, intake, signers, keys, metrics, now)
    return Relay(config, api, channel, control)


@contextlib.contextmanager
def opened_store(config: RelayConfig) -> Iterator[Store]:
    """Open the configured store, making its folder on first use, and hold the folder while the context lasts.

    Of two relays on one database each would miss what agents and signers told the other.

    Raises:
        StoreError, ConfigError.
    """
    if config.store == "memory":
        yield MemoryStore()
        return
    folder = Path(config.data_dir)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(folder))
        except FolderHeld as err:
            raise ConfigError(f"another relay holds {folder}", path=str(folder)) from err
        except OSError as err:
            raise ConfigError(f"data_dir {folder}: {err.strerror}", path=str(folder)) from err
        yield open_sqlite(folder / "relay.db", now=now_ms())


def tls_context(config: RelayConfig) -> ssl.SSLContext | None:
    """Return the context of our own certificate, None for plain HTTP. Raises ConfigError."""
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as err:
        raise ConfigError(f"tls_cert {config.tls_cert} or tls_key {config.tls_key}: {err}") from err
    return context


async def serve(config: RelayConfig, *, ready: Callable[[int], None] = lambda _port: None) -> None:
    """Serve until SIGTERM or SIGINT; `ready` hears the port as soon as connections are taken.

    Raises:
        ConfigError, StoreError: It could not start.
    """
    need_c_parser()
    tls = tls_context(config)
    raise_descriptor_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        relay = build(config, stack.enter_context(opened_store(config)))
        stack.push_async_callback(relay.close)
        if config.metrics_listen:
            await _listen(
                stack, relay.metrics_application(), config.metrics_listen, relay.metrics_door()
            )
        door = relay.door()
        port = await _listen(
            stack, relay.application(), config.listen, door, tls=tls, drain_s=config.drain_s
        )
        gc.freeze()
        notify(notify_socket(), "READY=1")
        log.info("relay ready", listen=config.listen, port=port, tls=tls is not None)
        ready(port)
        await stop.wait()
        notify(notify_socket(), "STOPPING=1")
        log.info("relay stopping", agents=len(relay.shared.agents))
        await door.stop()
        await relay.go_away()


async def _listen(
    stack: contextlib.AsyncExitStack,
    app: web.Application,
    address: str,
    door: Door,
    *,
    tls: ssl.SSLContext | None = None,
    drain_s: float = 1.0,
) -> int:
    """Open a port until the stack unwinds and return its number. Raises ConfigError."""
    host, port = split_listen(address)
    try:
        ports = listen(host, port)
    except OSError as err:
        raise ConfigError(
            f"cannot listen on {address}: {err.strerror or err}", listen=address
        ) from err
    await stack.enter_async_context(serving(app, ports, door, tls=tls, drain_s=drain_s))
    return int(ports[0].getsockname()[1])


@contextlib.asynccontextmanager
async def serving(
    app: web.Application,
    ports: list[socket.socket],
    door: Door,
    *,
    tls: ssl.SSLContext | None = None,
    drain_s: float = 1.0,
) -> AsyncIterator[None]:
    """Serve an application while the context lasts; running requests then get `drain_s` seconds."""
    runner = web.AppRunner(app, shutdown_timeout=drain_s, handle_signals=False)
    await runner.setup()
    try:
        if runner.server is None:
            raise AssertionError("a runner that was set up has a server")
        async with door.open(ports, runner.server, tls):
            yield
    finally:
        await runner.cleanup()


def raise_descriptor_limit() -> None:
    """Let this process open as many files as the system allows: a connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The unit's sandbox forbids it; it set the limit itself.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(config: RelayConfig, *, ready: Callable[[int], None] = lambda _port: None) -> None:
    """Serve on uvloop if it is installed (TLS costs 36 KiB a connection there instead of 290), else on asyncio."""
    try:
        import uvloop  # noqa: PLC0415  # an extra
    except ModuleNotFoundError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    sys.setswitchinterval(SWITCH_S)
    os.umask(0o077)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(config, ready=ready))
