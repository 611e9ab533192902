"""The digest builder: the contract formula, and no root for a disk with a block missing."""

import hashlib
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, DigestBuilder, hash_block
from imaging.errors import DigestIncomplete
from imaging.units import GiB, TiB


def root_of(virtual_size, digests):
    head = b"imageport-digest/1\0" + struct.pack(">QQ", virtual_size, 524288)
    return "sha256:" + hashlib.sha256(head + b"".join(digests)).hexdigest()


def digest_of(number):
    return hashlib.sha256(b"%d" % number).digest()


def test_root_is_the_contract_formula():
    builder = DigestBuilder(2 * DIGEST_BLOCK + 1)
    builder.set_blocks(0, digest_of(0) + digest_of(1))
    builder.set_blocks(2, digest_of(2))
    assert builder.root() == root_of(2 * DIGEST_BLOCK + 1, map(digest_of, range(3)))


def test_order_of_setting_does_not_matter():
    count = 5000
    builder = DigestBuilder(count * DIGEST_BLOCK)
    builder.set_blocks(3000, b"".join(map(digest_of, range(3000, count))))
    builder.set_zero(0, 10)
    builder.set_blocks(10, b"".join(map(digest_of, range(10, 3000))))
    expected = [ZERO_BLOCK_DIGEST] * 10 + [digest_of(i) for i in range(10, count)]
    assert builder.root() == root_of(count * DIGEST_BLOCK, expected)
    assert builder.blocks(2040, 20) == b"".join(expected[2040:2060])


def test_no_root_while_a_block_is_missing():
    builder = DigestBuilder(4 * DIGEST_BLOCK)
    builder.set_blocks(0, digest_of(0))
    builder.set_zero(3, 1)
    assert list(builder.missing()) == [(1, 2)]
    with pytest.raises(DigestIncomplete, match="2 digest blocks from block 1"):
        builder.root()


@pytest.mark.parametrize(
    ("set_ranges", "missing"),
    [
        ([], [(0, 9000)]),
        ([(0, 9000)], []),
        ([(0, 1), (8999, 1)], [(1, 8998)]),
        ([(2048, 2048)], [(0, 2048), (4096, 4904)]),
        ([(2000, 100), (8192, 808)], [(0, 2000), (2100, 6092)]),
    ],
    ids=["all", "none", "ends", "page", "across"],
)
def test_missing_names_the_exact_ranges(set_ranges, missing):
    builder = DigestBuilder(9000 * DIGEST_BLOCK)
    for first, count in set_ranges:
        builder.set_zero(first, count)
    assert list(builder.missing()) == missing


def test_a_data_block_inside_a_zero_page_leaves_other_zero_pages_alone():
    builder = DigestBuilder(4096 * DIGEST_BLOCK)
    builder.set_zero(0, 4096)
    builder.set_blocks(5, digest_of(5))
    assert builder.blocks(4, 3) == ZERO_BLOCK_DIGEST + digest_of(5) + ZERO_BLOCK_DIGEST
    assert builder.blocks(2048 + 5, 1) == ZERO_BLOCK_DIGEST
    assert DigestBuilder(1).missing().__next__() == (0, 1)


def test_data_blocks_are_those_that_are_not_zeros():
    builder = DigestBuilder(3 * 2048 * DIGEST_BLOCK)
    builder.set_zero(0, builder.count)
    for block in (5, 2048, 6143):
        builder.set_blocks(block, bytes([block % 251]) * 32)
    builder.set_blocks(7, ZERO_BLOCK_DIGEST)
    assert list(builder.data_blocks(0, builder.count)) == [5, 2048, 6143]
    assert list(builder.data_blocks(6, 2042)) == []
    assert builder.count_data() == 3
    with pytest.raises(DigestIncomplete):
        list(DigestBuilder(DIGEST_BLOCK).data_blocks(0, 1))


def test_blocks_of_an_unset_range_are_refused():
    builder = DigestBuilder(4096 * DIGEST_BLOCK)
    builder.set_zero(0, 7)
    with pytest.raises(DigestIncomplete) as caught:
        builder.blocks(0, 9)
    assert caught.value.fields["block"] == 7
    with pytest.raises(DigestIncomplete) as caught:
        builder.blocks(3000, 1)
    assert caught.value.fields["block"] == 3000


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 5), (4, 1)])
def test_blocks_outside_the_disk_are_refused(first, count):
    builder = DigestBuilder(4 * DIGEST_BLOCK)
    with pytest.raises(ValueError, match="not inside"):
        builder.set_zero(first, count)


def test_half_digests_are_refused():
    with pytest.raises(ValueError, match="whole number"):
        DigestBuilder(GiB).set_blocks(0, b"x" * 33)


def test_a_hole_of_64_tib_costs_no_memory():
    builder = DigestBuilder(64 * TiB)
    builder.set_zero(0, builder.count)
    assert len({id(page) for page in builder._pages._pages}) == 1
    assert not list(builder.missing())


def test_threads_that_share_a_page_lose_nothing():
    builder = DigestBuilder(2048 * DIGEST_BLOCK)

    def fill(start):
        for block in range(start, 2048, 4):
            builder.set_blocks(block, digest_of(block))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(4)))
    assert builder.root() == root_of(2048 * DIGEST_BLOCK, map(digest_of, range(2048)))


@pytest.mark.parametrize("length", [1, 512, DIGEST_BLOCK - 1, DIGEST_BLOCK])
@pytest.mark.parametrize("content", [b"\0", b"x"], ids=["zeros", "data"])
def test_hash_block_pads_with_zeros(length, content):
    expected = hashlib.sha256((content * length).ljust(DIGEST_BLOCK, b"\0")).digest()
    assert hash_block(bytearray(content * length)) == expected
