"""Open VHD images, fixed, dynamic and differencing, for reading; writes none.

Implements "Virtual Hard Disk Image Format Specification" 1.0. The size is always Current Size, as
Hyper-V and Azure take it, never the CHS geometry.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage, ParentMismatch, Truncated
from imaging.extent import Kind
from imaging.formats.base import BaseImage, ImageInfo
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.layered import LayeredImage, LayerRun, Owner
from imaging.formats.mapped import BlockRun, MappedImage
from imaging.formats.parents import Parent, inherited, open_parent, require_sectors
from imaging.formats.place import NOWHERE, Place
from imaging.formats.raw.device import FlatImage
from imaging.formats.reference import Reference
from imaging.formats.signatures import VHD_COOKIE
from imaging.formats.spans import FileRange, SpanMap
from imaging.formats.vhd.layout import (
    ABSENT,
    CHS_CREATORS,
    DYNAMIC_HEADER_SIZE,
    FOOTER_SIZE,
    MAX_CHS_SECTORS,
    SHORT_FOOTER_SIZE,
    DiskType,
    DynamicHeader,
    Footer,
    is_footer,
    parse_dynamic_header,
    parse_footer,
)
from imaging.formats.vhd.parent import read_references
from imaging.units import SECTOR_SIZE, round_up
from imaging.words import read_words

if TYPE_CHECKING:
    from array import array


def open_vhd(file: BlockDevice, place: Place = NOWHERE) -> BaseImage:
    """Check all metadata and open the disk inside `file`.

    Raises:
        InvalidImage: The file breaks the format's rules; nothing of the disk was read.
        ImagingError: What is wrong with its parent.
    """
    footer, footer_offset, warnings = find_footer(file)
    warnings += tuple(_doubts(footer))
    if footer.disk_type is DiskType.FIXED:
        return _open_fixed(file, footer, footer_offset, warnings)
    return _open_dynamic(file, footer, footer_offset, warnings, place)


def find_footer(file: BlockDevice) -> tuple[Footer, int, tuple[str, ...]]:
    """Return the footer, where the data before it ends, and warnings.

    The trailing footer counts; where it is damaged, the copy at the start of a dynamic disk does.
    """
    size = file.size
    if size < FOOTER_SIZE:
        raise Truncated(f"the file has {size} bytes, a VHD has at least a footer", file_size=size)
    tail = read_bytes(file, size - FOOTER_SIZE, FOOTER_SIZE)
    if is_footer(tail):
        return parse_footer(tail, size - FOOTER_SIZE), size - FOOTER_SIZE, ()
    if size % SECTOR_SIZE == SHORT_FOOTER_SIZE and is_footer(tail[1:]):
        offset = size - SHORT_FOOTER_SIZE
        return parse_footer(tail[1:], offset), offset, ()
    head = read_bytes(file, 0, FOOTER_SIZE)
    if is_footer(head) and parse_footer(head, 0).disk_type is not DiskType.FIXED:
        end = size - FOOTER_SIZE if tail.startswith(VHD_COOKIE) else size
        warning = "the footer at the end is damaged or gone, its copy at the start was used"
        return parse_footer(head, 0), end, (warning,)
    return parse_footer(tail, size - FOOTER_SIZE), size - FOOTER_SIZE, ()


class BlockAllocationTable:
    """The BAT of a VHD: for each block the sector of its bitmap, behind which its data lie.

    In a dynamic disk the sector bitmap is not looked at: it says nothing there that the data do not,
    and old writers leave it all ones. In a differencing disk it decides: under a 0 lie stale bytes.
    """

    def __init__(self, entries: "array[int]", *, bitmap_size: int) -> None:
        self._entries = entries
        self.bitmap_size = bitmap_size

    def lookup(self, block: int, limit: int) -> BlockRun:
        """Describe one block that is there (bitmaps lie between blocks), or many that are not."""
        entry = self._entries[block]
        if entry != ABSENT:
            return BlockRun(1, Kind.DATA, entry * SECTOR_SIZE + self.bitmap_size)
        return BlockRun(self._absent(block, limit), Kind.HOLE, 0)

    def layer(self, block: int, limit: int) -> LayerRun:
        """Describe one block that is there, or many that are the parent's."""
        entry = self._entries[block]
        if entry == ABSENT:
            return LayerRun(self._absent(block, limit), Owner.PARENT)
        bitmap = entry * SECTOR_SIZE
        return LayerRun(1, Owner.MIXED, Kind.DATA, bitmap + self.bitmap_size, bitmap)

    def entry(self, block: int) -> int | None:
        """Return where in the file the bitmap of a block begins; None: the block is not there."""
        entry = self._entries[block]
        return None if entry == ABSENT else entry * SECTOR_SIZE

    def set_entry(self, block: int, file_offset: int) -> bytes:
        """Change where the bitmap of a block begins, and return the entry's 4 bytes; the file is the caller's."""
        self._entries[block] = file_offset // SECTOR_SIZE
        return self._entries[block].to_bytes(4, "big")

    def claim_all(self, spans: SpanMap, *, block_size: int, virtual_size: int) -> None:
        """Check that every block lies in the file and on nothing else."""
        for block, entry in enumerate(self._entries):
            if entry != ABSENT:
                # The last block may be cut where the disk ends: some writers stop there.
                length = min(block_size, virtual_size - block * block_size)
                spans.claim(block, entry * SECTOR_SIZE, self.bitmap_size + length)

    def bitmap_offsets(self) -> Iterator[tuple[int, int]]:
        """Yield each block that is there, and where in the file its bitmap begins."""
        for block, entry in enumerate(self._entries):
            if entry != ABSENT:
                yield block, entry * SECTOR_SIZE

    def _absent(self, block: int, limit: int) -> int:
        end = block + 1
        while end < block + limit and self._entries[end] == ABSENT:
            end += 1
        return end - block


def _open_fixed(
    file: BlockDevice, footer: Footer, footer_offset: int, warnings: tuple[str, ...]
) -> FlatImage:
    size = footer.current_size
    if size > footer_offset:
        raise Truncated(
            f"a fixed VHD of {size} bytes, but only {footer_offset} bytes lie before its footer",
            offset=footer_offset,
            file_size=file.size,
        )
    if size < footer_offset:
        gap = footer_offset - size
        warnings += (f"{gap} bytes between the end of the disk and its footer are ignored",)
    info = ImageInfo("vhd", "fixed", size, file.size, 0, warnings=warnings)
    return FlatImage(file, info)


@dataclass(frozen=True, slots=True)
class LoadedVhd:
    """The checked metadata of a dynamic or differencing disk.

    Attributes:
        data_end: Where the file's data end and its footer begins.
        reserved: What the metadata before the blocks occupy.
        references: Paths of the parent; none if the disk is dynamic.
    """

    footer: Footer
    header: DynamicHeader
    data_end: int
    reserved: tuple[FileRange, ...]
    references: tuple[Reference, ...]
    table: BlockAllocationTable


def load_dynamic(file: BlockDevice, footer: Footer, data_end: int) -> LoadedVhd:
    """Read and check all metadata behind the footer; a parent is not looked for."""
    header = _read_dynamic_header(file, footer, data_end)
    block_size, size = header.block_size, footer.current_size
    blocks = -(-size // block_size)
    reserved = [
        FileRange(0, FOOTER_SIZE, "the footer's copy"),
        FileRange(footer.data_offset, DYNAMIC_HEADER_SIZE, "the dynamic header"),
        FileRange(header.table_offset, _require_table(header, blocks, data_end), "the BAT"),
    ]
    references: list[Reference] = []
    if footer.disk_type is DiskType.DIFFERENCING:
        references, texts = read_references(file, header, footer.data_offset)
        reserved += texts
    bitmap_size = round_up(-(-block_size // SECTOR_SIZE // 8), SECTOR_SIZE)
    entries = read_words(file, header.table_offset, blocks, "I", "big")
    table = BlockAllocationTable(entries, bitmap_size=bitmap_size)
    span = bitmap_size + block_size
    spans = SpanMap(data_end, span=span, unit=SECTOR_SIZE, reserved=reserved)
    table.claim_all(spans, block_size=block_size, virtual_size=size)
    return LoadedVhd(footer, header, data_end, tuple(reserved), tuple(references), table)


def _open_dynamic(
    file: BlockDevice, footer: Footer, data_end: int, warnings: tuple[str, ...], place: Place
) -> BaseImage:
    loaded = load_dynamic(file, footer, data_end)
    bitmaps = SectorBitmaps(file, size=loaded.table.bitmap_size, msb_first=True)
    return assemble(loaded, file, bitmaps, warnings, place)


def assemble(
    loaded: LoadedVhd,
    file: BlockDevice,
    bitmaps: SectorBitmaps,
    warnings: tuple[str, ...],
    place: Place,
) -> BaseImage:
    """Make the disk whose blocks are in `file` of metadata that were checked; open its parent, if it has one."""
    footer = loaded.footer
    table, block_size = loaded.table, loaded.header.block_size
    info = ImageInfo(
        "vhd", "dynamic", footer.current_size, file.size, block_size, warnings=warnings
    )
    if footer.disk_type is DiskType.DYNAMIC:
        return MappedImage(file, info, table)
    parent = _open_parent(place, loaded.references, loaded.header.parent_id)
    require_sectors(parent, SECTOR_SIZE)
    warnings = inherited(parent, warnings)
    info = replace(info, subformat="differencing", parent=parent.name, warnings=warnings)
    return LayeredImage(file, info, table, bitmaps=bitmaps, parent=parent)


def _open_parent(place: Place, references: Sequence[Reference], parent_id: bytes) -> Parent:
    def open_checked(file: BlockDevice, place: Place) -> BaseImage:
        # The time stamp need not be equal: copying the parent changes it.
        found = find_footer(file)[0].unique_id
        if found != parent_id:
            raise ParentMismatch(
                f"its unique id is {found.hex()}, expected {parent_id.hex()}",
                expected=parent_id.hex(),
                found=found.hex(),
            )
        return open_vhd(file, place)

    return open_parent(place, references, open_checked)


def _read_dynamic_header(file: BlockDevice, footer: Footer, data_end: int) -> DynamicHeader:
    offset = footer.data_offset
    if offset + DYNAMIC_HEADER_SIZE > data_end:
        raise Truncated(
            f"the footer puts the dynamic header at file offset {offset}, but data end at {data_end}",
            offset=offset,
            file_size=file.size,
        )
    return parse_dynamic_header(read_bytes(file, offset, DYNAMIC_HEADER_SIZE), offset)


def _require_table(header: DynamicHeader, blocks: int, data_end: int) -> int:
    """Return the BAT's length in bytes once it is known to be long enough and inside the file."""
    if header.max_entries < blocks:
        raise InvalidImage(
            f"the BAT has {header.max_entries} entries, but the disk has {blocks} blocks",
            offset=header.table_offset,
        )
    length = header.max_entries * 4
    if header.table_offset + length > data_end:
        raise Truncated(
            f"the BAT at file offset {header.table_offset} is {length} bytes long, but data end at"
            f" {data_end}",
            offset=header.table_offset,
        )
    return length


def _doubts(footer: Footer) -> list[str]:
    """Return what is worth a warning in a footer."""
    doubts = []
    chs = footer.geometry.sectors
    differs = chs * SECTOR_SIZE != footer.current_size and chs != MAX_CHS_SECTORS
    if footer.creator in CHS_CREATORS and differs:
        doubts.append(
            f"the size is Current Size, {footer.current_size} bytes, as in Hyper-V and Azure; qemu"
            f" takes the geometry, {chs * SECTOR_SIZE} bytes, for disks of this creator"
        )
    if footer.saved_state:
        doubts.append("a suspended virtual machine owns this disk: it may be inconsistent")
    return doubts
