"""Make a differencing VHDX beside its parent: an empty one, or one that reads as another disk. Opens and commits files.

The parent is never written. What is made is opened as everybody opens it, with its parent and all below, before it gets
its name: a chain that nobody could read, or a parent that changed meanwhile, is found before anything is there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from imaging.convert.difference import write_difference
from imaging.convert.targets import TARGETS
from imaging.convert.vhdx_child import ChildWriter
from imaging.convert.vhdx_frame import own_guid
from imaging.device import BlockDevice
from imaging.digest import DigestBuilder
from imaging.errors import ParentMismatch, ReferenceRefused
from imaging.filedev import FileDevice
from imaging.formats import open_image, open_path
from imaging.formats.base import DiskImage, ImageInfo
from imaging.formats.place import naming
from imaging.formats.vhdx.device import LoadedVhdx, load_vhdx
from imaging.formats.vhdx.layout import (
    ITEM_DISK_ID,
    ITEM_PHYSICAL_SECTOR,
    SECTOR_SIZES,
    DiskParameters,
    build_metadata,
)
from imaging.formats.vhdx.locator import build_parent_locator
from imaging.newfile import PARTIAL, NewFile
from imaging.siblings import LocalFolder, bare_name

_GUID_SIZE = 16


@dataclass(frozen=True, slots=True)
class Content:
    """What a child is to read as.

    Attributes:
        source: The disk; a child of it is as long, rounded up to a sector.
        sector_size: Its logical sector in bytes; 0: it has none of its own, as raw images.
        digest: Gets the digest of every block of the source.
        progress: Called with the bytes finished since the last call.
        stop: Answering true ends the work.
    """

    source: BlockDevice
    sector_size: int = 0
    digest: DigestBuilder | None = None
    progress: Callable[[int], None] | None = None
    stop: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """What was made.

    Attributes:
        info: What it says about itself.
        bytes_written: Of the file.
    """

    info: ImageInfo
    bytes_written: int


def create_child(
    parent: Path,
    child: Path,
    *,
    unique_id: UUID,
    content: Content | None = None,
    overwrite: bool = False,
) -> Created:
    """Make a differencing VHDX, durably. Blocking.

    Block and sector size, and the disk's id, are the parent's: for the guest it is the same disk.

    Args:
        parent: A VHDX of any subformat.
        child: In the same folder, under another name.
        unique_id: Like no other image's; the GUIDs of the file are derived from it.
        content: What it reads as; None: as its parent, of the same size.
        overwrite: Whether a file of the child's name may be there.

    Raises:
        ParentMismatch: The content has other sectors than the parent.
        ReferenceRefused: They lie in different folders, or the parent's name is none that a child may name.
        FileExists: There is a file of the child's name.
        ImagingError: The parent, its chain or the content cannot be read, or the file cannot be written.
    """
    _require_neighbours(parent, child)
    loaded = _load(parent)  # before it is read: a change of it while it is read is noticed by that
    with open_path(parent, format="vhdx") as below, NewFile(child, replace=overwrite) as file:
        disk = _disk_over(loaded.disk, content)
        writer = ChildWriter(file, disk)
        if content:
            _fill(writer, content, below, disk)
        writer.finish(_metadata(loaded, disk, parent.name, unique_id), unique_id)
        info = _read_again(child)
        file.commit()
    return Created(info, file.bytes_written)


def _require_neighbours(parent: Path, child: Path) -> None:
    bare_name(parent.name, what="parent")
    if parent.resolve().parent != child.parent.resolve():
        raise ReferenceRefused(
            f"{child}: is not in the folder of its parent {parent}: a child finds its parent beside itself only",
            path=str(child),
        )


def _load(parent: Path) -> LoadedVhdx:
    file = FileDevice(parent)
    try:
        with naming(str(parent)):
            return load_vhdx(file)
    finally:
        file.close()


def _disk_over(parent: DiskParameters, content: Content | None) -> DiskParameters:
    size, sector_size = parent.virtual_size, parent.sector_size
    if content:
        if content.sector_size not in (0, sector_size):
            raise ParentMismatch(
                f"the disk has sectors of {content.sector_size} bytes, its parent would have {sector_size}",
                expected=content.sector_size,
                found=sector_size,
            )
        size = TARGETS["vhdx:dynamic"].padded_size(content.source.size, sector_size=sector_size)
    return replace(parent, virtual_size=size, is_fixed=False, has_parent=True)


def _fill(writer: ChildWriter, content: Content, parent: DiskImage, disk: DiskParameters) -> None:
    write_difference(
        content.source,
        parent,
        writer,
        size=disk.virtual_size,
        sector_size=disk.sector_size,
        digest=content.digest,
        progress=content.progress,
        stop=content.stop,
    )


def _metadata(parent: LoadedVhdx, disk: DiskParameters, name: str, unique_id: UUID) -> bytes:
    disk_id = parent.items.get(ITEM_DISK_ID, b"")
    physical = int.from_bytes(parent.items.get(ITEM_PHYSICAL_SECTOR, b""), "little")
    return build_metadata(
        disk,
        disk_id=disk_id if len(disk_id) == _GUID_SIZE else own_guid(unique_id, "disk"),
        physical_sector=physical if physical in SECTOR_SIZES else SECTOR_SIZES[-1],
        locator=build_parent_locator(parent.header.data_write_guid, name),
    )


def _read_again(child: Path) -> ImageInfo:
    """Open what was written as a reader of the finished file does."""
    file = FileDevice(child.with_name(child.name + PARTIAL))
    try:
        folder = LocalFolder(child.resolve().parent)
        image = open_image(file, format="vhdx", name=child.name, siblings=folder)
        image.close()
        return image.info
    finally:
        file.close()
