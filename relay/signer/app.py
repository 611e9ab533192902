"""The signer's process: reads configuration and keys, opens the database, the local door and the line to the relay.

Composition root: the only place with the real clock and the operating system's randomness.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from relay.signer.authority import Authority, trusted_ring
from relay.signer.config import SignerConfig, keys_folder, notify_socket, read_token, watchdog_s
from relay.signer.database import Database
from relay.signer.dial import Dialler
from relay.signer.door import Door
from relay.signer.errors import BadConfig
from relay.signer.keys import load_keys, load_root
from relay.signer.sdnotify import Notifier
from relay.signer.service import Service

DATABASE = "signer.sqlite3"

log = structlog.get_logger(__name__)


async def serve(config: SignerConfig, *, ready: Callable[[], None]) -> None:
    """Run until SIGTERM or SIGINT; `ready` is called once the local door is open.

    Raises:
        BadConfig: A file, a key or the key manifest cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        service = await _open(config, stack)
        dialler = Dialler(service, config, read_token(Path(config.relay.token_file)))
        door = Door(service, Path(config.socket))
        await door.open()
        stack.push_async_callback(door.close)
        notifier = Notifier(notify_socket())
        notifier.send("READY=1")
        ready()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(dialler.run()), group.create_task(_watchdog(notifier))]
            await stop.wait()
            notifier.send("STOPPING=1")
            for task in tasks:
                task.cancel()


async def _open(config: SignerConfig, stack: AsyncExitStack) -> Service:
    keys = load_keys(keys_folder(config))
    root = load_root(Path(config.root))
    folder = Path(config.state_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    db = Database(folder / DATABASE)
    await db.open()
    stack.push_async_callback(db.close)
    configured = _read_manifest(Path(config.manifest))
    ring = await db.run(
        lambda conn: trusted_ring(conn, root=root, configured=configured, at=now_ms())
    )
    authority = Authority(
        keys,
        ring,
        now=now_ms,
        random=os.urandom,
        limits=config.limits,
        valid_ms=config.valid_s * 1000,
        bearer_keys=config.bearer_keys,
    )
    log.info("signer opened", manifest=ring.manifest.serial, state=str(folder))
    return Service(db, authority, asyncio.Semaphore(config.limits.requests))


def now_ms() -> int:
    """Return the wall clock in ms UTC: the signer's clock is the site's truth about time."""
    return time.time_ns() // 1_000_000


def _read_manifest(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        msg = f"the key manifest {path} cannot be read: {err.strerror}"
        raise BadConfig(msg) from err


async def _watchdog(notifier: Notifier) -> None:
    interval = watchdog_s()
    while True:
        await asyncio.sleep(3600 if interval is None else interval / 2)
        notifier.send("WATCHDOG=1")
