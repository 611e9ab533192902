"""A digest manifest says what its disk says, one disk has one, and no lie in it is believed."""

import random
import struct

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.device import read_bytes
from imaging.digest import DIGEST_BLOCK, DIGEST_SIZE, ZERO_BLOCK_DIGEST, DigestBuilder
from imaging.digest.layout import HEADER_SIZE, MAX_VIRTUAL_SIZE, PAGE_OVERHEAD, require_size
from imaging.digest.manifest import DigestManifest, ImageFacts, write_manifest
from imaging.digest.packed import pack_digests, unpack_digests
from imaging.digest.verify import MAX_LISTED, compare_digests
from imaging.errors import DigestIncomplete, DigestManifestInvalid, DiskTooLarge, ImagingError
from imaging.memory import MemoryDevice
from imaging.newfile import NewFile
from imaging.units import GiB, TiB

pytestmark = pytest.mark.exhaustive

FACTS = ImageFacts("golden \udcff.vhdx", "vhdx:dynamic", 12345)
SIZE = 5 * GiB + 1000


def digest(number):
    return random.Random(number).randbytes(DIGEST_SIZE)


def builder(size=SIZE, blocks=(0, 7, 2048 * 2, 2048 * 5)):
    made = DigestBuilder(size)
    made.set_zero(0, made.count)
    for block in blocks:
        made.set_blocks(block, digest(block))
    return made


@pytest.fixture
def written(tmp_path):
    return write(tmp_path, builder())


def write(tmp_path, made):
    with NewFile(tmp_path / "a.digest", replace=True) as file:
        assert write_manifest(file, made, FACTS) == made.root()
        file.commit()
    return bytearray((tmp_path / "a.digest").read_bytes())


def read(content):
    manifest = DigestManifest(MemoryDevice(content))
    made = DigestBuilder(manifest.header.virtual_size)
    manifest.load(made)
    return manifest.header, made


def sign(content):
    """Make the header's checksum right again."""
    content[508:512] = struct.pack(">I", google_crc32c.value(bytes(content[:508])))
    return content


def test_it_says_what_was_written(written):
    header, made = read(written)
    assert made.blocks(0, made.count) == builder().blocks(0, builder().count)
    assert (header.virtual_size, header.root) == (SIZE, builder().root())
    assert (header.data_blocks, header.pages) == (4, 3)
    assert (header.image_name, header.image_format, header.image_size) == (
        FACTS.name,
        FACTS.format,
        FACTS.size,
    )


def test_its_bytes_are_those_of_the_page_about_them(written):
    """Read by hand, with nothing but docs/digest-manifest.md."""
    magic, version, block, size, data, pages, root = struct.unpack_from(">16sIIQQQ32s", written)
    assert (magic, version, block, size) == (b"imageport-digest", 1, 524288, SIZE)
    assert (data, pages, root.hex()) == (4, 3, builder().root()[7:])
    assert struct.unpack_from(">Q32sH", written, 80) == (
        12345,
        b"vhdx:dynamic".ljust(32, b"\0"),
        13,
    )
    assert written[122:135] == b"golden \xff.vhdx"
    assert not any(written[135:508])
    number, count = struct.unpack_from(">II", written, 512)
    assert (number, count, written[520:776]) == (0, 2, b"\x81".ljust(256, b"\0"))
    assert written[776:840] == digest(0) + digest(7)
    checksum = google_crc32c.value(bytes(written[512:840]))
    assert written[840:844] == struct.pack(">I", checksum)
    assert struct.unpack_from(">II", written, 844) == (2, 1)
    assert len(written) == HEADER_SIZE + 3 * PAGE_OVERHEAD + 4 * DIGEST_SIZE


def test_zeros_take_no_room_and_are_not_looked_at_one_by_one(tmp_path, monkeypatch):
    monkeypatch.delattr("imaging.digest.layout.pack_digests")
    made = builder(4 * TiB, ())
    content = write(tmp_path, made)
    assert len(content) == HEADER_SIZE
    monkeypatch.delattr("imaging.digest.layout.unpack_digests")
    assert read(content)[1].root() == made.root()


@pytest.mark.parametrize("size", [1, DIGEST_BLOCK, DIGEST_BLOCK + 1, GiB, GiB + 1])
def test_all_sizes(size, tmp_path):
    made = DigestBuilder(size)
    for block in range(made.count):
        made.set_blocks(block, digest(block))
    header, found = read(write(tmp_path, made))
    assert found.blocks(0, made.count) == made.blocks(0, made.count)
    assert header.data_blocks == made.count


def test_a_disk_with_unknown_blocks_has_none(tmp_path):
    made = DigestBuilder(GiB)
    with NewFile(tmp_path / "a") as file, pytest.raises(DigestIncomplete):
        write_manifest(file, made, FACTS)
    require_size(MAX_VIRTUAL_SIZE)
    with pytest.raises(DiskTooLarge):
        require_size(MAX_VIRTUAL_SIZE + 1)


def test_bytes_behind_the_last_page_are_noticed(tmp_path):
    content = write(tmp_path, builder(blocks=(0, 7)))
    content[32:40] = struct.pack(">Q", 3)
    with pytest.raises(DigestManifestInvalid, match="the pages end at byte 844, the file at 876"):
        read(sign(content) + bytes(32))


def test_an_unfinished_one_is_none(tmp_path):
    class Dying(NewFile):
        def write(self, offset, data):
            if offset == 0:
                raise KeyboardInterrupt
            super().write(offset, data)

    with Dying(tmp_path / "a") as file:
        with pytest.raises(KeyboardInterrupt):
            write_manifest(file, builder(), FACTS)
        with pytest.raises(DigestManifestInvalid, match="no digest manifest"):
            read((tmp_path / "a.partial").read_bytes())


def test_every_flipped_bit_is_noticed(written):
    for bit in range(0, 8 * len(written), 3):
        written[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DigestManifestInvalid):
            read(written)
        written[bit // 8] ^= 1 << bit % 8


def test_every_cut_and_every_addition_is_noticed(written):
    for size in range(len(written)):
        with pytest.raises(DigestManifestInvalid):
            read(written[:size])
    with pytest.raises(DigestManifestInvalid, match="file size"):
        read(written + b"\0")


@pytest.mark.parametrize(
    ("at", "layout", "value", "match"),
    [
        (16, ">I", 2, "version at byte 16: 2, expected 1"),
        (20, ">I", 4096, "block size"),
        (24, ">Q", 0, "virtual size 0"),
        (24, ">Q", MAX_VIRTUAL_SIZE + 1, "virtual size"),
        (24, ">Q", 2**64 - 1, "virtual size"),
        (24, ">Q", SIZE + 1, "does not follow"),
        (24, ">Q", 2 * GiB, "page 2 in order and inside"),
        (32, ">Q", 2**64 - 1, "possible"),
        (32, ">Q", 2, "possible"),
        (40, ">Q", 2**64 - 1, "possible"),
        (40, ">Q", 0, "possible"),
        (48, ">Q", 0, "does not follow"),
    ],
)
def test_lies_of_the_header_under_a_right_checksum(at, layout, value, match, written):
    struct.pack_into(layout, written, at, value)
    with pytest.raises(DigestManifestInvalid, match=match) as caught:
        read(sign(written))
    assert caught.value.fields["offset"] is not None


def sign_page(content, at, count):
    end = at + 264 + 32 * count
    content[end : end + 4] = struct.pack(">I", google_crc32c.value(bytes(content[at:end])))
    return content


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({512: b"\0\0\0\3"}, "page 2 in order"),
        ({512: b"\0\0\0\6"}, "page 6 in order and inside"),
        ({520: b"\x82"}, "does not follow"),
        ({520: b"\x83"}, "contradict"),
        ({776: ZERO_BLOCK_DIGEST}, "contradict"),
    ],
)
def test_lies_of_a_page_under_a_right_checksum(change, match, written):
    for at, data in change.items():
        written[at : at + len(data)] = data
    with pytest.raises(DigestManifestInvalid, match=match):
        read(sign_page(written, 512, 2))


def test_bits_behind_the_end_of_the_disk_are_noticed(tmp_path):
    content = write(tmp_path, builder(DIGEST_BLOCK, (0,)))
    content[520] = 3
    content[776:840] = digest(0) + digest(1)
    content[840:] = bytes(4)
    content[516:520] = struct.pack(">I", 2)
    content[32:40] = struct.pack(">Q", 1)
    with pytest.raises(DigestManifestInvalid):
        read(sign(sign_page(content, 512, 2)))
    content = write(tmp_path, builder(DIGEST_BLOCK, (0,)))
    content[530] = 1
    with pytest.raises(DigestManifestInvalid, match="contradict"):
        read(sign_page(content, 512, 1))


@pytest.mark.parametrize("count", [0, 2049, 2**32 - 1])
def test_a_page_of_a_wrong_size_is_not_read(count, written):
    struct.pack_into(">I", written, 516, count)
    with pytest.raises(DigestManifestInvalid, match=f"{count} data blocks in a page possible"):
        read(written)


def test_pages_that_go_on_behind_the_end_are_not_read(written):
    struct.pack_into(">I", written, 516, 2000)
    with pytest.raises(DigestManifestInvalid, match="goes on behind the end"):
        read(written)


@given(st.binary(max_size=1200), st.integers(0, 1200))
@settings(max_examples=150, deadline=None)
def test_noise_raises_nothing_else(noise, at):
    content = bytearray(b"imageport-digest".ljust(1300, b"\0"))
    content[at : at + len(noise)] = noise
    with pytest.raises(ImagingError):
        read(sign(content))


@given(st.lists(st.booleans(), max_size=40))
def test_packing_is_undone_by_unpacking(flags):
    digests = b"".join(digest(i) if flag else ZERO_BLOCK_DIGEST for i, flag in enumerate(flags))
    bitmap, kept = pack_digests(digests, ZERO_BLOCK_DIGEST)
    assert len(kept) == sum(flags) * DIGEST_SIZE
    assert unpack_digests(bitmap, kept, len(flags), ZERO_BLOCK_DIGEST) == digests
    assert unpack_digests(bitmap + b"\0", kept, len(flags), ZERO_BLOCK_DIGEST) is None
    assert unpack_digests(bitmap, kept + b"\0", len(flags), ZERO_BLOCK_DIGEST) is None
    more = (int.from_bytes(bitmap, "little") | 1 << len(flags)).to_bytes(6, "little")
    more = more[: len(bitmap)]
    unused = len(flags) % 8 != 0
    found = unpack_digests(more, kept + digest(1) * unused, len(flags), ZERO_BLOCK_DIGEST)
    assert (found is None) == unused


def verdict(content, made):
    return compare_digests(made, DigestManifest(MemoryDevice(content)))


def test_differing_blocks_are_named(written):
    assert verdict(written, builder()).equal
    found = verdict(written, builder(blocks=(0, 8, 2048 * 2, 2048 * 5)))
    assert (found.equal, found.differing, found.first) == (False, 2, (7, 8))
    many = verdict(written, builder(blocks=range(0, 10000, 2)))
    assert (many.differing, len(many.first)) == (5000, MAX_LISTED)


def test_a_longer_disk_is_equal_if_the_rest_is_zeros(written):
    longer = verdict(written, builder(9 * GiB))
    assert (longer.equal, longer.size, longer.expected_size) == (True, 9 * GiB, SIZE)
    found = verdict(written, builder(9 * GiB, (0, 7, 2048 * 2, 2048 * 5, 2048 * 8)))
    assert (found.equal, found.first) == (False, (2048 * 8,))


def test_a_shorter_disk_is_another_one(written):
    cut = verdict(written, builder(5 * GiB, (0, 7, 2048 * 2)))
    assert (cut.equal, cut.first) == (False, (2048 * 5,))
    assert not verdict(written, builder(SIZE - 1)).equal


def test_a_damaged_one_settles_nothing(written):
    written[800] ^= 1
    with pytest.raises(DigestManifestInvalid, match="checksum"):
        verdict(written, builder())


def test_reading_needs_no_more_than_a_page_at_a_time(tmp_path):
    class Watched(MemoryDevice):
        largest = 0

        def read_into(self, offset, buffer):
            Watched.largest = max(Watched.largest, len(buffer))
            super().read_into(offset, buffer)

    content = write(tmp_path, builder(blocks=range(5000)))
    device = Watched(content)
    DigestManifest(device).load(DigestBuilder(SIZE))
    assert Watched.largest == PAGE_OVERHEAD + 2048 * DIGEST_SIZE
    assert read_bytes(device, 0, 16) == b"imageport-digest"
