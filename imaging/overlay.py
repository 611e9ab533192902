"""OverlayDevice: changes in memory over a device that is never written; for few and small changes."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from imaging.bounds import require_behind, require_range
from imaging.device import BlockDevice
from imaging.errors import DeviceClosed
from imaging.extent import Extent, Kind, coalesce


@dataclass(frozen=True, slots=True)
class _Patch:
    """A changed range: its bytes, or None where it reads as zeros."""

    offset: int
    end: int
    content: bytes | None

    def cut(self, offset: int, end: int) -> "_Patch":
        """Return the part in [offset, end)."""
        start, stop = max(offset, self.offset), min(end, self.end)
        if self.content is None:
            return _Patch(start, stop, None)
        return _Patch(start, stop, self.content[start - self.offset : stop - self.offset])


class OverlayDevice:
    """Reads come from the changes first, from the base second, and are zeros behind the base's end.

    Memory: the written bytes. Closing it forgets the changes and leaves the base open.
    """

    def __init__(self, base: BlockDevice, *, size: int | None = None) -> None:
        """Lay an empty overlay over `base`; it may be longer than the base, never shorter."""
        self._base = base
        self._size = max(base.size, base.size if size is None else size)
        self._patches: list[_Patch] = []  # by offset, never overlapping
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes of the device."""
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes at `offset`."""
        self._require_open(offset, len(buffer))
        position, end = offset, offset + len(buffer)
        for patch in self._touching(offset, end):
            part = patch.cut(offset, end)
            self._read_base(position, buffer[position - offset : part.offset - offset])
            target = buffer[part.offset - offset : part.end - offset]
            target[:] = bytes(len(target)) if part.content is None else part.content
            position = part.end
        self._read_base(position, buffer[position - offset :])

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Keep a copy of `data` as the content at `offset`."""
        self._require_open(offset, len(data))
        self._put(_Patch(offset, offset + len(data), bytes(data)))

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros; costs no memory, however long it is."""
        self._require_open(offset, length)
        self._put(_Patch(offset, offset + length, None))

    def truncate(self, size: int) -> None:
        """Cut the end off, or add zeros: the base's bytes behind a cut do not come back."""
        self._require_open(0, 0)
        first, last = sorted((size, self._size))
        self._put(_Patch(first, max(last, self._base.size), None))
        self._size = size

    def append(self, offset: int, data: bytes) -> None:
        """Grow, and end with `data`."""
        require_behind(offset, self.size)
        self.truncate(offset + len(data))
        self.write(offset, data)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Describe the window: changes are data or zeros, the rest is as the base says."""
        self._require_open(offset, length)
        return coalesce(self._extents(offset, offset + length))

    def flush(self) -> None:
        """Do nothing: the changes live in memory only."""
        self._require_open(0, 0)

    def close(self) -> None:
        """Forget the changes; the base stays open."""
        self._closed = True
        self._patches.clear()

    def follow(self) -> None:
        """Become as long as the base, which has grown, and show what it holds there."""
        self._size = max(self._size, self._base.size)

    def changes(self) -> Iterator[tuple[int, int, bytes | None]]:
        """Yield what was changed, in order: (offset, length, its bytes or None where it reads as zeros)."""
        for patch in self._patches:
            yield patch.offset, patch.end - patch.offset, patch.content

    def clear(self) -> None:
        """Forget the changes: the base is what is read again. What is behind its end reads as zeros."""
        self._patches.clear()

    def _put(self, new: _Patch) -> None:
        if new.offset == new.end:
            return
        first = bisect_right(self._patches, new.offset, key=lambda patch: patch.end)
        last = bisect_left(self._patches, new.end, key=lambda patch: patch.offset)
        kept = [new]
        for old in self._patches[first:last]:
            if old.offset < new.offset:
                kept.insert(0, old.cut(old.offset, new.offset))
            if old.end > new.end:
                kept.append(old.cut(new.end, old.end))
        self._patches[first:last] = kept

    def _touching(self, offset: int, end: int) -> list[_Patch]:
        if offset == end:
            return []
        first = bisect_right(self._patches, offset, key=lambda patch: patch.end)
        last = bisect_left(self._patches, end, key=lambda patch: patch.offset)
        return self._patches[first:last]

    def _read_base(self, offset: int, buffer: memoryview) -> None:
        length = max(0, min(len(buffer), self._base.size - offset))
        if length:
            self._base.read_into(offset, buffer[:length])
        buffer[length:] = bytes(len(buffer) - length)

    def _extents(self, position: int, end: int) -> Iterator[Extent]:
        for patch in self._touching(position, end):
            yield from self._base_extents(position, patch.offset)
            kind = Kind.ZERO if patch.content is None else Kind.DATA
            part = patch.cut(position, end)
            yield Extent(part.offset, part.end - part.offset, kind)
            position = patch.end
        yield from self._base_extents(position, end)

    def _base_extents(self, offset: int, end: int) -> Iterator[Extent]:
        inside = min(end, self._base.size)
        if offset < inside:
            yield from self._base.extents(offset, inside - offset)
        if max(offset, inside) < end:
            start = max(offset, inside)
            yield Extent(start, end - start, Kind.HOLE)

    def _require_open(self, offset: int, length: int) -> None:
        if self._closed:
            raise DeviceClosed("the overlay is closed")
        require_range(offset, length, self._size)
