"""The registry of what `convert` writes: "FORMAT[:SUBFORMAT]" -> its sink and sizes. Writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from imaging.convert.options import Options
from imaging.convert.sink import OrderedSink, RandomSink
from imaging.errors import DiskTooLarge, UnsupportedImage
from imaging.formats.signatures import MAX_DYNAMIC_VHD, MAX_VIRTUAL_SIZE
from imaging.late import load
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE, GiB, round_up

Sink = RandomSink | OrderedSink
Maker = Callable[[OutputFile, int, Options], Sink]


@dataclass(frozen=True, slots=True)
class Target:
    """One way of writing a disk.

    Attributes:
        sink: The sink's class, as "module:name" below `imaging.convert`; it is imported when it is first made.
        unit: The virtual size must be a multiple of this; 1: it may be anything.
        limit: The largest virtual size in bytes; None: what the file system takes.
        is_stream: Compressed, from its beginning to its end: it has a level, and cannot be resumed.
    """

    sink: str
    unit: int = SECTOR_SIZE
    limit: int | None = None
    is_stream: bool = False

    def make(self, file: OutputFile, size: int, options: Options) -> Sink:
        """Begin a disk of `size` bytes, as `padded_size` returned it, in an empty file."""
        make: Maker = load(f"imaging.convert.{self.sink}")
        return make(file, size, options)

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
    "raw": Target("flat:RawSink", unit=1),
    "vhd:fixed": Target("flat:FixedVhdSink", limit=MAX_VIRTUAL_SIZE),
    "vhd:dynamic": Target("vhd:DynamicVhdSink", limit=MAX_DYNAMIC_VHD),
    "vhdx:dynamic": Target("vhdx:DynamicVhdxSink", limit=MAX_VIRTUAL_SIZE),
    "vhdx:fixed": Target("vhdx:FixedVhdxSink", limit=MAX_VIRTUAL_SIZE),
    "vmdk:streamOptimized": Target(
        "vmdk_stream:StreamOptimizedSink", limit=MAX_VIRTUAL_SIZE, is_stream=True
    ),
    "vmdk:monolithicSparse": Target("vmdk_sparse:MonolithicSparseSink", limit=MAX_VIRTUAL_SIZE),
    "targz": Target("targz:TarGzSink", unit=GiB, is_stream=True),
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
