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

from imaging.device import ResizableDevice, read_bytes
from imaging.errors import InvalidImage
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.blocks import BlockEditor
from imaging.formats.place import NOWHERE, Place
from imaging.formats.vhdx.device import assemble, load_vhdx, open_vhdx, require_signature
from imaging.formats.vhdx.entries import (
    BITMAP_SIZE,
    FULLY_PRESENT,
    NOT_PRESENT,
    PARTIALLY_PRESENT,
    ZERO,
    place_of,
    state_of,
)
from imaging.formats.vhdx.headers import Headers, read_header
from imaging.formats.vhdx.layout import NO_GUID, REGION_TABLE_OFFSETS, Header
from imaging.formats.vhdx.log import replay_log
from imaging.formats.vhdx.log_write import PAGE, LogWriter
from imaging.overlay import OverlayDevice
from imaging.units import MiB, round_up


def edit_vhdx(file: ResizableDevice, place: Place = NOWHERE) -> "VhdxEditor":
    """Check all metadata and open the disk inside `file` to be written; a log that is there is applied to the file.

    Raises:
        ImagingError: As `open_vhdx`; a log is applied only to an image that is sound with it.
    """
    require_signature(file)
    if read_header(file)[0].log_guid != NO_GUID:
        open_vhdx(file, place).close()
        apply_log(file)
    return VhdxEditor(file, place)


def apply_log(file: ResizableDevice) -> None:
    """Apply the log to the file itself, durably; killed anywhere, it can be done again.

    Raises:
        ImagingError: As `replay_log`; the file is not changed then.
        InvalidImage: The log changes itself or the headers: the second try would not be the first one.
    """
    header = read_header(file)[0]
    replayed = replay_log(file, header)
    for offset, length, _ in replayed.changes():
        _require_repeatable(offset, length, header)
    if replayed.size > file.size:
        file.truncate(replayed.size)
    for offset, length, content in replayed.changes():
        if content is None:
            file.zero(offset, length)
        else:
            file.write(offset, content)
    file.flush()
    Headers(file).put(log_guid=NO_GUID)


def _require_repeatable(offset: int, length: int, header: Header) -> None:
    kept = ((0, REGION_TABLE_OFFSETS[0]), (header.log_offset, header.log_length))
    for start, size in kept:
        if offset < start + size and start < offset + length:
            raise InvalidImage(
                f"the VHDX log changes {length} bytes at file offset {offset}, where headers or the log itself lie",
                offset=header.log_offset,
            )


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


class VhdxEditor(BlockEditor):
    """A VHDX that is written in place, by one thread. Closing it leaves the log with nothing to replay."""

    def __init__(self, file: ResizableDevice, place: Place) -> None:
        """Check all metadata of a file without a log to apply, and change nothing yet."""
        self._pages = MetadataPages(file)
        loaded = load_vhdx(self._pages)
        # Whatever may be refused comes before the parent is opened.
        self._headers = Headers(file)
        self._log = LogWriter(file, self._headers)
        bitmaps = SectorBitmaps(self._pages, size=BITMAP_SIZE, msb_first=False)
        image = assemble(loaded, file, bitmaps, place)
        super().__init__(file, image, bitmaps, block_size=loaded.disk.block_size)
        self._disk = loaded.disk
        self._table = loaded.table
        self._begun = False
        self._flushed = True

    def close(self) -> None:
        """Empty the log, and refuse every further call. What was not flushed is forgotten, or there."""
        try:
            if not self._closed and not self._failed:
                self._log.close()
        finally:
            super().close()

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

    def _write_block(self, block: int, inside: int, data: memoryview) -> None:
        entry = self._table.entry(block)
        state, is_whole = state_of(entry), len(data) == self._length(block)
        if state == FULLY_PRESENT:
            self._target.write(place_of(entry) + inside, data)
        elif state == PARTIALLY_PRESENT or (self._shows_parent(state) and not is_whole):
            self._write_mixed(block, inside, data)
        else:
            place = self._allocate(self._block_size)
            self._target.write(place + inside, data)
            self._table.set_entry(block, place | FULLY_PRESENT)

    def _zero_block(self, block: int, inside: int, length: int) -> None:
        entry = self._table.entry(block)
        state = state_of(entry)
        if state == FULLY_PRESENT:
            self._target.zero(place_of(entry) + inside, length)
        elif state == PARTIALLY_PRESENT:
            self._zero_mixed(block, inside, length)
        elif self._shows_parent(state) and length == self._length(block):
            self._table.set_entry(block, ZERO)
        elif self._shows_parent(state):
            self._zero_mixed(block, inside, length)

    def _shows_parent(self, state: int) -> bool:
        """Tell whether all sectors of a block are the parent's."""
        return state == NOT_PRESENT and self._disk.has_parent

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
        place = self._allocate(self._block_size)
        self._table.set_entry(block, place | PARTIALLY_PRESENT)
        return place

    def _clear_bitmap(self, block: int) -> None:
        """Give a block a bitmap without a bit, durably: the state that asks the bitmap must not come before it."""
        chunk = block // self._disk.chunk_ratio
        if state_of(self._table.bitmap_entry(chunk)) != FULLY_PRESENT:
            place = self._allocate(BITMAP_SIZE)
            self._pages.follow()
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
        self._make_durable()
        self._flushed = False
