"""Reading back finds every kind of difference: other bytes, lost writes, bytes from nowhere, dirty padding."""

import random

import pytest

from agent.errors import Retryable
from agent.retry import Retrier, RetryPolicy
from agent.transfer.errors import VerifyMismatch
from agent.transfer.verify import SAMPLE_BLOCKS, Verifier, sampled_blocks
from imaging.digest import DigestBuilder, digest_device, hash_block
from imaging.extent import Extent, Kind
from imaging.memory import MemoryDevice
from imaging.units import KiB, MiB, TiB
from tests.support.disk_target import MemoryDisk

SIZE = 18 * MiB + 512
PADDED = 19 * MiB
BLOCK = 512 * KiB


def content():
    device = MemoryDevice(SIZE)
    rng = random.Random(3)
    device.write(MiB, rng.randbytes(2 * MiB))
    device.write(12 * MiB, rng.randbytes(BLOCK))
    device.write(SIZE - 512, rng.randbytes(512))
    return device


def digests(device):
    builder = DigestBuilder(device.size)
    for block in range(builder.count):
        part = bytearray(device._bytes[block * BLOCK : (block + 1) * BLOCK])
        builder.set_blocks(block, hash_block(part))
    return builder


def verifier(change=lambda disk: None):
    device, disk = content(), MemoryDisk(PADDED)
    for offset, length in ((MiB, 2 * MiB), (12 * MiB, BLOCK), (SIZE - 512, 512)):
        disk.device.write(offset, bytes(device._bytes[offset : offset + length]))
    change(disk)
    retrier = Retrier(
        policy=RetryPolicy(base_s=0.001, cap_s=0.001), now=lambda: 0.0, random=lambda: 0.5
    )
    return (
        device,
        disk,
        Verifier(
            disk=disk,
            expected=digests(device),
            root=digests(device).root(),
            padded_size=PADDED,
            retrier=retrier,
            progress=lambda n: None,
        ),
    )


def flip(offset):
    def change(disk):
        disk.device.write(offset, bytes([disk.device._bytes[offset] ^ 1]))

    return change


async def test_an_equal_disk_has_the_sources_root():
    device, _, checks = verifier()
    verified = await checks.full()
    assert verified.root == digest_device(device).root
    assert verified.bytes_read < 16 * MiB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip(2 * MiB + 77), "other bytes than the source in digest block 4"),
        (flip(SIZE - 1), "digest block 36"),
        (flip(6 * MiB), "digest block 12"),
        (
            lambda disk: disk.device.zero(12 * MiB, BLOCK),
            "nothing, where the source has data in digest block 24",
        ),
        (flip(SIZE), "padding"),
        (flip(PADDED - 1), "padding"),
    ],
    ids=["flipped", "last-sector", "from-nowhere", "lost-write", "padding-first", "padding-last"],
)
async def test_every_difference_is_found_and_placed(change, message):
    _, _, checks = verifier(change)
    with pytest.raises(VerifyMismatch, match=message):
        await checks.full()


async def test_a_sample_reads_first_and_last_data_and_the_padding():
    _, disk, checks = verifier()
    verified = await checks.sample(
        sampled_blocks(checks.expected, lambda population, k: population[:0])
    )
    assert verified.root is None
    assert verified.blocks_read == 2
    assert disk.reads == 3  # two blocks, and the page of the last one that lies in the padding


def test_a_sample_picks_among_the_blocks_that_hold_data_and_adds_both_ends():
    expected, data = DigestBuilder(TiB), [5, 2048, 2049, 9000, 1_999_999]
    expected.set_zero(0, expected.count)
    for block in data:
        expected.set_blocks(block, bytes(range(32)))
    assert sampled_blocks(expected, lambda population, k: [population[2]]) == [5, 2049, 1_999_999]
    assert sampled_blocks(expected, random.sample) == data


def test_a_sample_is_bounded_however_much_holds_data():
    expected = DigestBuilder(4 * 1024 * MiB)
    expected.set_blocks(0, bytes(range(32)) * expected.count)
    blocks = sampled_blocks(expected, random.sample)
    assert SAMPLE_BLOCKS <= len(blocks) <= SAMPLE_BLOCKS + 2
    assert blocks == sorted(set(blocks))


def test_a_disk_of_zeros_has_nothing_to_sample():
    expected = DigestBuilder(MiB)
    expected.set_zero(0, expected.count)
    assert sampled_blocks(expected, random.sample) == []


async def test_a_sample_finds_a_difference_where_it_looks():
    _, _, checks = verifier(flip(MiB + 5))
    with pytest.raises(VerifyMismatch, match="digest block 2"):
        await checks.sample(sampled_blocks(checks.expected, random.sample))


async def test_a_sample_finds_dirty_padding():
    _, _, checks = verifier(flip(PADDED - 5))
    with pytest.raises(VerifyMismatch, match="padding"):
        await checks.sample(sampled_blocks(checks.expected, random.sample))


def scattered(step, length, *, size=16 * MiB):
    """A disk of `size` with `length` bytes every `step`, and what checks its copy."""
    device, disk, rng = MemoryDevice(size), MemoryDisk(size), random.Random(8)
    for offset in range(0, size, step):
        data = rng.randbytes(length)
        device.write(offset, data)
        disk.device.write(offset, data)
    return (
        device,
        disk,
        Verifier(
            disk=disk,
            expected=digests(device),
            root=digests(device).root(),
            padded_size=size,
            retrier=Retrier(policy=RetryPolicy(), now=lambda: 0.0, random=lambda: 0.5),
            progress=lambda n: None,
        ),
    )


@pytest.mark.parametrize(
    ("step", "length", "read", "requests"),
    [
        (2 * MiB, BLOCK, 4 * MiB, 8),  # as our own pump leaves it: nothing but what is held
        (BLOCK, 4 * KiB, 128 * KiB, 32),  # the gaps are longer than MERGE_GAP
        (64 * KiB, 4 * KiB, 4 * (4 * MiB - 60 * KiB), 4),  # they are shorter: one request a run
        (4 * MiB, 4 * MiB, 16 * MiB, 4),
    ],
    ids=["blocks", "pages-far-apart", "pages-near-each-other", "dense"],
)
async def test_only_what_the_target_holds_is_read_near_pieces_in_one_request(
    step, length, read, requests
):
    device, disk, checks = scattered(step, length)
    verified = await checks.full()
    assert (verified.bytes_read, disk.reads) == (read, requests)
    assert verified.root == digest_device(device).root


@pytest.mark.parametrize("step", [2 * MiB, BLOCK, 64 * KiB])
async def test_a_scattered_disk_hides_no_difference(step):
    for change in (
        flip(5 * step + 4095),  # in a piece
        flip(5 * step + 8 * KiB),  # from nowhere, beside a piece
        lambda disk: disk.device.zero(7 * step, 4 * KiB),  # a piece that was lost
        lambda disk: disk.device.zero(0, 16 * MiB),
    ):
        _, disk, checks = scattered(step, 4 * KiB)
        change(disk)
        with pytest.raises(VerifyMismatch):
            await checks.full()


async def test_a_target_that_tells_a_range_twice_is_read_once():
    _, disk, checks = scattered(2 * MiB, BLOCK)
    plain = disk.allocated

    async def twice(offset, length):
        async for extent in plain(offset, length):
            yield extent
            yield extent

    disk.allocated = twice
    assert (await checks.full()).bytes_read == 4 * MiB


class Unwritten:
    """A target that holds nothing of a disk of any size."""

    async def allocated(self, offset, length):
        yield Extent(offset, length, Kind.HOLE)


@pytest.mark.parametrize("mode", ["full", "sample"])
async def test_what_nobody_allocated_is_not_looked_at_block_by_block(mode, monkeypatch):
    size, looked = 64 * TiB, []
    expected = DigestBuilder(size)
    expected.set_zero(0, expected.count)
    plain = DigestBuilder.blocks
    monkeypatch.setattr(
        DigestBuilder, "blocks", lambda self, *at: looked.append(at) or plain(self, *at)
    )
    checks = Verifier(
        disk=Unwritten(),
        expected=expected,
        root="sha256:of-the-source",
        padded_size=size,
        retrier=Retrier(policy=RetryPolicy(), now=lambda: 0.0, random=lambda: 0.5),
        progress=lambda n: None,
    )
    verified = await (
        checks.full()
        if mode == "full"
        else checks.sample(sampled_blocks(checks.expected, random.sample))
    )
    assert (verified.blocks_read, looked) == (0, [])
    assert verified.root == ("sha256:of-the-source" if mode == "full" else None)


async def test_failing_reads_are_tried_again():
    _, disk, checks = verifier()
    plain, failures = disk.read, [Retryable("reset"), Retryable("reset")]

    async def read(offset, buffer):
        if failures:
            raise failures.pop()
        await plain(offset, buffer)

    disk.read = read
    assert (await checks.full()).root is not None
