"""Write a VHD in place: fixed, dynamic and differencing; a sound image at every moment.

There is no log. Changes are made in an order in which each step leaves the disk as it was, or with the change:

1. New blocks need room where the footer lies. The file is made longer, a footer is written at its new end and made
   durable, before anything is written where the old one lies. A footer that a power loss tears leaves the copy at
   the start; data of a guest, which could look like a footer, never end the file. Some room is made ahead, so that
   this is seldom; closing gives it back.
2. Data and, of new blocks, the bitmap: nothing names them yet. A new bitmap lies over the old footer.
3. At `flush`: data are durable, then BAT entries and bits are written and made durable. Each stands for itself and none
   crosses a sector, so it does not matter which of them arrive.

The bitmap of a dynamic disk means nothing to us, but other readers look at it: written sectors are marked.
"""

from imaging.device import ResizableDevice, read_bytes
from imaging.errors import DiskTooLarge, InvalidImage, UnsupportedImage
from imaging.formats.base import WritableImage
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.blocks import BlockEditor
from imaging.formats.place import NOWHERE, Place
from imaging.formats.raw.device import WritableFlatImage
from imaging.formats.vhd.device import assemble, find_footer, load_dynamic, open_vhd
from imaging.formats.vhd.layout import ABSENT, FOOTER_SIZE, DiskType, Footer
from imaging.overlay import OverlayDevice
from imaging.units import SECTOR_SIZE, KiB, round_up

_AHEAD = 16
"""Blocks that room is made for at once: 32 MiB of holes, given back when the image is closed."""
_PAGE = 4 * KiB
_MANY = 1024
"""Changes of metadata that are kept in memory before they are made durable."""


def edit_vhd(file: ResizableDevice, place: Place = NOWHERE) -> WritableImage:
    """Check all metadata and open the disk inside `file` to be written.

    Raises:
        InvalidImage: As `open_vhd`, or the footer at the end is damaged: it would be moved.
        UnsupportedImage: A suspended machine owns the disk.
        ImagingError: What is wrong with its parent.
    """
    footer, data_end, warnings = find_footer(file)
    if footer.saved_state:
        raise UnsupportedImage(
            "a suspended virtual machine owns this disk and remembers its content: resume it and shut it down",
            offset=data_end,
        )
    if warnings:
        raise InvalidImage(
            f"{warnings[0]}: a damaged VHD is not written, repair it first", offset=data_end
        )
    if footer.disk_type is DiskType.FIXED:
        return WritableFlatImage(file, open_vhd(file, place).info)
    return VhdEditor(file, footer, data_end, place)


class VhdEditor(BlockEditor):
    """A dynamic or differencing VHD that is written in place, by one thread."""

    def __init__(self, file: ResizableDevice, footer: Footer, data_end: int, place: Place) -> None:
        """Check all metadata, and change nothing yet."""
        self._changes = OverlayDevice(file)
        self._footer = read_bytes(file, data_end, file.size - data_end).ljust(FOOTER_SIZE, b"\0")
        loaded = load_dynamic(file, footer, data_end)
        bitmaps = SectorBitmaps(self._changes, size=loaded.table.bitmap_size, msb_first=True)
        image = assemble(loaded, file, bitmaps, (), place)
        super().__init__(file, image, bitmaps, block_size=loaded.header.block_size)
        self._table = loaded.table
        self._table_offset = loaded.header.table_offset
        self._has_parent = footer.disk_type is DiskType.DIFFERENCING
        self._end = data_end
        """Where the next block may lie; the footer, if no room was made ahead."""
        self._room = data_end
        """Where the footer lies."""
        self._pending = 0
        self._flushed = True

    def close(self) -> None:
        """Give back the room that was made ahead, and refuse every further call. Nothing else is flushed."""
        try:
            if not self._closed and not self._failed and self._end < self._room:
                self._target.write(self._end, self._footer)
                self._target.flush()
                self._target.truncate(self._end + FOOTER_SIZE)
                self._room = self._end
        finally:
            super().close()

    def _begin(self) -> None:
        self._flushed = False

    def _flush(self) -> None:
        if self._flushed:
            return
        self._target.flush()
        changes = [(offset, content) for offset, _, content in self._changes.changes()]
        for offset, content in changes:
            if content is not None:
                self._target.write(offset, content)
        if changes:
            self._target.flush()
        self._changes.clear()
        self._pending = 0
        self._flushed = True

    def _commit_if_many(self) -> None:
        if self._pending >= _MANY:
            self._make_durable()
            self._flushed = False

    def _write_block(self, block: int, inside: int, data: memoryview) -> None:
        if self._has_parent:
            self._write_mixed(block, inside, data)
            return
        self._target.write(self._place_mixed(block) + inside, data)
        self._mark(block, inside, len(data))

    def _zero_block(self, block: int, inside: int, length: int) -> None:
        if self._has_parent:
            self._zero_mixed(block, inside, length)
        elif self._table.entry(block) is not None:
            self._target.zero(self._place_mixed(block) + inside, length)

    def _mark(self, block: int, inside: int, length: int) -> None:
        """Mark the sectors of a dynamic disk that were written, where they are not."""
        begin, end = self._sectors_round(inside, length)
        bitmap, _ = self._bitmap_of(block)
        first, count = begin // SECTOR_SIZE, (end - begin) // SECTOR_SIZE
        if not all(is_set for is_set, _ in self._bitmaps.runs(bitmap, first, count)):
            self._own(block, begin, end)

    def _own(self, block: int, begin: int, end: int) -> None:
        super()._own(block, begin, end)
        self._pending += 1

    def _bitmap_of(self, block: int) -> tuple[int, int]:
        bitmap = self._table.entry(block)
        assert bitmap is not None
        return bitmap, 0

    def _place_mixed(self, block: int) -> int:
        bitmap = self._table.entry(block)
        if bitmap is None:
            bitmap = self._allocate()
            fill = b"\0" if self._has_parent else b"\xff"
            self._target.write(bitmap, fill * self._table.bitmap_size)
            entry = self._table.set_entry(block, bitmap)
            self._changes.follow()
            self._changes.write(self._table_offset + block * len(entry), entry)
            self._pending += 1
        return bitmap + self._table.bitmap_size

    def _allocate(self) -> int:
        """Return where the bitmap of a new block goes: its data begin at a multiple of 4 KiB."""
        start, end = self._place_behind(self._end)
        if start // SECTOR_SIZE >= ABSENT:
            raise DiskTooLarge(
                f"the VHD is full: its BAT names no block at file offset {start}", offset=start
            )
        if end > self._room:
            self._make_room(end)
        self._end = end
        return start

    def _place_behind(self, offset: int) -> tuple[int, int]:
        """Return where the next block begins and ends if nothing lies behind `offset`."""
        size = self._table.bitmap_size
        start = round_up(offset + size, _PAGE) - size
        return start, start + size + self._block_size

    def _make_room(self, end: int) -> None:
        """Move the footer behind `end` and the blocks to come, right where one ends.

        There it will lie under the bitmap of the next block, or before it: it is left there, and must not show in data.
        """
        room = end
        for _ in range(_AHEAD - 1):
            _, room = self._place_behind(room)
        self._target.truncate(room + FOOTER_SIZE)
        self._target.write(room, self._footer)
        self._target.flush()
        self._room = room
