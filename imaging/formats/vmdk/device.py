"""Open VMDK images of hosted products and of ESXi for reading: one file or many, and delta links over their parents.

Implements "Virtual Disk Format 5.0". Every file that a descriptor names is opened by `Place`, never by its path.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from imaging.device import BlockDevice, read_bytes
from imaging.errors import (
    InvalidImage,
    ParentMismatch,
    Truncated,
    UnsupportedImage,
)
from imaging.extent import Extent
from imaging.formats.base import BaseImage, Closable, ImageInfo
from imaging.formats.parents import Parent, inherited, open_parent
from imaging.formats.place import NOWHERE, Place, naming
from imaging.formats.reference import Reference
from imaging.formats.signatures import VMDK_DESCRIPTOR
from imaging.formats.spans import FileRange, require_apart
from imaging.formats.vmdk.delta import DeltaExtent
from imaging.formats.vmdk.descriptor import (
    Descriptor,
    ExtentLine,
    ExtentType,
    parse_descriptor,
)
from imaging.formats.vmdk.layout import MAX_DESCRIPTOR_SIZE
from imaging.formats.vmdk.sparse import SparseExtent, open_sparse
from imaging.formats.vmdk.tables import KeptWindows
from imaging.memory import MemoryDevice
from imaging.offset import OffsetDevice
from imaging.overlay import OverlayDevice


class VmdkImage(BaseImage):
    """A disk of one or more extents, one behind the other."""

    def __init__(
        self,
        file: BlockDevice,
        info: ImageInfo,
        extents: Sequence[BlockDevice],
        *,
        cid: int,
        parts: Sequence["Part"],
        owned: Sequence[Closable],
    ) -> None:
        """Join `extents`, whose sizes together are the virtual size; `parts` are what they were opened from."""
        super().__init__(file, info, owned=owned)
        self.cid = cid
        self.parts = parts
        self._extents_of_disk = extents
        self._starts = _starts(extent.size for extent in extents)

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        for extent, start, length in self._parts(offset, len(buffer)):
            extent.read_into(start, buffer[done : done + length])
            done += length

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for extent, start, part in self._parts(offset, length):
            shift = offset - start
            for found in extent.extents(start, part):
                yield Extent(found.offset + shift, found.length, found.kind)
            offset += part

    def _parts(self, offset: int, length: int) -> Iterator[tuple[BlockDevice, int, int]]:
        """Yield (extent, offset in it, length) of a range of the disk."""
        index = bisect_right(self._starts, offset) - 1
        while length:
            extent, start = self._extents_of_disk[index], offset - self._starts[index]
            part = min(length, extent.size - start)
            yield extent, start, part
            offset, length, index = offset + part, length - part, index + 1


def open_vmdk(file: BlockDevice, place: Place = NOWHERE) -> VmdkImage:
    """Check all metadata of the image, of its extents and its parents, and open the disk.

    Raises:
        InvalidImage: A file breaks the format's rules; nothing of the disk was read.
        ParentMismatch: The parent changed since the delta link was made.
        ParentNeeded, UnsupportedImage: It is sound but more than we read, or than we were given.
        ReferenceRefused, DeviceError: A file that it names cannot be opened, or must not be.
    """
    with ExitStack() as opened:
        if read_bytes(file, 0, min(len(VMDK_DESCRIPTOR), file.size)) == VMDK_DESCRIPTOR:
            disk = _open_described(file, place, opened)
        else:
            disk = _open_single(file)
        parent = _open_parent(disk, place, opened)
        info = _describe(file, disk, parent)
        extents = _over_parent(disk.parts, parent)
        cid = disk.descriptor.cid
        owned = [opened.pop_all()]
        return VmdkImage(file, info, extents, cid=cid, parts=disk.parts, owned=owned)


@dataclass(frozen=True, slots=True)
class Part:
    """An extent that was opened.

    Attributes:
        line: What the descriptor says of it.
        file: Where it lies; for messages and reading, closed by whoever opened it.
        device: Its bytes; exactly as many as the descriptor says.
        sparse: Its grains, if it has any: in a delta link only these have holes.
        warnings: About it.
    """

    line: ExtentLine
    file: BlockDevice
    device: BlockDevice
    sparse: SparseExtent | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Disk:
    """What a descriptor at `offset` of its file says, and the extents that it names."""

    descriptor: Descriptor
    offset: int
    parts: tuple[Part, ...]


def _open_single(file: BlockDevice) -> _Disk:
    """Open a disk that is one file: monolithicSparse, streamOptimized."""
    sparse = open_sparse(file, KeptWindows())
    header = sparse.header
    if not header.descriptor_offset:
        raise UnsupportedImage(
            "the file is one extent of a disk, expected the descriptor file that names it",
            offset=28,
        )
    offset = header.descriptor_offset
    descriptor = parse_descriptor(read_bytes(file, offset, header.descriptor_size), offset)
    lines = descriptor.extents
    if len(lines) != 1 or lines[0].type is not ExtentType.SPARSE:
        raise UnsupportedImage(
            f"the descriptor inside the file names {len(lines)} extents, the first of type"
            f" {lines[0].type.value}, expected one of type SPARSE",
            offset=offset,
        )
    warnings = sparse.warnings
    if lines[0].length != header.capacity:
        warnings += (
            f"the descriptor says {lines[0].length} bytes, the header {header.capacity}: the header counts",
        )
    return _Disk(descriptor, offset, (Part(lines[0], file, sparse.image, sparse, warnings),))


def _open_described(file: BlockDevice, place: Place, opened: ExitStack) -> _Disk:
    """Open a disk whose descriptor is a file of its own, and all extents that it names."""
    if file.size > MAX_DESCRIPTOR_SIZE:
        raise InvalidImage(
            f"the descriptor has {file.size} bytes, expected up to {MAX_DESCRIPTOR_SIZE}",
            file_size=file.size,
        )
    text = read_bytes(file, 0, file.size)
    descriptor = parse_descriptor(text)
    # Of one extent nothing can be missing, if its line is whole: people write such descriptors by hand.
    is_whole = descriptor.has_one_extent and text.rstrip(b"\0").endswith((b"\n", b"\r"))
    if not descriptor.has_database and not is_whole:
        raise Truncated(
            f"the descriptor ends at {file.size} without its disk data base (ddb.adapterType and the like): extents"
            " may be missing too",
            offset=file.size,
            file_size=file.size,
        )
    files: dict[str, BlockDevice] = {}
    for number, line in enumerate(descriptor.extents, 1):
        if line.name == place.name and line.name:
            raise InvalidImage(f"extent {number} is the descriptor itself", found=line.name)
        if line.name and line.name not in files:
            extent = place.open_file(line.name, what=f"extent {number}")
            files[line.name] = opened.enter_context(closing(extent))
    kept = KeptWindows()
    parts = []
    for name, ranges in _ranges_by_file(descriptor.extents, files).items():
        with naming(name):
            require_apart(ranges, files[name].size)
    for line in descriptor.extents:
        with naming(line.name):
            parts.append(_open_extent(line, files, kept))
    return _Disk(descriptor, 0, tuple(parts))


def _ranges_by_file(
    lines: Iterable[ExtentLine], files: dict[str, BlockDevice]
) -> dict[str, list[FileRange]]:
    """Return which extent claims which bytes: sparse ones all of their file."""
    ranges: dict[str, list[FileRange]] = {name: [] for name in files}
    for number, line in enumerate(lines, 1):
        name = f"extent {number}"
        if line.type is ExtentType.SPARSE:
            ranges[line.name].append(FileRange(0, files[line.name].size, name))
        elif line.name:
            ranges[line.name].append(FileRange(line.file_offset, line.length, name))
    return ranges


def _open_extent(line: ExtentLine, files: dict[str, BlockDevice], kept: KeptWindows) -> Part:
    if line.type is ExtentType.ZERO:
        nothing = MemoryDevice(0)
        return Part(line, nothing, OverlayDevice(nothing, size=line.length))
    file = files[line.name]
    if line.type is not ExtentType.SPARSE:
        return Part(line, file, OffsetDevice(file, line.file_offset, line.length))
    sparse = open_sparse(file, kept)
    capacity, warnings = sparse.header.capacity, sparse.warnings
    if capacity < line.length:
        raise InvalidImage(
            f"the capacity is {capacity} bytes, but the descriptor says {line.length}", offset=12
        )
    if capacity > line.length:
        warnings += (
            f"the capacity is {capacity} bytes, of which the descriptor takes {line.length}",
        )
    warnings = tuple(f"{line.name}: {warning}" for warning in warnings)
    return Part(line, file, OffsetDevice(sparse.image, 0, line.length), sparse, warnings)


def _open_parent(disk: _Disk, place: Place, opened: ExitStack) -> Parent | None:
    """Open the parent of a delta link beside it; its content id decides whether it is the one."""
    cid, hint = disk.descriptor.parent_cid, disk.descriptor.parent_hint
    if cid is None:
        return None
    relative = not re.match(r"[A-Za-z]:|[\\/]", hint)
    references = [Reference(hint, disk.offset, relative=relative)] if hint else []
    parent = open_parent(place, references, lambda file, below: _open_checked(file, below, cid))
    return opened.enter_context(closing(parent))


def _open_checked(file: BlockDevice, place: Place, cid: int) -> VmdkImage:
    image = open_vmdk(file, place)
    if image.cid != cid:
        image.close()
        raise ParentMismatch(
            f"the content id is {image.cid:08x}, expected {cid:08x}", expected=cid, found=image.cid
        )
    return image


def _over_parent(parts: Sequence[Part], parent: Parent | None) -> list[BlockDevice]:
    """Return the extents' devices, each over its range of the parent, if there is one."""
    if parent is None:
        return [part.device for part in parts]
    devices: list[BlockDevice] = []
    starts = _starts(part.device.size for part in parts)
    for part, start in zip(parts, starts, strict=True):
        if part.sparse is None:
            devices.append(part.device)
            continue
        capacity = part.sparse.header.capacity
        # A parent that is shorter than its child goes on as zeros.
        below = OffsetDevice(OverlayDevice(parent.image, size=start + capacity), start, capacity)
        extent = DeltaExtent(part.file, part.sparse, below)
        devices.append(OffsetDevice(extent, 0, part.device.size))
    return devices


def _describe(file: BlockDevice, disk: _Disk, parent: Parent | None) -> ImageInfo:
    headers = [part.sparse.header for part in disk.parts if part.sparse is not None]
    size = sum(part.device.size for part in disk.parts)
    warnings = tuple(warning for part in disk.parts for warning in part.warnings)
    if parent is not None:
        below = parent.image.size
        if below != size:
            warnings += (f"the parent {parent.name!r} has {below} bytes, the disk {size}",)
        warnings = inherited(parent, warnings)
    return ImageInfo(
        format="vmdk",
        subformat=disk.descriptor.create_type,
        virtual_size=size,
        file_size=file.size,
        block_size=headers[0].grain_size if headers else 0,
        parent=None if parent is None else parent.name,
        dirty=any(header.is_dirty for header in headers),
        warnings=warnings,
    )


def _starts(sizes: Iterable[int]) -> list[int]:
    """Return where each extent begins on the disk."""
    starts, position = [], 0
    for size in sizes:
        starts.append(position)
        position += size
    return starts
