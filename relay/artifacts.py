"""Files that pass through the relay (a compositor's bits): chunks in, checked by digest, ranges out. Never disk images.

A file is `<folder>/<tenant>/<sha256>`; while it grows it has the suffix `.part`, whose length is what was received, so
an upload resumes after any crash. It gets its name only after its digest was right and its bytes were synced.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from relay.errors import ArtifactDigest, ArtifactOffset, InFlight, StoreError, StoreFull, TooLarge

READ = 1024 * 1024
THREADS = 2

T = TypeVar("T")


@dataclass(slots=True)
class Artifacts:
    """The files of all tenants. One upload of a file at a time."""

    folder: Path
    max_bytes: int
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="relay-files")
    )
    _busy: set[Path] = field(default_factory=set)

    def path(self, tenant: str, sha256: bytes) -> Path:
        """Return where the finished file is, or will be."""
        return self.folder / tenant / sha256.hex()

    async def received(self, tenant: str, sha256: bytes) -> int:
        """Return how many bytes of an unfinished file are here."""
        part = _part(self.path(tenant, sha256))
        return await self._run(lambda: part.stat().st_size if part.exists() else 0)

    async def receive(
        self, tenant: str, sha256: bytes, chunks: AsyncIterator[bytes], *, offset: int, size: int
    ) -> int:
        """Append a chunk that begins at `offset`; finish the file when `size` bytes are here. Returns what is received.

        Raises:
            TooLarge, ArtifactOffset, ArtifactDigest, InFlight, StoreFull, StoreError.
        """
        if size > self.max_bytes:
            raise TooLarge(f"{size} bytes, at most {self.max_bytes} allowed", limit=self.max_bytes)
        path = self.path(tenant, sha256)
        if path in self._busy:
            raise InFlight("another request is writing this artifact")
        self._busy.add(path)
        try:
            return await self._append(path, sha256, chunks, offset=offset, size=size)
        finally:
            self._busy.discard(path)

    async def _append(
        self, path: Path, sha256: bytes, chunks: AsyncIterator[bytes], *, offset: int, size: int
    ) -> int:
        part = _part(path)
        at = await self._run(lambda: _begin(part, offset))
        async for chunk in chunks:
            if at + len(chunk) > size:
                raise TooLarge(f"more bytes than the {size} that were announced", limit=size)
            await self._run(lambda data=chunk: _append(part, data))  # type: ignore[misc]  # bound at once
            at += len(chunk)
        if at == size:
            await self._run(lambda: _finish(part, path, sha256))
        return at

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as err:
            if err.errno in (28, 122):  # ENOSPC, EDQUOT
                raise StoreFull(
                    "the disk under the artifacts is full; what came before is kept"
                ) from err
            raise StoreError(f"the artifacts folder failed: {err.strerror}") from err

    def close(self) -> None:
        """Finish what runs."""
        self._pool.shutdown()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _begin(part: Path, offset: int) -> int:
    part.parent.mkdir(parents=True, exist_ok=True)
    received = part.stat().st_size if part.exists() else 0
    if offset != received:
        raise ArtifactOffset(
            f"the chunk begins at {offset}, {received} bytes are here", received=received
        )
    return received


def _append(part: Path, data: bytes) -> None:
    with part.open("ab") as file:
        file.write(data)


def _finish(part: Path, path: Path, sha256: bytes) -> None:
    """Check the whole file and give it its name; a wrong one is dropped."""
    digest = hashlib.sha256()
    part.touch(exist_ok=True)
    with part.open("r+b") as file:
        while block := file.read(READ):
            digest.update(block)
        os.fsync(file.fileno())
    if digest.digest() != sha256:
        part.unlink()
        raise ArtifactDigest(
            f"the bytes have the digest {digest.hexdigest()}, {sha256.hex()} was announced",
            found=digest.hexdigest(),
        )
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
