"""Sparse files that survive kill -9: the bytes of simulated blobs and disks, and which ranges of them were written.

Each object is two files: `<id>.data` (sparse, read and written in place) and `<id>.pages` (append-only record of
writes and clears). A write is recorded after its bytes are in the file, so a killed simulator comes back with every
write that it acknowledged. It does not survive a power cut: nothing is synced.
"""

import ctypes
import ctypes.util
import os
import struct
from pathlib import Path

from appliance.sim.pages import PageMap

RECORD = struct.Struct("<BQQ")
"""kind, offset, length: one line of the `.pages` file."""

_WRITE, _CLEAR, _COUNT = 1, 2, 3

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, linux/falloc.h."""

MOST_CHUNKS = 1024
"""IOV_MAX of Linux; a body that came over a slow link has more chunks."""

_ZEROS = bytes(1 << 20)


class PageFile:
    """One sparse object. All calls are short and blocking; the page cache takes the bytes."""

    def __init__(self, directory: Path, name: str, size: int, *, create: bool) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        self._data_path = directory / f"{name}.data"
        self._pages_path = directory / f"{name}.pages"
        self.pages = PageMap()
        self.writes = 0
        self.size = size
        self.closed = False
        self._data = os.open(self._data_path, flags, 0o600)
        os.ftruncate(self._data, size)
        if not create:
            self._replay()
        self._journal = os.open(self._pages_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _replay(self) -> None:
        """Read the record of writes back and replace it by a short one; a torn last line is dropped."""
        raw = self._pages_path.read_bytes() if self._pages_path.exists() else b""
        whole = len(raw) - len(raw) % RECORD.size
        for kind, offset, length in RECORD.iter_unpack(raw[:whole]):
            if kind == _COUNT:
                self.writes = offset
                continue
            self.writes += 1
            (self.pages.add if kind == _WRITE else self.pages.remove)(offset, length)
        count = RECORD.pack(_COUNT, self.writes, 0)
        kept = [RECORD.pack(_WRITE, *found) for found in self.pages.within(0, self.size)]
        fresh = self._pages_path.with_suffix(".new")
        fresh.write_bytes(b"".join(kept) + count)
        fresh.replace(self._pages_path)

    def write(self, offset: int, chunks: list[bytes]) -> None:
        """Store the joined chunks at `offset` and record the range."""
        length = sum(map(len, chunks))
        if len(chunks) > MOST_CHUNKS:
            chunks = [b"".join(chunks)]
        written = os.pwritev(self._data, chunks, offset)
        if written != length:
            raise OSError(f"{self._data_path}: wrote {written} of {length} bytes at {offset}")
        self.mark(offset, length)

    def mark(self, offset: int, length: int) -> None:
        """Record a range as written without touching the bytes."""
        self.pages.add(offset, length)
        self._record(_WRITE, offset, length)

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros again and forget that it was written."""
        punch_hole(self._data, offset, length)
        self.pages.remove(offset, length)
        self._record(_CLEAR, offset, length)

    def _record(self, kind: int, offset: int, length: int) -> None:
        self.writes += 1
        os.write(self._journal, RECORD.pack(kind, offset, length))

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; never written ranges read as zeros."""
        found = os.pread(self._data, length, offset)
        if len(found) != length:
            raise OSError(f"{self._data_path}: read {len(found)} of {length} bytes at {offset}")
        return found

    def flip(self, offset: int, mask: int = 0x01) -> None:
        """Damage one stored byte, unseen by the record of writes."""
        os.pwrite(self._data, bytes([self.read(offset, 1)[0] ^ mask]), offset)

    def resize(self, size: int) -> None:
        """Cut or lengthen the object."""
        if size < self.size:
            self.clear(size, self.size - size)
        os.ftruncate(self._data, size)
        self.size = size

    def close(self) -> None:
        """Close both files; they stay. Late readers and writers must look at `closed` first."""
        if not self.closed:
            self.closed = True
            os.close(self._data)
            os.close(self._journal)

    def delete(self) -> None:
        """Close both files and remove them."""
        self.close()
        self._data_path.unlink(missing_ok=True)
        self._pages_path.unlink(missing_ok=True)


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Give the blocks of a range back to the file system, by writing zeros where it cannot."""
    if length == 0 or _fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, offset, length) == 0:
        return
    end = offset + length
    while offset < end:
        step = min(len(_ZEROS), end - offset)
        os.pwrite(descriptor, _ZEROS[:step], offset)
        offset += step


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> int:
    libc = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6", use_errno=True)
    call = libc.fallocate64
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return int(call(descriptor, mode, offset, length))
