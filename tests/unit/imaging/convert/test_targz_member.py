"""One gzip member in all, going on in the middle, and reading pieces back."""

import gzip
import io
import random
import tarfile
import zlib
from dataclasses import replace

import pytest

from imaging.convert.archive import ArchivePiece, Differs
from imaging.convert.ordered import copy_ordered
from imaging.convert.targz import TarGzSink, TarGzState
from imaging.convert.targz_check import TarGzCheck
from imaging.device import read_bytes
from imaging.digest import DigestBuilder
from imaging.memory import MemoryDevice
from imaging.units import GiB, KiB, MiB
from tests.support.sinks import OPTIONS


class Growing:
    """A file in memory that only grows."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.cuts: list[int] = []

    def write(self, offset: int, data: bytes) -> None:
        assert offset == len(self.data)
        self.data += data

    def flush(self) -> None:
        return None


@pytest.fixture(scope="module")
def disk() -> MemoryDevice:
    rng = random.Random(3)
    device = MemoryDevice(25 * MiB + 512)
    for offset, length in ((0, MiB), (5 * MiB + 64 * KiB, 7 * MiB), (25 * MiB, 512)):
        device.write(offset, rng.randbytes(length // 2) + bytes(length - length // 2))
    return device


def options_for(disk: MemoryDevice, *, one_member: bool):
    return replace(OPTIONS, extents=disk.extents(0, disk.size), one_member=one_member)


def packed(disk, *, one_member: bool):
    """Return (file, digest, state and place after every unit)."""
    file, digest = Growing(), DigestBuilder(disk.size)
    sink = TarGzSink(file, GiB, options_for(disk, one_member=one_member))
    seen: list[tuple[int, TarGzState]] = []
    append = sink.append

    def noted(offset, encoded):
        append(offset, encoded)
        seen.append((offset + sink.unit, sink.state))

    sink.append = noted
    copy_ordered(disk, sink, digest=digest, threads=2)
    sink.finish()
    return file, digest, seen, sink


@pytest.mark.parametrize("one_member", [True, False])
def test_tar_reads_the_disk(disk: MemoryDevice, one_member: bool) -> None:
    file, *_ = packed(disk, one_member=one_member)
    with tarfile.open(fileobj=io.BytesIO(bytes(file.data)), mode="r:gz") as archive:
        member = archive.next()
        assert (member.name, member.size) == ("disk.raw", GiB)
        reader = archive.extractfile(member)
        assert reader.read(disk.size) == read_bytes(disk, 0, disk.size)
        while rest := reader.read(64 * MiB):
            assert not rest.strip(b"\0")


def test_one_member_is_one(disk: MemoryDevice) -> None:
    file, *_ = packed(disk, one_member=True)
    inflate = zlib.decompressobj(31)
    inflate.decompress(bytes(file.data))
    assert inflate.eof
    assert inflate.unused_data == b""
    gzip.decompress(bytes(file.data))  # its own CRC and length hold


@pytest.mark.parametrize("one_member", [True, False])
def test_going_on_behind_any_unit_gives_the_same_bytes(
    disk: MemoryDevice, one_member: bool
) -> None:
    whole, _digest, seen, _ = packed(disk, one_member=one_member)
    for at, state in seen:
        file = Growing(whole.data[: state.file_size])
        again = DigestBuilder(disk.size)
        sink = TarGzSink(file, GiB, options_for(disk, one_member=one_member), state=state)
        copy_ordered(disk, sink, digest=again, threads=1, start=min(at, disk.size))
        sink.finish()
        assert file.data == whole.data


def pieces_of(file, seen):
    """Cut an archive at every second unit; return [(piece, bytes)]."""
    cuts = [(0, 0), *((at, state.file_size) for at, state in seen[1::2])]
    ends = [*cuts[1:], (GiB, len(file.data))]
    return [
        (ArchivePiece(start, end, start == 0, end == GiB), bytes(file.data[begin:stop]))
        for (start, begin), (end, stop) in zip(cuts, ends, strict=True)
        if end > start
    ]


@pytest.mark.parametrize("one_member", [True, False])
def test_pieces_read_back_are_the_disk(disk: MemoryDevice, one_member: bool) -> None:
    file, digest, seen, sink = packed(disk, one_member=one_member)
    check = TarGzCheck(sink.map, GiB, digest, one_member=one_member)
    compared = sum(check.check(piece, data) for piece, data in pieces_of(file, seen))
    assert compared == digest.count_data()


@pytest.mark.parametrize("one_member", [True, False])
def test_no_changed_byte_of_a_piece_goes_unseen(disk: MemoryDevice, one_member: bool) -> None:
    """Only the trailer of the one member is left to the object's CRC."""
    file, digest, seen, sink = packed(disk, one_member=one_member)
    check = TarGzCheck(sink.map, GiB, digest, one_member=one_member)
    rng = random.Random(9)
    pieces = [(piece, data) for piece, data in pieces_of(file, seen) if len(data) > 8]
    for _ in range(120):
        piece, data = rng.choice(pieces)
        at = rng.randrange(len(data) - 8)
        damaged = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        try:
            check.check(piece, damaged)
        except Differs:
            continue
        inflated = b"".join(check._inflated(piece, damaged))
        assert inflated == b"".join(check._inflated(piece, data))  # a bit that nobody reads


@pytest.mark.parametrize("change", ["short", "long", "swapped"])
def test_pieces_of_another_length_or_place_differ(disk: MemoryDevice, change: str) -> None:
    file, digest, seen, sink = packed(disk, one_member=False)
    check = TarGzCheck(sink.map, GiB, digest, one_member=False)
    (first, data), (_second, other), *_ = pieces_of(file, seen)
    wrong = {"short": data[:-9], "long": data + other, "swapped": other}[change]
    with pytest.raises(Differs):
        check.check(first, wrong)


def test_data_that_the_archive_has_no_place_for_is_a_difference(disk: MemoryDevice) -> None:
    """The map was made of fewer ranges than the source has data: those would silently be zeros."""
    fewer = MemoryDevice(disk.size)
    fewer.write(0, read_bytes(disk, 0, MiB))
    file, _, seen, sink = packed(fewer, one_member=True)
    _, digest, _, _ = packed(disk, one_member=True)
    check = TarGzCheck(sink.map, GiB, digest, one_member=True)
    pieces = pieces_of(file, seen)
    with pytest.raises(Differs, match="blocks of data"):
        assert [check.check(piece, data) for piece, data in pieces] == []
