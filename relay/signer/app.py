"""The signer's process: real clock, real files, socket and channel in one TaskGroup, SIGTERM ends it. Nothing else.

Order at start: keys (a root key among them stops it), database, key manifest, socket, channel; ready is said when
the socket answers, because the relay may be away for a while.
"""

import asyncio
import os
import secrets
import signal
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import structlog

from protocol.errors import ProtocolError
from relay.folder import FolderHeld, hold
from relay.log import configure
from relay.sdnotify import notify
from relay.signer import config as configuration
from relay.signer.authority import Authority, Effects, trusted_ring
from relay.signer.channel import Channel, Dial
from relay.signer.config import SignerConfig
from relay.signer.database import Database
from relay.signer.errors import BadConfig
from relay.signer.keys import load_keys, load_root
from relay.signer.renewal import renew
from relay.signer.server import serve
from relay.signer.service import Service

log = structlog.get_logger(__name__)

DATABASE = "signer.db"
MAX_MANIFEST_FILE = 512 * 1024


def run(config_file: Path | None, *, ready: Callable[[], None]) -> None:
    """Run the signer until SIGTERM or SIGINT; `config_file` None reads the system's files.

    Raises:
        BadConfig: It cannot start like this.
    """
    config = configuration.load(config_file)
    configure(level=config.log_level, as_json=True)
    os.umask(0o077)
    with _only_one(Path(config.state_dir)):
        asyncio.run(_run(config, ready))


async def _run(config: SignerConfig, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    manager = configuration.notify_socket()
    async with AsyncExitStack() as stack:
        channel_dial = _dial(config)
        service = await _service(config, stack)
        runner = await serve(service, Path(config.socket))
        stack.push_async_callback(runner.cleanup)
        notify(manager, "READY=1")
        log.info("signer ready", manifest=service.authority.ring.manifest.serial)
        ready()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(Channel(channel_dial, service).run()),
                group.create_task(service.run_receipts()),
                group.create_task(_watchdog(manager, service)),
            ]
            await stop.wait()
            notify(manager, "STOPPING=1")
            log.info("signer stops")
            for task in tasks:
                task.cancel()


async def _service(config: SignerConfig, stack: AsyncExitStack) -> Service:
    keys = load_keys(configuration.keys_folder(config))
    root = load_root(Path(config.root))
    manifest = _manifest_file(Path(config.manifest))
    database = Database(Path(config.state_dir) / DATABASE)
    await database.open()
    stack.push_async_callback(database.close)
    try:
        ring = await database.run(
            lambda conn: trusted_ring(conn, root=root, configured=manifest, at=_now_ms())
        )
    except ProtocolError as err:
        msg = f"the key manifest {config.manifest} is not accepted: {err}"
        raise BadConfig(msg) from err
    authority = Authority(
        keys,
        ring,
        now=_now_ms,
        random=secrets.token_bytes,
        limits=config.limits,
        valid_ms=config.valid_s * 1000,
    )
    await database.run(lambda conn: _renew(conn, authority))
    return Service(database, authority)


def _renew(conn: sqlite3.Connection, authority: Authority) -> None:
    """A manifest that came by the configured file may revoke what the last one did not; the outbox reads the rest."""
    effects = Effects()
    renew(conn, authority, effects=effects)
    for event, facts in effects.notes:
        log.info(event, **facts)


def _dial(config: SignerConfig) -> Dial:
    token_file = Path(config.relay.token_file)
    configuration.read_token(token_file)  # says now what would fail later
    tls = None
    if config.relay.ca:
        try:
            tls = ssl.create_default_context(cafile=config.relay.ca)
        except (OSError, ssl.SSLError) as err:
            msg = f"relay.ca {config.relay.ca} is no PEM bundle: {err}"
            raise BadConfig(msg) from err
    return Dial(config.relay.url, lambda: configuration.read_token(token_file), tls)


async def _watchdog(manager: str, service: Service) -> None:
    """Tell systemd that the database still commits: a signer that cannot is restarted."""
    interval = configuration.watchdog_s()
    if interval is None:
        return
    while True:
        await service.database.run(lambda conn: conn.execute("SELECT 1").fetchone())
        notify(manager, "WATCHDOG=1")
        await asyncio.sleep(interval / 3)


@contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    """Hold the state folder: of two signers on one database, each would miss what only the other compared."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(state_dir))
        except FolderHeld as err:
            msg = f"another signer holds {state_dir}"
            raise BadConfig(msg) from err
        except OSError as err:
            msg = f"state_dir {state_dir} cannot be used: {err.strerror}"
            raise BadConfig(msg) from err
        yield


def _manifest_file(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST_FILE)
    except FileNotFoundError:
        return None  # one that was given over the socket may be in the database
    except OSError as err:
        msg = f"the key manifest {path} cannot be read: {err.strerror}"
        raise BadConfig(msg) from err


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
