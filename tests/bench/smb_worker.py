"""One transfer over SMB as a process of its own, ours or smbprotocol's: what the benchmark of the share measures.

Run as `python -m tests.bench.smb_worker VERB PORT USER PASSWORD ENCRYPTION CONNECTIONS THREADS PIECE SIZE`; prints
seconds, CPU seconds and the growth of the peak memory in MiB, of the transfer alone.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from smbprotocol.connection import Connection
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    ShareAccess,
)
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

from agent.secrets import Secret
from agent.shares.smb.malloc import tune_malloc
from agent.shares.smb.policy import Encryption, SmbPolicy
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.share import SmbShare
from imaging.units import KiB

READ, WRITTEN = "image.raw", "written.raw"
RANDOM_PIECE = 64 * KiB


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read(share: SmbShare, threads: int, piece: int, _: int) -> Callable[[], None]:
    file = share.open_read(READ)

    def work(number: int) -> None:
        buffer = memoryview(bytearray(piece))
        for offset in range(number * piece, file.size, threads * piece):
            file.read_into(offset, buffer[: min(piece, file.size - offset)])

    return lambda: _in_threads(threads, work)


def _write(share: SmbShare, threads: int, piece: int, size: int) -> Callable[[], None]:
    block = memoryview(os.urandom(2 * piece))

    def work() -> None:
        with share.create(WRITTEN, job="bench", journal=Path("/nowhere"), replace=True) as file:
            file.truncate(size)

            def write(number: int) -> None:
                for offset in range(number * piece, size, threads * piece):
                    start = offset // piece % 251
                    file.write(offset, block[start : start + piece])

            _in_threads(threads, write)
            file.commit()

    return work


def _offsets(size: int, count: int) -> list[int]:
    chance = random.Random(7)
    return [chance.randrange(size // RANDOM_PIECE) * RANDOM_PIECE for _ in range(count)]


def _random(share: SmbShare, threads: int, _: int, size: int) -> Callable[[], None]:
    file = share.open_read(READ)
    offsets = _offsets(file.size, size // RANDOM_PIECE)

    def work(number: int) -> None:
        buffer = memoryview(bytearray(RANDOM_PIECE))
        for offset in offsets[number::threads]:
            file.read_into(offset, buffer)

    return lambda: _in_threads(threads, work)


def _random_smbprotocol(
    port: int, user: str, password: str, *, encrypt: bool, size: int
) -> Callable[[], None]:
    connection = Connection(None, "127.0.0.1", port)
    connection.connect()
    session = Session(connection, user, password, require_encryption=encrypt)
    session.connect()
    tree = TreeConnect(session, r"\\127.0.0.1\plain")
    tree.connect()
    handle = Open(tree, READ)
    handle.create(
        ImpersonationLevel.Impersonation,
        FilePipePrinterAccessMask.FILE_READ_DATA,
        0,
        ShareAccess.FILE_SHARE_READ,
        CreateDisposition.FILE_OPEN,
        CreateOptions.FILE_NON_DIRECTORY_FILE,
    )
    offsets = _offsets(handle.end_of_file, size // RANDOM_PIECE)

    def work() -> None:
        for offset in offsets:
            handle.read(offset, RANDOM_PIECE)

    return work


def _memory(name: str) -> int:
    """Return a figure of /proc/self/status in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _forget_peak() -> int:
    """Let the peak begin at the memory of now, and return that."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def main() -> None:
    """Transfer, print, end."""
    verb, port, user, password, encryption, connections, threads, piece, size = sys.argv[1:]
    tune_malloc()
    if verb == "smbprotocol":
        encrypt = encryption == "require"
        work = _random_smbprotocol(int(port), user, password, encrypt=encrypt, size=int(size))
    else:
        share = SmbShare(
            SmbShareRef("127.0.0.1", "plain", int(port)),
            SmbCredential(user, Secret(password)),
            policy=SmbPolicy(encryption=Encryption(encryption), connections=int(connections)),
        )
        share.connect()
        verbs = {"read": _read, "write": _write, "random": _random}
        work = verbs[verb](share, int(threads), int(piece), int(size))
    before = _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown = (_memory("VmHWM") - before) / 1024
    sys.stdout.write(f"\n{wall} {cpu} {grown}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
