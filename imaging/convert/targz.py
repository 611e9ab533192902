"""Write the tar.gz that Google Cloud makes an image of: one sparse member, disk.raw, a multiple of 1 GiB long.

What `tar --format=oldgnu -Sczf` makes (Compute Engine's "Manually import boot disks"), but as one gzip member for each
unit of the disk, so that several threads compress. Knows no thread; of the source it knows where its data are, because
the map of a sparse member comes before the data.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from imaging.convert.archive import Appendable, State
from imaging.convert.options import Options
from imaging.errors import DeviceIOError
from imaging.extent import Extent
from imaging.formats.tar.build import build_end, build_sparse_header
from imaging.gzipping import Gzip, GzipState, ManyMembers, OneMember, Piece, joined
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


@dataclass(frozen=True, slots=True)
class TarGzState:
    """How far an archive is, behind a whole unit: what `TarGzSink` needs to go on.

    Attributes:
        file_size: Bytes of the file.
        crc / length: Of the archive inside it, as in GzipState.
    """

    file_size: int
    crc: int
    length: int


class TarGzSink:
    """An OrderedSink; memory: the map (`SparseMap`). The same disk gives the same bytes, with the same options."""

    unit = 2 * MiB

    def __init__(
        self, file: Appendable, size: int, options: Options, *, state: TarGzState | None = None
    ) -> None:
        """Begin the archive of a disk of `size` bytes, a multiple of 1 GiB; or go on behind `state`."""
        self._file = file
        self._size = size
        self._gzip: Gzip = OneMember() if options.one_member else ManyMembers(options.level)
        self.map = SparseMap(options.extents)
        self._file_size = state.file_size if state else 0
        self._joined = GzipState(state.crc, state.length) if state else GzipState()
        if state is None:
            self._write(self._gzip.begin)
            for header in headers_of(self.map, size):
                self._append(self._gzip.pack(header))

    @property
    def state(self) -> TarGzState:
        """How far it is; between two calls of `append`."""
        return TarGzState(self._file_size, self._joined.crc, self._joined.length)

    def take_state(self) -> State:
        """Return what `TarGzState` is made of."""
        return (self._file_size, self._joined.crc, self._joined.length)

    def encode(self, offset: int, data: memoryview | None) -> Sequence[Piece]:
        """Compress what the map has of one unit; zeros behind the disk's end fill its last range.

        Raises:
            DeviceIOError: There are data where the source had none when the map was made.
        """
        view = memoryview(b"") if data is None else data
        parts: list[bytes | memoryview] = []
        done = 0
        for at, length in self.map.inside(offset, self.unit):
            _require_zeros(view[done:at], offset + done)
            part = view[at : at + length]
            parts += [part, bytes(length - len(part))]
            done = at + length
        _require_zeros(view[done:], offset + done)
        return (self._gzip.pack(b"".join(parts)),) if parts else ()

    def append(self, offset: int, encoded: Sequence[Piece]) -> None:  # noqa: ARG002
        """Write what one unit became."""
        for piece in encoded:
            self._append(piece)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._append(self._gzip.pack(build_end(self._joined.length)))
        self._write(self._gzip.end(self._joined))
        self._file.flush()

    def _append(self, piece: Piece) -> None:
        self._joined = joined(self._joined, piece)
        self._write(piece.data)

    def _write(self, data: bytes) -> None:
        if data:
            self._file.write(self._file_size, data)
            self._file_size += len(data)


def headers_of(sparse: SparseMap, size: int) -> Iterator[bytes]:
    """Yield the member's header and map in pieces of up to a MiB."""
    stored = sum(length for _, length in sparse)
    blocks = build_sparse_header(_MEMBER, sparse, len(sparse), stored=stored, real_size=size)
    while header := b"".join(islice(blocks, MiB // SECTOR_SIZE)):
        yield header


def _require_zeros(part: memoryview, offset: int) -> None:
    # As bytes: a memoryview compares element by element.
    if bytes(part) != bytes(len(part)):
        raise DeviceIOError(
            f"data appeared in a hole of the source at byte {offset}: somebody is writing to it",
            offset=offset,
        )
