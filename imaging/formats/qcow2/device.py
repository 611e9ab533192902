"""Open qcow2 images, versions 2 and 3, for reading: the active state only; writes none.

Implements "qcow2" (qemu, docs/interop/qcow2.txt). Header, extensions and L1 table are checked before the first byte
of the disk is read; L2 tables when they are met (`imaging.formats.qcow2.tables` says why). Refcounts are never
looked at: reading needs none. The backing file and the data file lie beside the image, under bare names; the format
of a backing file is what the image says, and is never probed.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from imaging.device import BlockDevice, read_bytes
from imaging.errors import (
    FileMissing,
    ImagingError,
    InvalidImage,
    ParentNeeded,
    ReferenceRefused,
    UnsupportedImage,
)
from imaging.extent import Extent, Kind
from imaging.formats.base import BaseImage, Closable, ImageInfo
from imaging.formats.layered import Walk
from imaging.formats.mapped import FileWindows, fill_zeros
from imaging.formats.parents import Parent, inherited
from imaging.formats.place import NOWHERE, Place
from imaging.formats.qcow2.compressed import CompressedClusters
from imaging.formats.qcow2.l2 import Run, Source
from imaging.formats.qcow2.layout import (
    CORRUPT,
    DIRTY,
    MAX_HEADER_SIZE,
    CompressedCluster,
    Header,
    Names,
    parse_compressed,
    parse_header,
    parse_names,
)
from imaging.formats.qcow2.tables import ClusterTables
from imaging.overlay import OverlayDevice
from imaging.siblings import bare_name
from imaging.units import SECTOR_SIZE

_FORMATS = {"raw": "raw", "qcow2": "qcow2", "vpc": "vhd", "vhdx": "vhdx", "vmdk": "vmdk"}
"""What the image calls the format of its backing file (by qemu's names) -> what we call it."""


class Qcow2Image(BaseImage):
    """The active state of a qcow2, over its backing file's disk where it has none of its own."""

    def __init__(
        self,
        file: BlockDevice,
        info: ImageInfo,
        tables: ClusterTables,
        *,
        compressed: CompressedClusters,
        data: BlockDevice,
        backing: Parent | None,
        name: str,
        owned: Sequence[Closable],
    ) -> None:
        """Join the parts. `data` holds the clusters: `file`, or the external data file; errors call it `name`."""
        super().__init__(file, info, owned=owned)
        self._name = name
        self._tables = tables
        self._compressed = compressed
        self._data = data
        # Behind the end of the backing file's disk are zeros.
        self._backing = (
            None if backing is None else OverlayDevice(backing.image, size=info.virtual_size)
        )

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        packed: list[tuple[CompressedCluster, int, memoryview]] = []
        cluster, done = self._info.block_size, 0
        for run in self._runs(offset, len(buffer)):
            part = buffer[done : done + run.length]
            if run.source is Source.STORED:
                self._read_stored(run.place, part)
            elif run.source is Source.ABSENT and self._backing is not None:
                self._backing.read_into(offset + done, part)
            elif run.source is Source.COMPRESSED:
                place = parse_compressed(run.place, cluster.bit_length() - 1)
                packed.append((place, (offset + done) % cluster, part))
            else:
                fill_zeros(part)
            done += run.length
        if packed:
            self._read_compressed(packed)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        windows = FileWindows(self._data)
        below: Iterable[Extent] = (Extent(offset, length, Kind.HOLE),)
        if self._backing is not None:
            # One pass, however many clusters show it: each pass asks its file for holes anew.
            below = self._backing.extents(offset, length)
        walk = Walk(below)
        for run in self._runs(offset, length):
            if run.source is Source.STORED:
                yield from self._stored_extents(run, offset, windows)
            elif run.source is Source.ABSENT:
                yield from walk.between(offset, run.length)
            else:
                kind = Kind.ZERO if run.source is Source.ZERO else Kind.DATA
                yield Extent(offset, run.length, kind)
            offset += run.length

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        while length:
            try:
                run = self._tables.lookup(offset, length)
            except InvalidImage as err:
                raise self._named(err) from err
            yield run
            offset, length = offset + run.length, length - run.length

    def _stored_extents(self, run: Run, offset: int, windows: FileWindows) -> Iterator[Extent]:
        inside = max(0, min(run.length, self._data.size - run.place))
        yield from windows.shown_at(offset, run.place, inside)
        if inside < run.length:  # the file ends inside its last cluster
            yield Extent(offset + inside, run.length - inside, Kind.ZERO)

    def _read_compressed(self, wanted: list[tuple[CompressedCluster, int, memoryview]]) -> None:
        try:
            self._compressed.read_into(wanted)
        except InvalidImage as err:
            raise self._named(err) from err

    def _named(self, err: InvalidImage) -> InvalidImage:
        """Say which file of a chain is damaged: here nobody above knows."""
        if not self._name:
            return err
        return type(err)(f"{self._name}: {err}", **{**err.fields, "path": self._name})

    def _read_stored(self, place: int, buffer: memoryview) -> None:
        inside = min(len(buffer), max(0, self._data.size - place))
        if inside:
            self._data.read_into(place, buffer[:inside])
        if inside < len(buffer):  # the file ends inside its last cluster
            fill_zeros(buffer[inside:])


def open_qcow2(file: BlockDevice, place: Place = NOWHERE) -> Qcow2Image:
    """Check the metadata and open the disk inside `file`, and the files beside it that it needs.

    Raises:
        InvalidImage: The file breaks the format's rules; nothing of the disk was read.
        UnsupportedImage: Version 1, encryption, or a feature that is not known.
        ReferenceRefused, ParentNeeded, DeviceError: A file beside it is not named well, or not to be had.
    """
    header = parse_header(read_bytes(file, 0, min(MAX_HEADER_SIZE, file.size)))
    head = read_bytes(file, 0, min(header.cluster_size, file.size))
    names = parse_names(head, header)
    opened: list[Closable] = []
    try:
        return _open_parts(file, place, header, names, opened)
    except BaseException:
        _close_all(opened)
        raise


def _open_parts(
    file: BlockDevice, place: Place, header: Header, names: Names, opened: list[Closable]
) -> Qcow2Image:
    """Open everything; what lies beside the image is added to `opened`."""
    data = file
    if header.has_data_file:
        data = _open_data_file(place, names.data_file)
        opened.append(data)
    tables = ClusterTables(file, header, data_size=data.size)
    backing = None
    if names.backing:
        backing = _open_backing(place, header, names)
        opened.append(backing)
    info = ImageInfo(
        format="qcow2",
        subformat=f"v{header.version}",
        virtual_size=header.virtual_size,
        file_size=file.size,
        block_size=header.cluster_size,
        parent=names.backing or None,
        dirty=bool(header.incompatible & DIRTY),
        warnings=_doubts(header) if backing is None else inherited(backing, _doubts(header)),
    )
    compressed = CompressedClusters(
        file, cluster_size=header.cluster_size, compression=header.compression
    )
    return Qcow2Image(
        *(file, info, tables),
        compressed=compressed,
        data=data,
        backing=backing,
        name=place.name,
        owned=opened,
    )


def _open_data_file(place: Place, name: str) -> BlockDevice:
    if not name:
        raise UnsupportedImage(
            "the clusters are in an external data file, but the image does not name it", offset=72
        )
    place.below(name)  # a data file that is the image itself, or one above it, is refused
    return place.open_file(name, what="data file")


def _open_backing(place: Place, header: Header, names: Names) -> Parent:
    offset = header.backing_offset
    name = bare_name(names.backing, what="backing file", offset=offset)
    below = place.below(name, offset=offset)
    form = _backing_format(name, names.backing_format, offset)
    if place.open_as is None:
        raise ParentNeeded(f"the backing file {name!r} is needed", offset=offset, found=name)
    try:
        file = place.open_file(name, what="backing file", offset=offset)
    except FileMissing as err:
        message = f"the backing file {name!r} is not beside the image"
        raise ParentNeeded(message, offset=offset, found=name) from err
    try:
        return Parent(name, place.open_as(file, form, below), file)
    except ImagingError as err:
        file.close()
        message = f"backing file {name!r}: {err}"
        raise type(err)(message, **{"parent": name, **err.fields}) from err
    except BaseException:
        file.close()
        raise


def _backing_format(name: str, said: str, offset: int) -> str:
    """Return what we call the format that the image says its backing file has; it is never looked for.

    To probe it would let a guest that wrote a header into a raw disk name any file (CVE-2008-2004).
    """
    if not said:
        raise ReferenceRefused(
            f"the image does not say which format its backing file {name!r} has, and imageport never"
            f" guesses that: say it with `qemu-img rebase -u -f qcow2 -b {shlex.quote(name)} -F FORMAT IMG`",
            offset=offset,
            found=name,
        )
    if said not in _FORMATS:
        raise UnsupportedImage(
            f"the backing file {name!r} has the format {said[:100]!r}, expected one of"
            f" {', '.join(_FORMATS)}",
            offset=offset,
        )
    return _FORMATS[said]


def _doubts(header: Header) -> tuple[str, ...]:
    """Return what is worth a warning."""
    doubts = []
    if header.virtual_size % SECTOR_SIZE:
        doubts.append(
            f"the virtual size, {header.virtual_size} bytes, is no multiple of {SECTOR_SIZE}"
        )
    if header.incompatible & DIRTY:
        doubts.append("its writer did not close the image: what it wrote last may be missing")
    if header.incompatible & CORRUPT:
        doubts.append("its writer marked the image as corrupt: check it with `qemu-img check`")
    if header.snapshots:
        doubts.append(
            f"the image has {header.snapshots} internal snapshots: only its active state is read"
        )
    return tuple(doubts)


def _close_all(opened: Sequence[Closable]) -> None:
    for each in opened:
        with suppress(ImagingError):
            each.close()
