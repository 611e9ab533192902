"""DiskImage: what every image format offers, a BlockDevice that also describes itself; opens nothing."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from imaging.bounds import require_range
from imaging.device import BlockDevice
from imaging.errors import DeviceClosed, DeviceIOError, ReadOnlyDevice
from imaging.extent import Extent, clip, coalesce


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image file says about itself.

    Attributes:
        format: "raw", "vhd", "vhdx", "vmdk", "ova", "qcow2".
        subformat: "fixed", "dynamic", "differencing", a VMDK's createType, "v2", "v3"; "" where a format has only one.
        virtual_size: Bytes that a guest sees.
        file_size: Bytes of the image file.
        block_size: Allocation unit in bytes, 0 where there is none.
        sector_size: Logical sector that the guest sees, in bytes.
        parent: Name of the parent image, None if the image stands alone.
        dirty: Whether its writer did not close it.
        warnings: What an administrator should know, as sentences.
    """

    format: str
    subformat: str
    virtual_size: int
    file_size: int
    block_size: int
    sector_size: int = 512
    parent: str | None = None
    dirty: bool = False
    warnings: tuple[str, ...] = ()


class Closable(Protocol):
    """Whatever an image opened for itself."""

    def close(self) -> None:
        """Release it. May be called twice."""
        ...


class DiskImage(BlockDevice, Protocol):
    """The disk inside an image file, read-only unless it was opened as writable. Closing it leaves the file below open.

    All metadata has been checked by the time it is made: reading cannot meet a bad offset. Only tables that are too
    many or too long to read at once (L2 tables of qcow2, a BAT of VHDX above 1 MiB) are checked when they are met:
    reading and `extents` may then raise `InvalidImage`.
    """

    @property
    def info(self) -> ImageInfo:
        """What the image says about itself."""
        ...


class BaseImage(ABC):
    """What all images share: the checks of the BlockDevice contract round two methods of the format. Read-only.

    A format implements `_read_into` and `_extents`; both may assume a range inside the disk, and
    `_extents` may answer more than it was asked for, but in order and without gaps.
    """

    def __init__(
        self, file: BlockDevice, info: ImageInfo, *, owned: Sequence[Closable] = ()
    ) -> None:
        """Describe the disk in `file`; `owned` (parents, extents) is closed with the image."""
        self._file = file
        self._info = info
        self._owned = owned
        self._closed = False

    @property
    def info(self) -> ImageInfo:
        """What the image says about itself."""
        return self._info

    @property
    def size(self) -> int:
        """The virtual size in bytes."""
        return self._info.virtual_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset` of the virtual disk."""
        self._require_open()
        require_range(offset, len(buffer), self.size)
        self._read_into(offset, buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe the window of the virtual disk, lazily."""
        self._require_open()
        require_range(offset, length, self.size)
        return coalesce(clip(self._extents(offset, length), offset, length))

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Refuse: images are opened for reading."""
        self._refuse(f"write {len(data)} bytes at {offset}")

    def zero(self, offset: int, length: int) -> None:
        """Refuse: images are opened for reading."""
        self._refuse(f"zero {length} bytes at {offset}")

    def flush(self) -> None:
        """Refuse: images are opened for reading."""
        self._refuse("flush")

    def close(self) -> None:
        """Refuse every further call; the file below stays open, what lies beside it is closed."""
        self._closed = True
        for each in self._owned:
            each.close()

    @abstractmethod
    def _read_into(self, offset: int, buffer: memoryview) -> None: ...

    @abstractmethod
    def _extents(self, offset: int, length: int) -> Iterator[Extent]: ...

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceClosed(f"the {self._info.format} image is closed")

    def _refuse(self, what: str) -> NoReturn:
        self._require_open()
        raise ReadOnlyDevice(f"cannot {what}: the {self._info.format} image is read-only")


class WritableImage(BaseImage):
    """What images share that are written in place, by one thread: three more methods of the format.

    `_write` and `_zero` may assume a range inside the disk that is not empty. `_flush` makes all of it durable, in an
    order that leaves a sound image at every moment. `close` does not flush: what was not flushed may be there or not.

    A flush that failed is never tried again: the system may have dropped what it could not write, and call the next
    flush a success. From then on the image is only read.
    """

    _failed = False

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset` of the virtual disk."""
        self._require_sound()
        require_range(offset, len(data), self.size)
        if len(data):
            self._write(offset, memoryview(data))

    def zero(self, offset: int, length: int) -> None:
        """Make a range of the virtual disk read as zeros, as a hole where the format can."""
        self._require_sound()
        require_range(offset, length, self.size)
        if length:
            self._zero(offset, length)

    def flush(self) -> None:
        """Make everything written so far survive power loss."""
        self._require_sound()
        self._make_durable()

    def _make_durable(self) -> None:
        self._failed = True  # unless all of it succeeds
        self._flush()
        self._failed = False

    def _require_sound(self) -> None:
        self._require_open()
        if self._failed:
            raise DeviceIOError(
                f"a flush of the {self._info.format} image failed: what of it is durable is not known, open it anew"
            )

    @abstractmethod
    def _write(self, offset: int, data: memoryview) -> None: ...

    @abstractmethod
    def _zero(self, offset: int, length: int) -> None: ...

    @abstractmethod
    def _flush(self) -> None: ...
