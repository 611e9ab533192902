"""A filled chunk has the right digests, sends what is not zero and nothing else, whatever the buffer held before."""

import hashlib

import pytest

from agent.transfer.plan import Chunk
from agent.transfer.reader import fill_chunk
from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST
from imaging.memory import MemoryDevice
from imaging.units import MiB

CHUNK = 4 * MiB
HOW = {"whole": False}


def device(*pieces, size=CHUNK):
    data = bytearray(size)
    for offset, content in pieces:
        data[offset : offset + len(content)] = content
    return MemoryDevice(bytes(data)), bytes(data)


@pytest.fixture(params=[False, True], ids=["by block", "whole"], autouse=True)
def whole(request, monkeypatch):
    """A chunk is read block by block, or at once: nothing else may change."""
    monkeypatch.setitem(HOW, "whole", request.param)


def fill(dev, *ranges, length=CHUNK, checksum=None):
    dirty = bytearray(b"\xee" * CHUNK)
    return fill_chunk(dev, Chunk(0, length, ranges), dirty, alignment=512, checksum=checksum, **HOW)


def test_neighbouring_blocks_are_one_span_and_zero_blocks_none():
    dev, data = device((0, b"a" * 2 * DIGEST_BLOCK), (4 * DIGEST_BLOCK, b"b"))
    filled = fill(dev, (0, CHUNK))
    assert [(s.start, s.length) for s in filled.spans] == [
        (0, 2 * DIGEST_BLOCK),
        (4 * DIGEST_BLOCK, DIGEST_BLOCK),
    ]
    assert bytes(filled.buffer) == data


def test_digests_are_those_of_the_disk():
    dev, data = device((DIGEST_BLOCK, b"x"), (7 * DIGEST_BLOCK, b"y" * 100))
    filled = fill(dev, (0, CHUNK))
    blocks = [data[i : i + DIGEST_BLOCK] for i in range(0, CHUNK, DIGEST_BLOCK)]
    assert filled.digests == b"".join(hashlib.sha256(block).digest() for block in blocks)


def test_what_is_no_data_is_not_read_and_counts_as_zeros():
    dev, _ = device((0, b"secret" * 1000), (2 * DIGEST_BLOCK, b"z" * 512))
    filled = fill(dev, (2 * DIGEST_BLOCK, 512))
    assert filled.digests[:64] == ZERO_BLOCK_DIGEST * 2
    assert [(s.start, s.length) for s in filled.spans] == [(2 * DIGEST_BLOCK, DIGEST_BLOCK)]
    assert not any(filled.buffer[: 2 * DIGEST_BLOCK])


def test_a_range_across_blocks_is_read_whole():
    edge = 3 * DIGEST_BLOCK
    dev, data = device((edge - 100, b"q" * 200))
    filled = fill(dev, (edge - 100, 200))
    assert bytes(filled.buffer) == data


def test_the_last_block_is_padded_with_zeros_and_sent_in_whole_pages():
    length = DIGEST_BLOCK + 1000
    dev, data = device((0, b"k" * length), size=length)
    filled = fill(dev, (0, length), length=length)
    assert [(s.start, s.length) for s in filled.spans] == [(0, DIGEST_BLOCK + 1024)]
    padded = data[DIGEST_BLOCK:] + bytes(DIGEST_BLOCK - 1000)
    assert filled.digests[32:] == hashlib.sha256(padded).digest()
    assert not any(filled.buffer[length : 2 * DIGEST_BLOCK])


def test_a_block_that_is_zero_only_at_its_start_is_sent():
    dev, _ = device((DIGEST_BLOCK - 1, b"!"))
    filled = fill(dev, (0, CHUNK))
    assert [(s.start, s.length) for s in filled.spans] == [(0, DIGEST_BLOCK)]


def test_the_services_checksum_is_made_of_the_span():
    dev, data = device((0, b"c" * DIGEST_BLOCK))
    filled = fill(
        dev,
        (0, CHUNK),
        checksum=lambda view, digests: f"{hashlib.md5(view).hexdigest()}/{len(digests)}",
    )
    assert filled.spans[0].checksum == hashlib.md5(data[:DIGEST_BLOCK]).hexdigest() + "/32"


def test_errors_of_the_device_go_up():
    dev, _ = device()
    dev.close()
    with pytest.raises(Exception, match="closed"):
        fill(dev, (0, CHUNK))


def test_a_chunk_of_a_server_is_read_in_its_ranges_not_in_blocks():
    dev, _ = device((0, b"a" * CHUNK))
    reads = []

    class Noting:
        def read_into(self, offset, buffer):
            reads.append((offset, len(buffer)))
            dev.read_into(offset, buffer)

    fill(Noting(), (0, 3 * DIGEST_BLOCK), (4 * DIGEST_BLOCK, 1000))
    if HOW["whole"]:
        assert reads == [(0, 3 * DIGEST_BLOCK), (4 * DIGEST_BLOCK, 1000)]
    else:
        assert len(reads) == 4
