"""The sink of dynamic VHDs ("Virtual Hard Disk Image Format Specification" 1.0).

The file is: footer copy (0), dynamic header (512), BAT (1536), blocks, footer. Each block's data begin at a multiple of
4 KiB, as XenServer's do: the bitmap before them ends there, and a gap of 3.5 KiB is left. So a page of the disk is a
page of the file.
"""

from array import array
from collections.abc import Iterable, Sequence

from imaging.convert.options import Options
from imaging.convert.places import Places
from imaging.formats.vhd.layout import (
    ABSENT,
    DYNAMIC_HEADER_SIZE,
    FOOTER_SIZE,
    UNIX_TIME_OF_EPOCH,
    build_dynamic_footer,
    build_dynamic_header,
)
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE, KiB, MiB, round_up
from imaging.words import pack_words

BLOCK_SIZE = 2 * MiB
_PAGE = 4 * KiB
_TABLE_OFFSET = FOOTER_SIZE + DYNAMIC_HEADER_SIZE
_BITMAP = b"\xff" * (BLOCK_SIZE // SECTOR_SIZE // 8)
"""All sectors are here: what readers that look at it have to see."""
_STEP = BLOCK_SIZE + _PAGE


class DynamicVhdSink:
    """A dynamic VHD of exactly `size` bytes, a multiple of 512; a block of zeros is not in the file.

    Memory: see `Places`, and 4 bytes a block at the end.
    """

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        self._footer = build_dynamic_footer(
            size,
            unique_id=options.unique_id.bytes,
            timestamp=options.timestamp - UNIX_TIME_OF_EPOCH,
        )
        self._file = file
        self._blocks = -(-size // BLOCK_SIZE)
        table_end = _TABLE_OFFSET + round_up(4 * self._blocks, SECTOR_SIZE)
        self._first = round_up(table_end + len(_BITMAP), _PAGE)
        self._places = Places()

    def restore(self, offset: int, placed: Iterable[int]) -> None:  # noqa: ARG002  (the places say it)
        """See `ResumableSink`."""
        self._places.restore(placed, limit=self._blocks)
        self._file.truncate(self._first - len(_BITMAP) + self._places.count * _STEP)
        self._file.write(0, bytes(FOOTER_SIZE))  # that of a run that ended while it finished

    def placed(self) -> Sequence[int]:
        """See `ResumableSink`."""
        return self._places.fresh()

    def write(self, offset: int, data: memoryview) -> None:
        """See `RandomSink`."""
        block, inside = divmod(offset, BLOCK_SIZE)
        place, is_new = self._places.find(block)
        start = self._first + place * _STEP
        if is_new:
            self._file.write(start - len(_BITMAP), _BITMAP)
        self._file.write(start + inside, data)

    def finish(self) -> None:
        """Write the BAT behind data that are durable, and the footers last: until then it is no VHD."""
        self._file.flush()
        self._file.write(_TABLE_OFFSET, self._table())
        self._file.flush()
        header = build_dynamic_header(
            table_offset=_TABLE_OFFSET, max_entries=self._blocks, block_size=BLOCK_SIZE
        )
        self._file.write(FOOTER_SIZE, header)
        self._file.write(self._first + self._places.count * _STEP, self._footer)
        self._file.write(0, self._footer)
        self._file.flush()

    def _table(self) -> bytes:
        table = array("I", [ABSENT]) * (round_up(4 * self._blocks, SECTOR_SIZE) // 4)
        for first, page in self._places.pages():
            for block, place in enumerate(page, first):
                if place:
                    start = self._first + (place - 1) * _STEP
                    table[block] = (start - len(_BITMAP)) // SECTOR_SIZE
        return pack_words(table, "big")
