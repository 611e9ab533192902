"""Read a compressed (streamOptimized) VMDK extent at any place; its tables were checked before.

"Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents". Neighbouring grains are read together: a piece
of 512 KiB costs one read of the file if its grains lie in order, as writers leave them.
"""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imaging.device import BlockDevice
from imaging.errors import BlockOverlap, Truncated
from imaging.extent import Extent, Kind
from imaging.formats.base import BaseImage, ImageInfo
from imaging.formats.vmdk.grain import GrainDecoder
from imaging.formats.vmdk.layout import MARKER_SIZE, parse_marker
from imaging.formats.vmdk.tables import GrainTables
from imaging.units import SECTOR_SIZE, MiB

if TYPE_CHECKING:
    from array import array

_MAX_READ = 2 * MiB
"""Compressed bytes that are read at once; one grain may have more."""
_KEPT_BYTES = 1 * MiB
"""Grains of which a reader took only a part; it comes back for the rest."""


class StreamExtent(BaseImage):
    """The extent as a disk of its own.

    Memory: a buffer of at most `_MAX_READ` (or one grain) a thread, and `_KEPT_BYTES` of grains (or two).
    """

    def __init__(
        self, file: BlockDevice, info: ImageInfo, tables: GrainTables, *, data_end: int
    ) -> None:
        """Take what `open_sparse` has checked; no grain goes on behind file offset `data_end`."""
        super().__init__(file, info)
        self._tables = tables
        self._data_end = data_end
        self._grain_size = info.block_size
        self._decoder = GrainDecoder(info.virtual_size, info.block_size)
        self._buffers = threading.local()
        self._kept = _KeptGrains(max(2, _KEPT_BYTES // info.block_size))

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        size, done = self._grain_size, 0
        while done < len(buffer):
            grain, inside = divmod(offset + done, size)
            limit = -(-(inside + len(buffer) - done) // size)
            run = self._tables.alike(grain, limit)
            part = buffer[done : done + min(run.count * size - inside, len(buffer) - done)]
            if run.kind is Kind.DATA:
                self._read_grains(grain, run.count, inside, part)
            else:
                part[:] = bytes(len(part))
            done += len(part)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        size = self._grain_size
        grain, last = offset // size, (offset + length - 1) // size
        while grain <= last:
            run = self._tables.alike(grain, last + 1 - grain)
            yield Extent(grain * size, run.count * size, run.kind)
            grain += run.count

    def _read_grains(self, first: int, count: int, inside: int, target: memoryview) -> None:
        """Fill `target` with the grains from `first` on, without the first `inside` bytes."""
        # One entry more: where the next grain begins, the last one ends.
        entries = self._tables.entries(first, count + 1)
        index = 0
        while index < count:
            kept = self._kept.get(first + index)
            if kept is not None:
                self._put(kept, first + index, index * self._grain_size - inside, target)
                index += 1
                continue
            group, length = self._group(entries, index, count)
            offset = entries[index] * SECTOR_SIZE
            read = self._read_file(offset, length)
            for number in range(index, index + group):
                at = entries[number] * SECTOR_SIZE - offset
                is_last = number + 1 == index + group
                room = length if is_last else entries[number + 1] * SECTOR_SIZE - offset
                content = self._inflate(first + number, offset, read[at:room], at, is_last=is_last)
                self._put(content, first + number, number * self._grain_size - inside, target)
            index += group

    def _group(self, entries: "array[int]", index: int, count: int) -> tuple[int, int]:
        """Return how many grains from `index` on to read at once, and the bytes from the first to the end."""
        start, sector, end = entries[index], entries[index], index + 1
        limit = self._decoder.max_length // SECTOR_SIZE
        while end < count and 0 < entries[end] - sector <= limit:
            if (entries[end] - start) * SECTOR_SIZE >= _MAX_READ:
                break
            sector = entries[end]
            end += 1
        follower = entries[end] - sector if end < len(entries) else 0
        # Nobody says how long the last one is: no longer than stored, for all but odd writers.
        guess = follower if 0 < follower <= limit else self._grain_size // SECTOR_SIZE + 1
        last = min((sector + guess) * SECTOR_SIZE, self._data_end)
        return end - index, last - start * SECTOR_SIZE

    def _inflate(
        self, grain: int, offset: int, data: memoryview, at: int, *, is_last: bool
    ) -> bytes | bytearray:
        """Inflate the grain whose marker is the first of `data`, which were read at `offset` + `at`."""
        file_offset = offset + at
        length = self._decoder.length(parse_marker(data), grain, file_offset)
        if length > len(data):
            if not is_last:
                raise BlockOverlap(
                    f"grain {grain} at file offset {file_offset} has {length} bytes, but the next one"
                    f" begins {len(data)} bytes behind it",
                    block=grain,
                    offset=file_offset,
                )
            if file_offset + length > self._data_end:
                raise Truncated(
                    f"grain {grain} ends at file offset {file_offset + length}, but the grains end at"
                    f" {self._data_end}",
                    block=grain,
                    offset=file_offset,
                )
            data = memoryview(bytearray(length))
            self._file.read_into(file_offset, data)
        return self._decoder.inflate(data[MARKER_SIZE:length], grain, file_offset)

    def _put(
        self, content: bytes | bytearray, grain: int, position: int, target: memoryview
    ) -> None:
        """Copy what `target` wants of a grain that begins at `position` of it; keep one that it cuts."""
        if position >= 0 and position + len(content) <= len(target):
            target[position : position + len(content)] = content
            return
        begin, stop = max(0, -position), min(len(content), len(target) - position)
        target[position + begin : position + stop] = content[begin:stop]
        self._kept.put(grain, content)

    def _read_file(self, offset: int, length: int) -> memoryview:
        """Read into this thread's buffer; what it held before is gone."""
        buffer: bytearray | None = getattr(self._buffers, "buffer", None)
        if buffer is None or len(buffer) < length:
            buffer = self._buffers.buffer = bytearray(length)
        view = memoryview(buffer)[:length]
        self._file.read_into(offset, view)
        return view


class _KeptGrains:
    """The last few grains that were inflated for a part of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._grains: dict[int, bytes | bytearray] = {}
        self._lock = threading.Lock()

    def get(self, grain: int) -> bytes | bytearray | None:
        """Return a grain, or None; the bytes are shared and must not be changed."""
        return self._grains.get(grain)

    def put(self, grain: int, content: bytes | bytearray) -> None:
        """Keep a grain; the one that came first goes."""
        with self._lock:
            if grain not in self._grains and len(self._grains) >= self._limit:
                del self._grains[next(iter(self._grains))]
            self._grains[grain] = content
