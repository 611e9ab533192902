"""The tar of one sparse file: Python's own reader finds the map, whatever its length."""

import io
import tarfile

import pytest

from imaging.formats.tar.build import build_end, build_sparse_header
from imaging.units import GiB, KiB, TiB


def built(ranges, *, real_size, stored=None):
    stored = sum(length for _, length in ranges) if stored is None else stored
    return list(
        build_sparse_header("disk.raw", ranges, len(ranges), stored=stored, real_size=real_size)
    )


@pytest.mark.parametrize("count", [0, 1, 3, 4, 24, 25, 26, 45, 46, 1000])
def test_a_map_of_any_length_is_read(count):
    ranges = [(i * 2 * 64 * KiB, 512) for i in range(count)]
    blocks = built(ranges, real_size=GiB)
    assert {len(block) for block in blocks} == {512}
    assert len(blocks) == 1 + max(0, -(-(count + 1 - 4) // 21))
    data = b"".join(i.to_bytes(2, "big") * 256 for i in range(count))
    archive = b"".join(blocks) + data
    with tarfile.open(fileobj=io.BytesIO(archive + build_end(len(archive)))) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.size, member.mode) == ("disk.raw", GiB, 0o644)
        assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
        assert [r for r in member.sparse if r[1]] == ranges
        file = tar.extractfile(member)
        for i, (offset, _) in enumerate(ranges):
            file.seek(offset)
            assert file.read(512) == i.to_bytes(2, "big") * 256


def test_numbers_that_octal_cannot_hold():
    ranges = [(0, 512), (8 * GiB - 512, 512), (8 * GiB, 512), (63 * TiB, 512)]
    archive = b"".join(built(ranges, real_size=64 * TiB)) + bytes(2048)
    with tarfile.open(fileobj=io.BytesIO(archive + build_end(len(archive)))) as tar:
        (member,) = tar.getmembers()
    assert member.size == 64 * TiB
    assert [r for r in member.sparse if r[1]] == ranges


def test_the_header_says_what_is_stored():
    (block,) = built([(0, 512)], real_size=GiB, stored=9 * GiB)
    assert block[124:136] == b"\x80" + (9 * GiB).to_bytes(11, "big")
    (block,) = built([(0, 512)], real_size=GiB)
    assert block[124:136] == b"00000001000\0"
    assert block[156:157] == b"S"
    assert block[257:265] == b"ustar  \0"


def test_the_archive_ends_as_gnu_tar_ends_it():
    for length in (512, 9216, 9728, 10240, 10752):
        end = build_end(length)
        assert (length + len(end)) % 10240 == 0
        assert len(end) >= 1024
        assert not any(end)
