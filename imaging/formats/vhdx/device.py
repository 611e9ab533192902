"""Open VHDX images, fixed, dynamic and differencing, for reading; writes none.

Implements [MS-VHDX]. All metadata are checked before the first byte of the disk is read.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage, Truncated, UnsupportedImage
from imaging.formats.base import BaseImage, ImageInfo
from imaging.formats.bitmaps import SectorBitmaps
from imaging.formats.claims import UnitClaims
from imaging.formats.layered import LayeredImage
from imaging.formats.mapped import MappedImage
from imaging.formats.parents import Parent, inherited, open_parent, require_sectors
from imaging.formats.place import NOWHERE, Place
from imaging.formats.signatures import VHDX_SIGNATURE
from imaging.formats.spans import FileRange, require_apart
from imaging.formats.vhdx.bat import BlockAllocationTable
from imaging.formats.vhdx.entries import (
    BITMAP_SIZE,
    ENTRY_SIZE,
    entry_count,
)
from imaging.formats.vhdx.headers import read_copies, read_header
from imaging.formats.vhdx.layout import (
    HEADER_AREA_SIZE,
    ITEM_PARENT_LOCATOR,
    KNOWN_ITEMS,
    NO_GUID,
    REGION_BAT,
    REGION_METADATA,
    REGION_TABLE_OFFSETS,
    TABLE_SIZE,
    DiskParameters,
    Header,
    Item,
    Region,
    parse_metadata_table,
    parse_parameters,
    parse_region_table,
)
from imaging.formats.vhdx.locator import ParentLocator, parse_parent_locator
from imaging.formats.vhdx.log import replay_log
from imaging.formats.vhdx.parent import require_linkage
from imaging.units import SECTOR_SIZE, MiB

_MAX_ITEM_SIZE = 1 * MiB
"""No metadata item is longer (2.6.1.2)."""


@dataclass(frozen=True, slots=True)
class LoadedVhdx:
    """The checked metadata of one file.

    Attributes:
        file: The image file, with its log replayed in memory if there was one.
        header: The current one.
        reserved: What the metadata occupy, sector bitmaps included, by file offset.
        locator: Of the parent, None if the disk has none.
        items: The contents of the metadata items that are known, by GUID.
        warnings: What was doubtful on the way.
    """

    file: BlockDevice
    header: Header
    reserved: tuple[FileRange, ...]
    disk: DiskParameters
    table: BlockAllocationTable
    locator: ParentLocator | None
    items: Mapping[bytes, bytes]
    warnings: tuple[str, ...]

    @property
    def dirty(self) -> bool:
        """Whether there is a log to replay."""
        return self.header.log_guid != NO_GUID


def open_vhdx(file: BlockDevice, place: Place = NOWHERE) -> BaseImage:
    """Check all metadata and open the disk inside `file`.

    Raises:
        InvalidImage: The file breaks the format's rules; nothing of the disk was read.
        ParentNeeded, UnsupportedImage: It is sound but more than we read.
        ImagingError: What is wrong with its parent.
    """
    loaded = load_vhdx(file)
    bitmaps = SectorBitmaps(loaded.file, size=BITMAP_SIZE, msb_first=False)
    return assemble(loaded, loaded.file, bitmaps, place)


def assemble(
    loaded: LoadedVhdx, file: BlockDevice, bitmaps: SectorBitmaps, place: Place
) -> BaseImage:
    """Make the disk whose blocks are in `file` of metadata that were checked; open its parent, if it has one."""
    info = _describe(loaded, file_size=file.size)
    if loaded.locator is None:
        return MappedImage(file, info, loaded.table)
    parent = _open_parent(place, loaded.locator)
    require_sectors(parent, loaded.disk.sector_size)
    info = replace(info, parent=parent.name, warnings=inherited(parent, info.warnings))
    return LayeredImage(file, info, loaded.table, bitmaps=bitmaps, parent=parent)


def load_vhdx(file: BlockDevice) -> LoadedVhdx:
    """Read and check all metadata of one file; a parent is not looked for."""
    require_signature(file)
    header, _, warnings = read_header(file)
    log = _log_range(header)
    # Nothing outside the first MiB may be looked at before the log was replayed.
    if header.log_guid != NO_GUID:
        require_apart([FileRange(0, HEADER_AREA_SIZE, "the headers"), log], file.size)
        file = replay_log(file, header)
        warnings += ("its writer did not close the image: the changes in its log were applied",)
    regions, table_warnings = read_regions(file)
    reserved = require_apart(_reserved(regions, log), file.size)
    disk, locator, items = _read_metadata(file, regions[REGION_METADATA])
    table = _read_bat(file, regions[REGION_BAT], disk)
    table.guard(UnitClaims(file.size, unit=MiB, reserved=reserved))
    warnings += table_warnings + _doubts(disk)
    return LoadedVhdx(file, header, tuple(reserved), disk, table, locator, items, warnings)


def _open_parent(place: Place, locator: ParentLocator) -> Parent:
    def open_checked(file: BlockDevice, place: Place) -> BaseImage:
        require_signature(file)
        require_linkage(read_header(file)[0], locator)
        return open_vhdx(file, place)

    return open_parent(place, locator.references, open_checked)


def _describe(loaded: LoadedVhdx, *, file_size: int) -> ImageInfo:
    disk = loaded.disk
    subformat = "fixed" if disk.is_fixed else "dynamic"
    return ImageInfo(
        format="vhdx",
        subformat="differencing" if disk.has_parent else subformat,
        virtual_size=disk.virtual_size,
        file_size=file_size,
        block_size=disk.block_size,
        sector_size=disk.sector_size,
        dirty=loaded.dirty,
        warnings=loaded.warnings,
    )


def _doubts(disk: DiskParameters) -> tuple[str, ...]:
    if disk.sector_size == SECTOR_SIZE:
        return ()
    size = disk.sector_size
    return (f"a system on {size}-byte sectors does not boot from a cloud disk of 512-byte sectors",)


def require_signature(file: BlockDevice) -> None:
    """Refuse what does not begin as a VHDX, or ends before its headers do: everything else may be read then.

    Raises:
        InvalidImage, Truncated: It is none, or not all of it.
    """
    found = read_bytes(file, 0, min(len(VHDX_SIGNATURE), file.size))
    if found != VHDX_SIGNATURE:
        raise InvalidImage(
            f"the file begins with {found!r}, expected {VHDX_SIGNATURE!r}: it is no VHDX", offset=0
        )
    if file.size < HEADER_AREA_SIZE:
        raise Truncated(
            f"the file has {file.size} bytes, the headers of a VHDX alone have {HEADER_AREA_SIZE}",
            offset=file.size,
            file_size=file.size,
        )


def _log_range(header: Header) -> FileRange:
    offset, length = header.log_offset, header.log_length
    if offset % MiB or length % MiB or offset < HEADER_AREA_SIZE or length == 0:
        raise InvalidImage(
            f"the VHDX log has {length} bytes at file offset {offset}, expected positive multiples"
            f" of {MiB}",
            offset=offset,
        )
    return FileRange(offset, length, "the log")


def read_regions(file: BlockDevice) -> tuple[dict[bytes, Region], tuple[str, ...]]:
    """Return the regions by GUID; BAT and metadata are among them (2.2.3)."""
    tables, warnings = read_copies(file, REGION_TABLE_OFFSETS, TABLE_SIZE, parse_region_table)
    regions: dict[bytes, Region] = {}
    for table_offset, table in list(tables.items())[:1]:
        for region in table:
            _require_region(region, table_offset)
            if region.guid in regions:
                raise InvalidImage(
                    f"the VHDX region table names region {uuid.UUID(bytes_le=region.guid)} twice",
                    offset=table_offset,
                )
            regions[region.guid] = region
    for guid, name in ((REGION_BAT, "BAT"), (REGION_METADATA, "metadata region")):
        if guid not in regions:
            raise InvalidImage(f"the VHDX region table names no {name}", offset=min(tables))
    return regions, warnings


def _require_region(region: Region, table_offset: int) -> None:
    name = uuid.UUID(bytes_le=region.guid)
    if region.required and region.guid not in (REGION_BAT, REGION_METADATA):
        raise UnsupportedImage(f"the VHDX requires the unknown region {name}", offset=table_offset)
    offset, length = region.offset, region.length
    if offset % MiB or length % MiB or offset < HEADER_AREA_SIZE or length == 0:
        raise InvalidImage(
            f"VHDX region {name} has {length} bytes at file offset {offset}, expected positive"
            f" multiples of {MiB}",
            offset=table_offset,
        )


def _reserved(regions: dict[bytes, Region], log: FileRange) -> list[FileRange]:
    names = {REGION_BAT: "the BAT", REGION_METADATA: "the metadata region"}
    found = [FileRange(0, HEADER_AREA_SIZE, "the headers"), log]
    for region in regions.values():
        name = names.get(region.guid, f"region {uuid.UUID(bytes_le=region.guid)}")
        found.append(FileRange(region.offset, region.length, name))
    return found


def _read_metadata(
    file: BlockDevice, region: Region
) -> tuple[DiskParameters, ParentLocator | None, dict[bytes, bytes]]:
    """Return the disk's parameters, of a differencing disk the parent's locator, and the items' contents (2.6)."""
    table = parse_metadata_table(read_bytes(file, region.offset, TABLE_SIZE), region.offset)
    contents: dict[bytes, bytes] = {}
    locator_offset = region.offset
    for item in table:
        _require_item(item, region)
        if item.guid in KNOWN_ITEMS:
            if item.guid in contents:
                raise InvalidImage(
                    f"the VHDX metadata have item {uuid.UUID(bytes_le=item.guid)} twice",
                    offset=region.offset,
                )
            contents[item.guid] = read_bytes(file, region.offset + item.offset, item.length)
            if item.guid == ITEM_PARENT_LOCATOR:
                locator_offset = region.offset + item.offset
    disk = parse_parameters(contents, region.offset)
    if not disk.has_parent:
        return disk, None, contents
    if ITEM_PARENT_LOCATOR not in contents:
        raise InvalidImage(
            "a differencing VHDX whose metadata lack the item parent locator", offset=region.offset
        )
    locator = parse_parent_locator(contents[ITEM_PARENT_LOCATOR], locator_offset)
    return disk, locator, contents


def _require_item(item: Item, region: Region) -> None:
    if item.length == 0 and item.offset == 0:
        return
    inside = item.offset >= TABLE_SIZE and item.offset + item.length <= region.length
    if not inside or item.length > _MAX_ITEM_SIZE:
        raise InvalidImage(
            f"VHDX metadata item {uuid.UUID(bytes_le=item.guid)} has {item.length} bytes at"
            f" {item.offset} of a region of {region.length} bytes",
            offset=region.offset,
        )


def _read_bat(file: BlockDevice, region: Region, disk: DiskParameters) -> BlockAllocationTable:
    needed = entry_count(disk, disk.blocks) * ENTRY_SIZE
    if needed > region.length:
        raise InvalidImage(
            f"the BAT region has {region.length} bytes, a disk of {disk.blocks} blocks needs"
            f" {needed}",
            offset=region.offset,
        )
    return BlockAllocationTable(file, region.offset, disk)
