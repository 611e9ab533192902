"""BlockEditor: a disk of blocks written in place, some of whose sectors may be a parent's; knows no format's bytes."""

from abc import abstractmethod
from collections.abc import Iterator

from imaging.device import ResizableDevice, read_bytes
from imaging.extent import Extent
from imaging.formats.base import BaseImage, WritableImage
from imaging.formats.bitmaps import SectorBitmaps
from imaging.units import round_up


class BlockEditor(WritableImage):
    """What the formats of blocks share: cutting at their borders, and sectors that are changed in part.

    A format says where blocks are, finds places for new ones, and makes metadata durable after the data.
    """

    def __init__(
        self, file: ResizableDevice, image: BaseImage, bitmaps: SectorBitmaps, *, block_size: int
    ) -> None:
        """Write the disk that `image` reads.

        Args:
            file: Holds the blocks.
            image: Sees each change at once; it is closed with this.
            bitmaps: Which sectors are the image's own, in disks with a parent.
            block_size: Bytes of a block.
        """
        super().__init__(file, image.info, owned=(image,))
        self._image = image
        self._target = file
        self._bitmaps = bitmaps
        self._block_size = block_size
        self._sector_size = image.info.sector_size

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

    @abstractmethod
    def _begin(self) -> None:
        """Called before every change."""

    @abstractmethod
    def _write_block(self, block: int, inside: int, data: memoryview) -> None:
        """Write into one block, from the byte `inside` of it on."""

    @abstractmethod
    def _zero_block(self, block: int, inside: int, length: int) -> None:
        """Zero a part of one block."""

    @abstractmethod
    def _commit_if_many(self) -> None:
        """Make metadata durable, behind their data, when much of them has changed."""

    @abstractmethod
    def _place_mixed(self, block: int) -> int:
        """Return where a block of mixed sectors lies in the file; a new one has no sector of its own yet."""

    @abstractmethod
    def _bitmap_of(self, block: int) -> tuple[int, int]:
        """Return where a block's bitmap lies in the file, and which of its bits is the block's first sector."""

    def _length(self, block: int) -> int:
        """Return the bytes of the disk in a block: the last one may end with the disk."""
        return min(self._block_size, self.size - block * self._block_size)

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut a range of the disk at the borders of blocks: (block, first byte in it, start and stop in the range)."""
        size, start = self._block_size, 0
        while start < length:
            block, inside = divmod(offset + start, size)
            stop = min(start + size - inside, length)
            yield block, inside, start, stop
            start = stop

    def _write_mixed(self, block: int, inside: int, data: memoryview) -> None:
        """Write sectors; of those that are changed in part the rest is what the disk shows there now."""
        begin, end = self._sectors_round(inside, len(data))
        base = block * self._block_size
        lead = read_bytes(self._image, base + begin, inside - begin)
        rest = inside + len(data)
        tail = read_bytes(self._image, base + rest, end - rest)
        place = self._place_mixed(block)
        self._target.write(place + begin, b"".join((lead, data, tail)) if lead or tail else data)
        self._own(block, begin, end)

    def _zero_mixed(self, block: int, inside: int, length: int) -> None:
        """Zero whole sectors, and write those that are zeroed in part."""
        sector, end = self._sector_size, inside + length
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
        size = self._sector_size
        return inside // size * size, round_up(inside + length, size)

    def _own(self, block: int, begin: int, end: int) -> None:
        """Mark sectors of a block as those of this image."""
        bitmap, first = self._bitmap_of(block)
        size = self._sector_size
        self._bitmaps.assign(bitmap, first + begin // size, (end - begin) // size, to=True)
