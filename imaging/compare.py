"""Compare two devices bit by bit with several threads; reads only what is data on either side. Knows no image format.

The shorter device is taken to go on in zeros: whether that may count as equal is the caller's to say.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from imaging.device import BlockDevice
from imaging.errors import Stopped
from imaging.extent import Extent, Kind
from imaging.units import KiB
from imaging.workers import run_workers

_PIECE = 512 * KiB
"""Bytes read and compared at a time: both buffers of a thread stay in the processor's cache."""
_RUN_PIECES = 8
"""Pieces that a worker takes at a time: locks stay rare, work stays evenly spread."""
_ZEROS = bytes(_PIECE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found.

    Attributes:
        size_a: Bytes of the first device.
        size_b: Bytes of the second.
        first_difference: Offset of the first byte that differs; None: there is none.
    """

    size_a: int
    size_b: int
    first_difference: int | None


class Piece(NamedTuple):
    """A range to compare, at most 512 KiB; a side that is not data there is zeros and not read."""

    offset: int
    length: int
    is_data_a: bool
    is_data_b: bool


def compare_devices(
    a: BlockDevice,
    b: BlockDevice,
    *,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int = 2,
) -> Comparison:
    """Compare until the first difference. Blocking.

    Memory: two buffers of 512 KiB a thread.

    Args:
        a: Read from several threads at once, as its contract allows.
        b: The same.
        progress: Called with the bytes finished since the last call, what was not read included, up to the larger
            size; from any worker, one call at a time.
        stop: Polled before every 4 MiB; answering true ends the work.
        threads: Workers; more than two gain nothing, reading is what takes the time.

    Raises:
        Stopped: `stop` answered true.
        ImagingError: A device failed.
    """
    work = _Work(a, b, progress, stop)
    run_workers(work.run, count=threads, name="compare", abort=work.abort)
    return Comparison(a.size, b.size, work.first_difference)


def pieces(a: BlockDevice, b: BlockDevice) -> Iterator[Piece]:
    """List in order what has to be read to compare two devices; what is data on neither side is left out."""
    size = max(a.size, b.size)
    sides = [_prolonged(device, size) for device in (a, b)]
    left, right = (next(side, None) for side in sides)
    offset = 0
    while left is not None and right is not None:
        end = min(left.end, right.end)
        if left.is_data or right.is_data:
            for start in range(offset, end, _PIECE):
                length = min(_PIECE, end - start)
                yield Piece(start, length, left.is_data, right.is_data)
        offset = end
        left = next(sides[0], None) if left.end == end else left
        right = next(sides[1], None) if right.end == end else right


def _prolonged(device: BlockDevice, size: int) -> Iterator[Extent]:
    """Yield a device's extents, and behind its end a hole up to `size`."""
    yield from device.extents(0, device.size)
    if device.size < size:
        yield Extent(device.size, size - device.size, Kind.HOLE)


class _Work:
    """What the workers share: the pieces to compare, guarded by one lock, and the first difference so far.

    Pieces are handed out in order, and none behind a difference: what is smaller was handed out before, and its
    worker finishes it, so that the smallest difference that was found is the first one.
    """

    def __init__(
        self,
        a: BlockDevice,
        b: BlockDevice,
        progress: Callable[[int], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.first_difference: int | None = None
        self._a = a
        self._b = b
        self._pieces = pieces(a, b)
        self._lock = threading.Lock()
        self._progress = progress
        self._reported = 0
        self._stop = stop
        self._aborted = False

    def abort(self) -> None:
        """Make every worker end after the pieces it is busy with."""
        self._aborted = True

    def run(self) -> None:
        """Work until nothing is left or a difference lies before it; one call a thread."""
        buffers = bytearray(_PIECE), bytearray(_PIECE)
        while run := self._next():
            for piece in run:
                found = self._compare(piece, *buffers)
                if found is not None:
                    self._note(found)
                    break

    def _next(self) -> list[Piece]:
        with self._lock:
            if self._aborted or self.first_difference is not None:
                return []
            if self._stop is not None and self._stop():
                raise Stopped("the comparison was stopped before it was complete")
            run = [piece for _, piece in zip(range(_RUN_PIECES), self._pieces, strict=False)]
            self._report(run[-1].offset if run else max(self._a.size, self._b.size))
            return run

    def _report(self, position: int) -> None:
        """Tell that everything before `position` is in work or done: near enough for a line on a screen."""
        if self._progress is not None and position > self._reported:
            self._progress(position - self._reported)
            self._reported = position

    def _note(self, offset: int) -> None:
        with self._lock:
            if self.first_difference is None or offset < self.first_difference:
                self.first_difference = offset

    def _compare(self, piece: Piece, one: bytearray, two: bytearray) -> int | None:
        """Return the offset of the first difference in a piece."""
        length = piece.length
        left = _content(self._a, piece, one) if piece.is_data_a else _ZEROS
        right = _content(self._b, piece, two) if piece.is_data_b else _ZEROS
        if left == right if length == _PIECE else left[:length] == right[:length]:
            return None
        return piece.offset + first_difference(left[:length], right[:length])


def _content(device: BlockDevice, piece: Piece, buffer: bytearray) -> bytearray:
    with memoryview(buffer) as view:
        device.read_into(piece.offset, view[: piece.length])
    return buffer


def first_difference(left: bytes | bytearray, right: bytes | bytearray) -> int:
    """Return the index of the first byte in which two unequal strings of one length differ."""
    start, length = 0, len(left)
    while length > 1:
        half = length // 2
        if left[start : start + half] == right[start : start + half]:
            start, length = start + half, length - half
        else:
            length = half
    return start
