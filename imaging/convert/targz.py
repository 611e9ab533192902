"""Write the tar.gz that Google Cloud makes an image of: one sparse member, disk.raw, a multiple of 1 GiB long.

What `tar --format=oldgnu -Sczf` makes (Compute Engine's "Manually import boot disks"), but as one gzip member for each
unit of the disk, so that several threads compress. Knows no thread; of the source it knows where its data are, because
the map of a sparse member comes before the data.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from imaging.convert.options import Options
from imaging.deflate import gzip_compressor
from imaging.errors import DeviceIOError
from imaging.extent import Extent
from imaging.formats.tar.build import build_end, build_sparse_header
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE, KiB, MiB, round_up

_ALIGNMENT = 64 * KiB
"""Data begin and end at multiples of this."""
_MIN_HOLE = 1 * MiB
"""Shorter holes are stored as zeros, which compress a thousandfold: the map has an entry a MiB at most."""
_MEMBER = "disk.raw"
"""Compute Engine takes no other name."""


class SparseMap:
    """The ranges of a disk that are stored, in order. Memory: 16 bytes a range."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        """Round and join the data extents of a disk."""
        self._starts = array("Q")
        self._ends = array("Q")
        for extent in extents:
            if not extent.is_data:
                continue
            start = extent.offset // _ALIGNMENT * _ALIGNMENT
            end = round_up(extent.end, _ALIGNMENT)
            if self._ends and start < self._ends[-1] + _MIN_HOLE:
                self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((start, end - start) for start, end in zip(self._starts, self._ends, strict=True))

    def inside(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield what a window has of the ranges, as (offset in the window, length)."""
        index, stop = bisect_right(self._ends, offset), offset + length
        while index < len(self._starts) and self._starts[index] < stop:
            start = max(self._starts[index], offset)
            yield start - offset, min(self._ends[index], stop) - start
            index += 1


class TarGzSink:
    """An OrderedSink; memory: the map (`SparseMap`). The same disk gives the same bytes, with the same options."""

    unit = 2 * MiB

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        """Begin the archive of a disk of `size` bytes, a multiple of 1 GiB, in an empty file."""
        self._file = file
        self._size = size
        self._compress = gzip_compressor(options.level)
        self._map = SparseMap(options.extents)
        self._file_size = 0
        self._archive_size = self._write_header()

    def encode(self, offset: int, data: memoryview | None) -> Sequence[bytes | memoryview]:
        """Compress what the map has of one unit; zeros behind the disk's end fill its last range.

        Raises:
            DeviceIOError: There are data where the source had none when the map was made.
        """
        view = memoryview(b"") if data is None else data
        parts: list[bytes | memoryview] = []
        done = 0
        for at, length in self._map.inside(offset, self.unit):
            _require_zeros(view[done:at], offset + done)
            part = view[at : at + length]
            parts += [part, bytes(length - len(part))]
            done = at + length
        _require_zeros(view[done:], offset + done)
        return (self._compress(b"".join(parts)),) if parts else ()

    def append(self, offset: int, encoded: Sequence[bytes | memoryview]) -> None:  # noqa: ARG002
        """Write one gzip member."""
        for member in encoded:
            self._file.write(self._file_size, member)
            self._file_size += len(member)

    def finish(self) -> None:
        """Write the end of the archive."""
        self.append(self._size, (self._compress(build_end(self._archive_size)),))
        self._file.flush()

    def _write_header(self) -> int:
        """Write the member's header and map; return the bytes of the archive up to its end."""
        size = stored = sum(length for _, length in self._map)
        blocks = build_sparse_header(
            _MEMBER, self._map, len(self._map), stored=stored, real_size=self._size
        )
        while header := b"".join(islice(blocks, MiB // SECTOR_SIZE)):
            self.append(0, (self._compress(header),))
            size += len(header)
        return size


def _require_zeros(part: memoryview, offset: int) -> None:
    # As bytes: a memoryview compares element by element.
    if bytes(part) != bytes(len(part)):
        raise DeviceIOError(
            f"data appeared in a hole of the source at byte {offset}: somebody is writing to it",
            offset=offset,
        )
