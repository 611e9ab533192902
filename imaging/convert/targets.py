"""The registry of what `convert` writes: "FORMAT[:SUBFORMAT]" -> its sink and sizes. Writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from imaging.convert.flat import FixedVhdSink, RawSink
from imaging.convert.options import Options
from imaging.convert.sink import OrderedSink, RandomSink
from imaging.convert.targz import TarGzSink
from imaging.convert.vhd import DynamicVhdSink
from imaging.convert.vhdx import DynamicVhdxSink, FixedVhdxSink
from imaging.convert.vmdk_sparse import MonolithicSparseSink
from imaging.convert.vmdk_stream import StreamOptimizedSink
from imaging.errors import DiskTooLarge, UnsupportedImage
from imaging.formats.vhd import layout as vhd_layout
from imaging.formats.vhdx import layout as vhdx_layout
from imaging.formats.vmdk import build as vmdk_build
from imaging.newfile import NewFile
from imaging.units import SECTOR_SIZE, GiB, round_up

Sink = RandomSink | OrderedSink


@dataclass(frozen=True, slots=True)
class Target:
    """One way of writing a disk.

    Attributes:
        make: (empty file, virtual size, options) -> the sink; what `padded_size` returned is a size that it takes.
        unit: The virtual size must be a multiple of this; 1: it may be anything.
        limit: The largest virtual size in bytes; None: what the file system takes.
    """

    make: Callable[[NewFile, int, Options], Sink]
    unit: int = SECTOR_SIZE
    limit: int | None = None

    def padded_size(self, size: int, *, sector_size: int) -> int:
        """Return the virtual size that a disk of `size` bytes gets: never less.

        Raises:
            DiskTooLarge: The format has no such disk.
        """
        size = size if self.unit == 1 else round_up(size, max(self.unit, sector_size))
        if self.limit is not None and size > self.limit:
            raise DiskTooLarge(
                f"a disk of {size} bytes is larger than the format takes, {self.limit} bytes",
                size=size,
                limit=self.limit,
            )
        return size


TARGETS = {
    "raw": Target(RawSink, unit=1),
    "vhd:fixed": Target(FixedVhdSink, limit=vhd_layout.MAX_VIRTUAL_SIZE),
    "vhd:dynamic": Target(DynamicVhdSink, limit=vhd_layout.MAX_DYNAMIC_SIZE),
    "vhdx:dynamic": Target(DynamicVhdxSink, limit=vhdx_layout.MAX_VIRTUAL_SIZE),
    "vhdx:fixed": Target(FixedVhdxSink, limit=vhdx_layout.MAX_VIRTUAL_SIZE),
    "vmdk:streamOptimized": Target(StreamOptimizedSink, limit=vmdk_build.MAX_VIRTUAL_SIZE),
    "vmdk:monolithicSparse": Target(MonolithicSparseSink, limit=vmdk_build.MAX_VIRTUAL_SIZE),
    "targz": Target(TarGzSink, unit=GiB),
}
_DEFAULTS = {"vhd": "vhd:dynamic", "vhdx": "vhdx:dynamic", "vmdk": "vmdk:streamOptimized"}
"""What a format alone means: the subformat that every one of its readers takes and that is no larger than its data."""


def target_name(name: str) -> str:
    """Return the full name of a target.

    Raises:
        UnsupportedImage: There is none; the message lists those that are.
    """
    full = _DEFAULTS.get(name, name)
    if full not in TARGETS:
        raise UnsupportedImage(f"{name!r} is none of {', '.join(TARGETS)}", found=name)
    return full
