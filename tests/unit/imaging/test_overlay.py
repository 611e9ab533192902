"""OverlayDevice against a plain bytearray, under any mix of writes and zeros."""

from hypothesis import given
from hypothesis import strategies as st

from imaging.device import read_bytes
from imaging.memory import MemoryDevice
from imaging.overlay import OverlayDevice

BASE, SIZE = bytes(range(1, 61)), 80
change = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), st.booleans())


@given(st.lists(st.tuples(st.integers(0, SIZE), st.booleans()), max_size=8))
def test_a_cut_end_does_not_come_back(steps: list[tuple[int, bool]]) -> None:
    overlay, model = OverlayDevice(MemoryDevice(BASE, read_only=True)), bytearray(BASE)
    for number, (size, then_write) in enumerate(steps):
        overlay.truncate(size)
        model = bytearray(model[:size].ljust(size, b"\0"))
        if then_write and size:
            overlay.write(size - 1, bytes([100 + number]))
            model[-1] = 100 + number
        assert overlay.size == size
        assert read_bytes(overlay, 0, size) == bytes(model)


@given(st.lists(change, max_size=25), st.integers(0, SIZE), st.integers(0, SIZE))
def test_reads_like_a_copy_that_was_changed(
    changes: list[tuple[int, int, bool]], one: int, two: int
) -> None:
    base = MemoryDevice(BASE, read_only=True)
    overlay, model = OverlayDevice(base, size=SIZE), bytearray(BASE.ljust(SIZE, b"\0"))
    for number, (start, stop, is_zero) in enumerate(changes):
        offset, length = min(start, stop), abs(start - stop)
        if is_zero:
            overlay.zero(offset, length)
            model[offset : offset + length] = bytes(length)
        else:
            overlay.write(offset, bytes([100 + number]) * length)
            model[offset : offset + length] = bytes([100 + number]) * length
    assert read_bytes(overlay, 0, SIZE) == bytes(model)
    offset, length = min(one, two), abs(one - two)
    assert read_bytes(overlay, offset, length) == bytes(model[offset : offset + length])
    position = offset
    for extent in overlay.extents(offset, length):
        assert extent.offset == position
        if not extent.is_data:
            assert not any(model[extent.offset : extent.end])
        position = extent.end
    assert position == offset + length
    assert read_bytes(base, 0, len(BASE)) == BASE


def test_follows_a_base_that_has_grown() -> None:
    base = MemoryDevice(b"base")
    overlay = OverlayDevice(base)
    overlay.write(0, b"B")
    base.truncate(6)
    base.write(4, b"ss")
    overlay.follow()
    assert read_bytes(overlay, 0, 6) == b"Basess"


def test_written_buffers_are_copied() -> None:
    overlay, buffer = OverlayDevice(MemoryDevice(8)), bytearray(b"before")
    overlay.write(0, memoryview(buffer))
    buffer[:] = b"after!"
    assert read_bytes(overlay, 0, 6) == b"before"


def test_is_never_shorter_than_its_base() -> None:
    assert OverlayDevice(MemoryDevice(8), size=4).size == 8
