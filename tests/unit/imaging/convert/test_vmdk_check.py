"""A stream-optimized VMDK in pieces: each is held to the disk's digests, and no damaged byte passes."""

import random
from pathlib import PurePath

import pytest

from imaging.convert.archive import ArchivePiece, Differs
from imaging.convert.archives import VmdkArchive
from imaging.convert.ordered import copy_ordered
from imaging.device import read_bytes
from imaging.digest import DigestBuilder
from imaging.formats import open_image
from imaging.memory import MemoryDevice
from imaging.units import KiB, MiB

SIZE = 98 * MiB  # three whole tables and a bit
STEP = 8 * MiB
"""A quarter of what a grain table names."""


class Parts:
    """What the sink writes, cut where the test says."""

    path = PurePath("disk.vmdk")

    def __init__(self) -> None:
        self.pieces = [bytearray()]

    def write(self, offset: int, data) -> None:
        assert offset == sum(len(piece) for piece in self.pieces)
        self.pieces[-1] += data

    def flush(self) -> None: ...


@pytest.fixture(scope="module")
def made():
    disk = MemoryDevice(SIZE)
    rng = random.Random(3)
    disk.write(64 * KiB, rng.randbytes(96 * KiB))  # part of two grains
    disk.write(35 * MiB, rng.randbytes(2 * MiB))
    disk.write(SIZE - 512, b"\x01" * 512)
    digest, parts, states = DigestBuilder(SIZE), Parts(), []
    form = VmdkArchive()
    sink = form.sink(parts, SIZE, lambda: (), [])

    class Cutting:
        unit, encode = sink.unit, staticmethod(sink.encode)

        def append(self, offset, encoded):
            sink.append(offset, encoded)
            if (offset + sink.unit) % STEP == 0 and offset + sink.unit < SIZE:
                states.append(sink.take_state())
                parts.pieces.append(bytearray())

        def finish(self): ...

    copy_ordered(disk, Cutting(), digest=digest, threads=1)
    sink.finish()
    states.append(sink.take_state())
    return form.check(SIZE, lambda: (), states, digest), parts.pieces


def pieces_of(parts):
    offset = 0
    for number, data in enumerate(parts):
        start, end = number * STEP, min((number + 1) * STEP, SIZE)
        yield ArchivePiece(start, end, number == 0, number == len(parts) - 1, offset), bytes(data)
        offset += len(data)


def test_every_piece_is_the_disk(made) -> None:
    check, parts = made
    found = [check.check(piece, data) for piece, data in pieces_of(parts)]
    assert found == [1, 0, 0, 0, 4, *[0] * 7, 1]
    assert len(parts[1]) == 0
    assert len(parts[3]) == 2560  # where the first table ends, which has no grain of this piece


@pytest.mark.exhaustive
def test_no_flipped_bit_that_changes_the_disk_passes(made) -> None:
    """Deflate has bits that mean nothing (padding, codes of symbols that are not there); the object's CRC has them."""
    check, parts = made
    disk = read_bytes(image_of(b"".join(parts)), 0, SIZE)
    rng = random.Random(9)
    passed = 0
    for piece, data in pieces_of(parts):
        ends = [*range(min(len(data), 80)), *range(max(0, len(data) - 2048), len(data), 97)]
        for at in [*ends, *(rng.randrange(len(data)) for _ in range(60 if data else 0))]:
            damaged = bytearray(data)
            damaged[at] ^= 1 << rng.randrange(8)
            try:
                check.check(piece, bytes(damaged))
            except Differs:
                continue
            passed += 1
            end = piece.file_offset + len(data)
            whole = b"".join(parts)
            whole = whole[: piece.file_offset] + damaged + whole[end:]
            assert read_bytes(image_of(whole), 0, SIZE) == disk, at
    assert passed < 60


def image_of(data: bytes):
    return open_image(MemoryDevice(data))


def test_no_shorter_or_longer_piece_passes(made) -> None:
    check, parts = made
    for piece, data in pieces_of(parts):
        for other in (data[:-512], data + bytes(512), data[: len(data) // 2], b""):
            if other != data:
                with pytest.raises(Differs):
                    check.check(piece, other)


def test_a_piece_in_anothers_place_is_none(made) -> None:
    check, parts = made
    (first, _), _, _, _, (_, second), *_ = pieces_of(parts)
    with pytest.raises(Differs):
        check.check(first, second)
