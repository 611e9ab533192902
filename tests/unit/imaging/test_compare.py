"""compare_devices: the first difference, exactly; what is read and what is not; sizes; endings."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.compare import Comparison, Piece, compare_devices, first_difference, pieces
from imaging.errors import DeviceIOError, Stopped
from imaging.extent import Extent
from imaging.memory import MemoryDevice
from tests.support.disks import KiB, MiB, pattern

pytestmark = pytest.mark.exhaustive

SIZE = 3 * MiB + 700


class Disk(MemoryDevice):
    """Remembers which ranges were read."""

    def __init__(self, size: int, parts: dict[int, bytes]) -> None:
        super().__init__(size)
        self.read: list[tuple[int, int]] = []
        for offset, data in parts.items():
            self.write(offset, data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.read.append((offset, len(buffer)))
        super().read_into(offset, buffer)


def disk(parts: dict[int, bytes] | None = None, *, size: int = SIZE) -> Disk:
    return Disk(size, {0: pattern(SIZE)[: min(SIZE, size)]} if parts is None else parts)


def test_equal_disks() -> None:
    assert compare_devices(disk(), disk()) == Comparison(SIZE, SIZE, None)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize(
    "places",
    [
        (0,),
        (SIZE - 1,),
        (512 * KiB - 1, 512 * KiB),
        (MiB + 5, MiB + 6),
        (2 * MiB, 100),
        (SIZE - 1, 1),
    ],
    ids=str,
)
def test_the_first_difference_is_found_whoever_finds_it(
    places: tuple[int, ...], threads: int
) -> None:
    other = bytearray(pattern(SIZE))
    for place in places:
        other[place] ^= 1
    for pair in ((disk(), disk({0: bytes(other)})), (disk({0: bytes(other)}), disk())):
        assert compare_devices(*pair, threads=threads).first_difference == min(places)


@pytest.mark.parametrize("last", [0, 4 * MiB], ids=["first", "second"])
def test_the_order_in_which_two_workers_find_differences_does_not_matter(last: int) -> None:
    """Each has 4 MiB in work; one waits until the other one had time to report the difference in its own."""
    both_at_work, reported = threading.Barrier(2), threading.Event()

    class Slow(Disk):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            both_at_work.wait(60)
            if offset == last:
                assert reported.wait(60)
            else:
                threading.Timer(0.05, reported.set).start()
            super().read_into(offset, buffer)

    slow = Slow(8 * MiB, {0: b"\1" * 8 * MiB})
    found = compare_devices(slow, Disk(8 * MiB, {0: b"\2" * 8 * MiB}), threads=2)
    assert found.first_difference == 0


def test_what_is_data_on_neither_side_is_not_read() -> None:
    a = disk({0: b"x" * 4096, 2 * MiB: b"y" * 4096})
    b = disk({0: b"x" * 4096, MiB: bytes(4096)})
    assert compare_devices(a, b).first_difference == 2 * MiB
    assert sorted(a.read) == [(0, 4096), (2 * MiB, 4096)]
    assert sorted(b.read) == [(0, 4096), (MiB, 4096)]


def test_zeros_that_were_written_are_equal_to_a_hole() -> None:
    assert compare_devices(disk({}), disk({0: bytes(SIZE)})).first_difference is None
    assert compare_devices(disk({0: bytes(SIZE)}), disk({})).first_difference is None


def test_a_longer_disk_is_equal_where_the_excess_is_zeros() -> None:
    longer = disk({0: pattern(SIZE), SIZE + MiB: bytes(MiB)}, size=SIZE + 3 * MiB)
    assert compare_devices(disk(), longer) == Comparison(SIZE, SIZE + 3 * MiB, None)
    assert compare_devices(longer, disk()) == Comparison(SIZE + 3 * MiB, SIZE, None)


def test_an_excess_that_is_not_zeros_differs_at_its_first_byte() -> None:
    longer = disk({0: pattern(SIZE), SIZE + MiB + 3: b"x"}, size=SIZE + 3 * MiB)
    assert compare_devices(disk(), longer).first_difference == SIZE + MiB + 3
    assert compare_devices(longer, disk()).first_difference == SIZE + MiB + 3


def test_nothing_is_read_far_behind_a_difference() -> None:
    a, b = Disk(32 * MiB, {0: b"\1" * 32 * MiB}), Disk(32 * MiB, {0: b"\2" * 32 * MiB})
    assert compare_devices(a, b, threads=1).first_difference == 0
    assert len(a.read) == 1


def test_progress_adds_up_to_the_larger_size() -> None:
    done: list[int] = []
    compare_devices(disk(), disk({0: pattern(SIZE)}, size=SIZE + 9), progress=done.append)
    assert sum(done) == SIZE + 9
    done.clear()
    compare_devices(disk({}), disk({}), progress=done.append)
    assert sum(done) == SIZE


def test_stop_ends_it() -> None:
    with pytest.raises(Stopped):
        compare_devices(disk(), disk(), stop=lambda: True)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_device_that_fails_is_no_difference(threads: int) -> None:
    class Failing(Disk):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            raise DeviceIOError("gone")

    with pytest.raises(DeviceIOError):
        compare_devices(disk(), Failing(SIZE, {0: pattern(SIZE)}), threads=threads)


def test_pieces_that_both_sides_cut_differently() -> None:
    a = disk({0: b"x" * 8192, MiB: b"x" * MiB}, size=2 * MiB)
    b = disk({4096: b"x" * 8192}, size=2 * MiB + 5)
    assert list(pieces(a, b)) == [
        Piece(0, 4096, is_data_a=True, is_data_b=False),
        Piece(4096, 4096, is_data_a=True, is_data_b=True),
        Piece(8192, 4096, is_data_a=False, is_data_b=True),
        Piece(MiB, 512 * KiB, is_data_a=True, is_data_b=False),
        Piece(MiB + 512 * KiB, 512 * KiB, is_data_a=True, is_data_b=False),
    ]


def test_a_device_whose_extents_fail_is_no_difference() -> None:
    class Failing(Disk):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            raise DeviceIOError("gone")

    with pytest.raises(DeviceIOError):
        compare_devices(disk(), Failing(SIZE, {}))


@given(st.binary(min_size=1, max_size=40), st.integers(0, 39), st.integers(1, 255))
def test_first_difference(content: bytes, place: int, change: int) -> None:
    place %= len(content)
    other = bytearray(content)
    other[place] ^= change
    other[place + 1 :] = bytes(len(content) - place - 1)
    assert first_difference(content, other) == place


parts = st.dictionaries(
    st.integers(0, 15), st.sampled_from([b"\1", b"\2", b"\0"]).map(lambda byte: byte * 4096)
)


@given(parts, parts, st.integers(1, 16), st.integers(1, 16))
def test_agrees_with_comparing_everything(one: dict, two: dict, pages: int, more: int) -> None:  # type: ignore[type-arg]
    made = []
    for chosen, size in ((one, pages * 4096), (two, more * 4096)):
        fitting = {page * 4096: data for page, data in chosen.items() if page * 4096 < size}
        made.append(Disk(size, fitting))
    longest = max(device.size for device in made)
    a, b = (bytes(device._bytes).ljust(longest, b"\0") for device in made)
    expected = next((i for i in range(longest) if a[i] != b[i]), None)
    assert compare_devices(*made, threads=2).first_difference == expected
