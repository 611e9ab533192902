"""Write a VHDX in place ([MS-VHDX]): fixed, dynamic and differencing; a sound image at every moment.

Data go to their blocks at once. What says where blocks are, and which sectors of a differencing disk are in it, is
metadata: it changes in pages in memory, and at `flush` through the log (`log_write`), once the data are durable. So
after a power loss each sector holds what was flushed or something newer, and nothing that nobody wrote: a new block
lies behind the file's end, where zeros are.

| block (2.5.1.1) | a write | zeros |
|---|---|---|
| FULLY_PRESENT | in place | in place, as a hole where the file can |
| NOT_PRESENT, UNMAPPED, UNDEFINED, ZERO without a parent's sectors to keep | new block, FULLY_PRESENT | nothing |
| NOT_PRESENT of a differencing disk | new block, PARTIALLY_PRESENT and its bits; whole: FULLY_PRESENT | whole: ZERO |
| PARTIALLY_PRESENT | in place, then its bits | in place, then its bits |
"""

import uuid
from collections.abc import Iterator

from imaging.device import ResizableDevice, read_bytes
from imaging.extent import Extent
from imaging.formats.base import WritableImage
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.place import NOWHERE, Place
from imaging.formats.vhdx.bat import (
    BITMAP_SIZE,
    FULLY_PRESENT,
    NOT_PRESENT,
    PARTIALLY_PRESENT,
    ZERO,
    place_of,
    state_of,
)
from imaging.formats.vhdx.device import assemble, load_vhdx, open_vhdx
from imaging.formats.vhdx.headers import Headers, read_header
from imaging.formats.vhdx.layout import NO_GUID
from imaging.formats.vhdx.log import replay_log
from imaging.formats.vhdx.log_write import PAGE, LogWriter
from imaging.overlay import OverlayDevice
from imaging.units import MiB, round_up


def edit_vhdx(file: ResizableDevice, place: Place = NOWHERE) -> "VhdxEditor":
    """Check all metadata and open the disk inside `file` to be written; a log that is there is applied to the file.

    Raises:
        ImagingError: As `open_vhdx`; a log is applied only to an image that is sound with it.
    """
    if read_header(file)[0].log_guid != NO_GUID:
        open_vhdx(file, place).close()
        apply_log(file)
    return VhdxEditor(file, place)


def apply_log(file: ResizableDevice) -> None:
    """Apply the log to the file itself, durably; killed anywhere, it can be done again.

    Raises:
        ImagingError: As `replay_log`; the file is not changed then.
    """
    replayed = replay_log(file, read_header(file)[0])
    if replayed.size > file.size:
        file.truncate(replayed.size)
    for offset, length, content in replayed.changes():
        if content is None:
            file.zero(offset, length)
        else:
            file.write(offset, content)
    file.flush()
    Headers(file).put(log_guid=NO_GUID)


class MetadataPages(OverlayDevice):
    """Metadata as they will be: read from here, written to here, and put into the file through the log."""

    def __init__(self, file: ResizableDevice) -> None:
        super().__init__(file)
        self.changed: set[int] = set()

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Keep the bytes, and remember their pages."""
        super().write(offset, data)
        first, last = offset // PAGE, (offset + len(data) - 1) // PAGE
        self.changed.update(range(first, last + 1))

    def take(self) -> dict[int, bytes]:
        """Return the changed pages by file offset and forget that they are changed, not their content."""
        taken = {page * PAGE: read_bytes(self, page * PAGE, PAGE) for page in sorted(self.changed)}
        self.changed.clear()
        return taken


class VhdxEditor(WritableImage):
    """A VHDX that is written in place, by one thread. Closing it leaves the log with nothing to replay."""

    def __init__(self, file: ResizableDevice, place: Place) -> None:
        """Check all metadata of a file without a log to apply, and change nothing yet."""
        self._pages = MetadataPages(file)
        loaded = load_vhdx(self._pages)
        self._bitmaps = SectorBitmaps(self._pages, size=BITMAP_SIZE, msb_first=False)
        self._image = assemble(loaded, file, self._bitmaps, place)
        super().__init__(file, self._image.info, owned=(self._image,))
        self._disk = loaded.disk
        self._table = loaded.table
        self._target = file
        self._headers = Headers(file)
        self._log = LogWriter(file, self._headers)
        self._begun = False
        self._flushed = True

    def close(self) -> None:
        """Empty the log, and refuse every further call. What was not flushed is forgotten, or there."""
        try:
            if not self._closed:
                self._log.close()
        finally:
            super().close()

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        self._image.read_into(offset, buffer)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._image.extents(offset, length)

    def _write(self, offset: int, data: memoryview) -> None:
        self._begin()
        for block, inside, start, stop in self._cut(offset, len(data)):
            self._write_block(block, inside, data[start:stop])
            self._commit_if_many()

    def _zero(self, offset: int, length: int) -> None:
        self._begin()
        for block, inside, start, stop in self._cut(offset, length):
            self._zero_block(block, inside, stop - start)
            self._commit_if_many()

    def _flush(self) -> None:
        if self._flushed:
            return
        pages = self._pages.take()
        if pages:
            self._log.commit(pages)
            self._pages.clear()
        else:
            self._target.flush()
        self._flushed = True

    def _begin(self) -> None:
        """Before the first change: new GUIDs tell whoever knew the file that it is another one (2.2.2)."""
        self._flushed = False
        if self._begun:
            return
        if self._target.size % MiB:
            self._target.truncate(round_up(self._target.size, MiB))
        self._headers.put(data_write_guid=uuid.uuid4().bytes_le)
        self._begun = True

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut a range of the disk at the borders of blocks: (block, first byte in it, start and stop in the range)."""
        size, start = self._disk.block_size, 0
        while start < length:
            block, inside = divmod(offset + start, size)
            stop = min(start + size - inside, length)
            yield block, inside, start, stop
            start = stop

    def _write_block(self, block: int, inside: int, data: memoryview) -> None:
        entry = self._table.entry(block)
        if state_of(entry) == FULLY_PRESENT:
            self._target.write(place_of(entry) + inside, data)
        elif self._shows_parent(entry) and len(data) < self._length(block):
            self._write_mixed(block, inside, data)
        else:
            place = self._allocate(self._disk.block_size)
            self._target.write(place + inside, data)
            self._table.set_entry(block, place | FULLY_PRESENT)

    def _zero_block(self, block: int, inside: int, length: int) -> None:
        entry = self._table.entry(block)
        state = state_of(entry)
        if state == FULLY_PRESENT:
            self._target.zero(place_of(entry) + inside, length)
        elif state == NOT_PRESENT and self._disk.has_parent and length == self._length(block):
            self._table.set_entry(block, ZERO)
        elif self._shows_parent(entry):
            self._zero_mixed(block, inside, length)

    def _shows_parent(self, entry: int) -> bool:
        """Tell whether sectors of a block may be the parent's."""
        state = state_of(entry)
        return state == PARTIALLY_PRESENT or (state == NOT_PRESENT and self._disk.has_parent)

    def _length(self, block: int) -> int:
        """Return the bytes of the disk in a block: the last one may end with the disk."""
        return min(self._disk.block_size, self.size - block * self._disk.block_size)

    # --- blocks of which only some sectors are in this image ---------------------------------------

    def _write_mixed(self, block: int, inside: int, data: memoryview) -> None:
        """Write sectors; of those that are changed in part the rest is what the disk shows there now."""
        begin, end = self._sectors_round(inside, len(data))
        base = block * self._disk.block_size
        lead = read_bytes(self._image, base + begin, inside - begin)
        rest = inside + len(data)
        tail = read_bytes(self._image, base + rest, end - rest)
        place = self._place_mixed(block)
        self._target.write(place + begin, b"".join((lead, data, tail)) if lead or tail else data)
        self._own(block, begin, end)

    def _zero_mixed(self, block: int, inside: int, length: int) -> None:
        """Zero whole sectors, and write those that are zeroed in part."""
        sector, end = self._disk.sector_size, inside + length
        first, last = round_up(inside, sector), end // sector * sector
        if first >= last:
            self._write_mixed(block, inside, memoryview(bytes(length)))
            return
        place = self._place_mixed(block)
        self._target.zero(place + first, last - first)
        self._own(block, first, last)
        for start, stop in ((inside, first), (last, end)):
            if start < stop:
                self._write_mixed(block, start, memoryview(bytes(stop - start)))

    def _sectors_round(self, inside: int, length: int) -> tuple[int, int]:
        size = self._disk.sector_size
        return inside // size * size, round_up(inside + length, size)

    def _own(self, block: int, begin: int, end: int) -> None:
        """Mark sectors of a block as those of this image."""
        bitmap, first = self._bitmap_of(block)
        size = self._disk.sector_size
        self._bitmaps.assign(bitmap, first + begin // size, (end - begin) // size, to=True)

    def _bitmap_of(self, block: int) -> tuple[int, int]:
        """Return where the bitmap of a block's chunk lies, and which of its bits is the block's first sector."""
        chunk, index = divmod(block, self._disk.chunk_ratio)
        return place_of(self._table.bitmap_entry(chunk)), index * self._disk.block_sectors

    def _place_mixed(self, block: int) -> int:
        """Return where a block lies in the file, after a place was found for it of which no sector counts yet."""
        entry = self._table.entry(block)
        if state_of(entry) == PARTIALLY_PRESENT:
            return place_of(entry)
        self._clear_bitmap(block)
        place = self._allocate(self._disk.block_size)
        self._table.set_entry(block, place | PARTIALLY_PRESENT)
        return place

    def _clear_bitmap(self, block: int) -> None:
        """Give a block a bitmap without a bit, durably: the state that asks the bitmap must not come before it."""
        chunk = block // self._disk.chunk_ratio
        if state_of(self._table.bitmap_entry(chunk)) != FULLY_PRESENT:
            place = self._allocate(BITMAP_SIZE)
            self._pages.truncate(self._target.size)
            self._table.set_bitmap_entry(chunk, place | FULLY_PRESENT)
            self._commit()
        bitmap, first = self._bitmap_of(block)
        bits = self._bitmaps.runs(bitmap, first, self._disk.block_sectors)
        if any(is_set for is_set, _ in bits):  # of an earlier life of the block
            self._bitmaps.assign(bitmap, first, self._disk.block_sectors, to=False)
            self._commit()

    # --- space and metadata ------------------------------------------------------------------------

    def _allocate(self, length: int) -> int:
        """Return a new place behind the file's end, `length` bytes of zeros."""
        place = self._target.size
        self._target.truncate(place + length)
        return place

    def _commit_if_many(self) -> None:
        if len(self._pages.changed) >= self._log.capacity:
            self._commit()

    def _commit(self) -> None:
        self._flushed = False
        self._flush()
        self._flushed = False
