"""Open one sparse VMDK extent, plain or compressed: header, footer, directories and all tables are checked.

Implements "Virtual Disk Format 5.0", "Hosted Sparse Extents". Knows no descriptor and no other extent.
"""

from dataclasses import dataclass, replace
from typing import NoReturn

from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage, Truncated, UnsupportedImage
from imaging.formats.base import BaseImage, ImageInfo
from imaging.formats.signatures import VMDK_MAGIC
from imaging.formats.spans import FileRange, require_apart
from imaging.formats.vmdk.grains import GrainClaims
from imaging.formats.vmdk.layout import (
    COWD_MAGIC,
    FOOTER_AREA_SIZE,
    HEADER_SIZE,
    MARKER_SIZE,
    SESPARSE_MAGIC,
    MarkerType,
    SparseHeader,
    parse_header,
    parse_marker,
)
from imaging.formats.vmdk.plain import PlainExtent
from imaging.formats.vmdk.stream import StreamExtent
from imaging.formats.vmdk.tables import GrainTables, KeptWindows
from imaging.units import SECTOR_SIZE

_MAX_TABLE_RANGES = 1 << 16
"""Pieces that the tables of a plain extent may lie in; its writers reserve them all at once."""


@dataclass(frozen=True, slots=True)
class SparseExtent:
    """An opened extent.

    Attributes:
        header: As the file has it.
        image: The extent as a disk of its own; holes read as zeros.
        tables: Which grains are there: a delta's holes are its parent's.
        directory_offset: That of the directory that `tables` are of: the redundant one if the first is damaged.
        data_end: Where grains end in the file; behind it a stream has its footer.
        fault: What is wrong with the other directory, as a sentence; "" if nothing is.
        warnings: What an administrator should know, as sentences; `fault` among them.
    """

    header: SparseHeader
    image: BaseImage
    tables: GrainTables
    directory_offset: int
    data_end: int
    fault: str
    warnings: tuple[str, ...]


def open_sparse(file: BlockDevice, kept: KeptWindows) -> SparseExtent:
    """Check all metadata of the sparse extent in `file`; it stays open when the extent is closed.

    Args:
        file: The extent, from its header to its end.
        kept: Shared by all extents of a disk.

    Raises:
        InvalidImage: They break the rules; no grain was read.
        UnsupportedImage: It is a kind of extent that we do not read.
    """
    header = _read_header(file)
    end = file.size
    if header.directory_offset is None:
        header, end = _read_footer(file, header), file.size - FOOTER_AREA_SIZE
    tables, offset, fault = _choose_tables(file, header, end, kept)
    warnings: tuple[str, ...] = (fault,) if fault else ()
    if header.is_dirty:
        warnings += ("its writer did not close the image: it may be inconsistent",)
    info = ImageInfo(
        format="vmdk",
        subformat="stream" if header.is_compressed else "sparse",
        virtual_size=header.capacity,
        file_size=file.size,
        block_size=header.grain_size,
        dirty=header.is_dirty,
        warnings=warnings,
    )
    image = _image_of(file, info, tables, end)
    return SparseExtent(header, image, tables, offset, end, fault, warnings)


def _image_of(file: BlockDevice, info: ImageInfo, tables: GrainTables, data_end: int) -> BaseImage:
    if info.subformat == "stream":
        return StreamExtent(file, info, tables, data_end=data_end)
    return PlainExtent(file, info, tables)


def _read_header(file: BlockDevice) -> SparseHeader:
    block = read_bytes(file, 0, min(HEADER_SIZE, file.size))
    for magic, name in ((COWD_MAGIC, "COWD (vmfsSparse)"), (SESPARSE_MAGIC, "SESPARSE")):
        if block.startswith(magic):
            raise UnsupportedImage(
                f"VMDK extents of type {name} are not read", offset=0, found=name
            )
    if block.startswith(VMDK_MAGIC) and len(block) < HEADER_SIZE:
        raise Truncated(
            f"the file has {file.size} bytes, less than a VMDK header", offset=file.size
        )
    return parse_header(block, 0)


def _read_footer(file: BlockDevice, header: SparseHeader) -> SparseHeader:
    """Return the header that a stream's writer could only complete at the end."""
    if not header.is_compressed:
        raise InvalidImage(
            "the header puts the grain directory into the footer of a stream,"
            " but the extent is none",
            offset=56,
        )
    start = file.size - FOOTER_AREA_SIZE
    if start < HEADER_SIZE or file.size % SECTOR_SIZE:
        _refuse_end(file, start)
    area = read_bytes(file, start, FOOTER_AREA_SIZE)
    marker = parse_marker(area)
    if (marker.value, marker.size, marker.type) != (1, 0, MarkerType.FOOTER):
        _refuse_end(file, start)
    if any(area[2 * SECTOR_SIZE : 2 * SECTOR_SIZE + MARKER_SIZE + 4]):
        _refuse_end(file, start)
    footer = parse_header(area[SECTOR_SIZE : 2 * SECTOR_SIZE], start + SECTOR_SIZE)
    same = (header.capacity, header.grain_size, header.is_compressed, header.zero_grains)
    if same != (footer.capacity, footer.grain_size, footer.is_compressed, footer.zero_grains):
        raise InvalidImage(
            f"the footer at file offset {start + SECTOR_SIZE} describes another disk than the header",
            offset=start + SECTOR_SIZE,
        )
    if footer.directory_offset is None:
        raise InvalidImage(
            "the footer does not say where the grain directory is", offset=start + SECTOR_SIZE + 56
        )
    return replace(header, directory_offset=footer.directory_offset, redundant_offset=None)


def _refuse_end(file: BlockDevice, start: int) -> NoReturn:
    raise Truncated(
        f"no footer and end-of-stream marker at file offset {max(start, 0)}, where a stream of"
        f" {file.size} bytes has them: it is incomplete",
        offset=max(start, 0),
        file_size=file.size,
    )


def _choose_tables(
    file: BlockDevice, header: SparseHeader, end: int, kept: KeptWindows
) -> tuple[GrainTables, int, str]:
    """Return the tables of the grain directory, its offset, and what is wrong with the other directory.

    If the first one is damaged, the redundant one counts.
    """
    if header.directory_offset is None or header.directory_offset == 0:
        raise InvalidImage("the header does not say where the grain directory is", offset=56)
    try:
        tables = _checked_tables(file, header, header.directory_offset, end, kept)
    except InvalidImage as err:
        if header.redundant_offset is None:
            raise
        try:
            spare = _checked_tables(file, header, header.redundant_offset, end, kept)
        except InvalidImage:
            raise err from None
        fault = f"the grain directory is damaged ({err}), the redundant one was used"
        return spare, header.redundant_offset, fault
    return tables, header.directory_offset, _compare_spare(file, header, tables, kept)


def _compare_spare(
    file: BlockDevice, header: SparseHeader, tables: GrainTables, kept: KeptWindows
) -> str:
    """Compare the redundant tables, if there are any; return what is wrong with them.

    Raises:
        InvalidImage: They name other grains, in an image that was closed: nobody can tell which are right.
    """
    if header.redundant_offset is None:
        return ""
    try:
        spare = GrainTables(file, header, header.redundant_offset, kept)
        different = next(
            (n for n in range(tables.windows) if tables.window(n) != spare.window(n)), None
        )
    except InvalidImage as err:
        return f"the redundant grain directory is damaged ({err}), it was not used"
    if different is None:
        return ""
    message = "the two grain directories do not name the same grains"
    if header.is_dirty:
        return f"{message}: the first was used"
    raise InvalidImage(
        f"{message}, expected at file offset {header.redundant_offset} what is at"
        f" {header.directory_offset}",
        offset=header.redundant_offset,
    )


def _checked_tables(
    file: BlockDevice, header: SparseHeader, directory_offset: int, end: int, kept: KeptWindows
) -> GrainTables:
    tables = GrainTables(file, header, directory_offset, kept)
    reserved = require_apart(_metadata(header, directory_offset), file.size)
    if header.is_compressed:
        # The length of a grain is in its marker: that two do not overlap is known when they are read.
        _require_inside(tables, end)
        return tables
    for number, (offset, length) in enumerate(tables.table_ranges()):
        if number == _MAX_TABLE_RANGES:
            raise InvalidImage(
                f"the grain tables lie in more than {_MAX_TABLE_RANGES} pieces",
                offset=directory_offset,
            )
        reserved.append(FileRange(offset, length, "the grain tables"))
    claims = GrainClaims(file.size, grain_size=header.grain_size, reserved=reserved)
    for number in range(tables.windows):
        for block, count, sector in tables.data_runs(number):
            left = header.capacity - block * header.grain_size
            claims.claim(block, sector, count, min(count * header.grain_size, left))
    return tables


def _metadata(header: SparseHeader, directory_offset: int) -> list[FileRange]:
    ranges = [
        FileRange(0, HEADER_SIZE, "the header"),
        FileRange(directory_offset, header.tables * 4, "the grain directory"),
    ]
    if header.descriptor_offset:
        place = FileRange(header.descriptor_offset, header.descriptor_size, "the descriptor")
        ranges.append(place)
    return ranges


def _require_inside(tables: GrainTables, end: int) -> None:
    for number in range(tables.windows):
        for block, count, sector in tables.data_runs(number):
            # No grain has less than a sector: its marker, data and padding.
            if (sector + 1) * SECTOR_SIZE > end:
                raise Truncated(
                    f"grain {block} (of {count}) begins at file offset {sector * SECTOR_SIZE}, but"
                    f" the grains end at {end}",
                    block=block,
                    offset=sector * SECTOR_SIZE,
                )
