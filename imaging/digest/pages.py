"""The pages of a digest: 64 KiB of block digests for each GiB of disk, in memory or, beyond a bound, in a file.

Pages of zeros share one. Of the others, those that are finished leave memory once `IN_MEMORY` of them are there. The
file has no name: a killed process leaves nothing behind.
"""

import os
import tempfile
import threading
from pathlib import Path
from typing import IO

from imaging.errors import DeviceIOError

DIGEST_SIZE = 32
PAGE_BLOCKS = 2048
"""Blocks of a page: 1 GiB of disk."""
IN_MEMORY = 256
"""Pages that stay in memory, 66 KiB each."""


class _Page:
    """Digests of up to 2048 neighbouring blocks and which of them are set."""

    __slots__ = ("digests", "is_set")

    def __init__(self) -> None:
        self.digests = bytearray(PAGE_BLOCKS * DIGEST_SIZE)
        self.is_set = bytearray(PAGE_BLOCKS)

    def store(self, index: int, digests: bytes) -> None:
        count = len(digests) // DIGEST_SIZE
        self.digests[index * DIGEST_SIZE : (index + count) * DIGEST_SIZE] = digests
        self.is_set[index : index + count] = b"\1" * count


_IN_FILE = _Page()
"""Stands for every page that is in the file."""
_IN_FILE.is_set[:] = b"\1" * PAGE_BLOCKS
_NOTHING = _Page()
"""Stands for every page of which no block is set."""


class Pages:
    """All pages of one disk; any thread may call. Memory: `IN_MEMORY` and the unfinished pages, whatever the size."""

    def __init__(self, blocks: int, zero_digest: bytes, folder: Path | None) -> None:
        """Hold `blocks` digests; without a `folder`, all of them in memory."""
        self._blocks = blocks
        self._zeros = _Page()
        self._zeros.store(0, zero_digest * PAGE_BLOCKS)
        self._pages = [_NOTHING] * -(-blocks // PAGE_BLOCKS)
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._resident = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pages)

    def length(self, number: int) -> int:
        """Return how many blocks a page has."""
        return min(PAGE_BLOCKS, self._blocks - number * PAGE_BLOCKS)

    def is_zero(self, number: int) -> bool:
        """Tell whether a page was set to zeros at once."""
        return self._pages[number] is self._zeros

    def find(self, number: int, *, is_set: bool, start: int, stop: int) -> int:
        """Return the first block in [start, stop) of a page that is set, or not set; -1 if there is none."""
        return self._pages[number].is_set.find(int(is_set), start, stop)

    def store(self, number: int, index: int, digests: bytes) -> None:
        """Set neighbouring blocks of a page.

        Raises:
            DeviceIOError: The file cannot take what has to leave memory.
        """
        with self._lock:
            page = self._own(number)
            page.store(index, digests)
            if self._folder is not None and self._resident > IN_MEMORY:
                self._put_out(number, page, self._folder)

    def store_zeros(self, number: int) -> None:
        """Set a whole page to zeros."""
        with self._lock:
            if self._is_own(self._pages[number]):
                self._resident -= 1
            self._pages[number] = self._zeros

    def read(self, number: int, index: int, count: int) -> bytes:
        """Return digests of neighbouring blocks of a page; what is not set reads as zero bytes.

        Raises:
            DeviceIOError: The file cannot be read.
        """
        page = self._pages[number]  # put out meanwhile, it still holds the same
        if page is _IN_FILE:
            return self._read_file(number * PAGE_BLOCKS + index, count)
        return bytes(page.digests[index * DIGEST_SIZE : (index + count) * DIGEST_SIZE])

    def close(self) -> None:
        """Let go of the file; what was in it cannot be read any more."""
        if self._file is not None:
            self._file.close()

    def _is_own(self, page: _Page) -> bool:
        return page is not _NOTHING and page is not _IN_FILE and page is not self._zeros

    def _own(self, number: int) -> _Page:
        page = self._pages[number]
        if not self._is_own(page):
            fresh = _Page()
            fresh.is_set[:] = page.is_set
            kept = self.read(number, 0, self.length(number))
            fresh.digests[: len(kept)] = kept
            self._pages[number] = page = fresh
            self._resident += 1
        return page

    def _put_out(self, number: int, page: _Page, folder: Path) -> None:
        length = self.length(number)
        if page.is_set.find(0, 0, length) >= 0:
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives as long as this
            data = memoryview(page.digests)[: length * DIGEST_SIZE]
            at = number * PAGE_BLOCKS * DIGEST_SIZE
            while data:
                done = os.pwrite(self._file.fileno(), data, at)
                data, at = data[done:], at + done
        except OSError as err:
            raise _failed(folder, err) from err
        self._pages[number] = _IN_FILE
        self._resident -= 1

    def _read_file(self, block: int, count: int) -> bytes:
        if self._file is None or self._folder is None:
            raise AssertionError("a page is in the file, so there is one")
        try:
            found = os.pread(self._file.fileno(), count * DIGEST_SIZE, block * DIGEST_SIZE)
        except OSError as err:
            raise _failed(self._folder, err) from err
        if len(found) != count * DIGEST_SIZE:
            raise _failed(self._folder, OSError(0, "its file was cut"))
        return found


def _failed(folder: Path, err: OSError) -> DeviceIOError:
    message = f"digests that exceed the memory cannot be kept in {folder}: {err.strerror}"
    return DeviceIOError(message, path=str(folder), errno=err.errno)
