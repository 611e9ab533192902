"""Digests that left memory are the same digests; memory is bounded, and nothing stays on the disk."""

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, DigestBuilder, pages
from imaging.digest.pages import PAGE_BLOCKS, Pages
from imaging.errors import DeviceIOError

Make = Callable[[int], DigestBuilder]
BLOCKS = 20 * PAGE_BLOCKS + 700


def digests(first: int, count: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(first, first + count))


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "IN_MEMORY", 2)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda blocks: stack.enter_context(
            closing(DigestBuilder(blocks * DIGEST_BLOCK, folder=tmp_path))
        )


def test_what_is_in_the_file_reads_like_what_is_in_memory(tmp_path: Path, make: Make) -> None:
    chance = random.Random(7)
    memory = DigestBuilder(BLOCKS * DIGEST_BLOCK)
    filed = make(BLOCKS)
    at = 0
    while at < BLOCKS:
        count = min(chance.choice((1, 100, 700, 5000)), BLOCKS - at)
        for builder in (memory, filed):
            if count == 5000:
                builder.set_zero(at, count)
            else:
                builder.set_blocks(at, digests(at, count))
        at += count
    assert filed._pages._file is not None
    assert filed._pages._resident <= 3
    assert not list(filed.missing())
    assert filed.root() == memory.root()
    assert list(filed.data_blocks(0, BLOCKS)) == list(memory.data_blocks(0, BLOCKS))
    for _ in range(200):
        first = chance.randrange(BLOCKS)
        count = min(chance.randrange(1, 5000), BLOCKS - first)
        assert filed.blocks(first, count) == memory.blocks(first, count)
    assert not list(tmp_path.iterdir())


def test_a_page_in_the_file_can_be_changed_and_cleared(make: Make) -> None:
    builder = make(6 * PAGE_BLOCKS)
    builder.set_blocks(0, digests(0, 6 * PAGE_BLOCKS))
    builder.set_blocks(5 * PAGE_BLOCKS, b"x" * 32)
    assert builder.blocks(5 * PAGE_BLOCKS, 2) == b"x" * 32 + digests(5 * PAGE_BLOCKS + 1, 1)
    builder.set_zero(5 * PAGE_BLOCKS, PAGE_BLOCKS)
    assert builder.blocks(5 * PAGE_BLOCKS, 1) == ZERO_BLOCK_DIGEST


def test_unfinished_pages_stay_and_still_miss_their_blocks(make: Make) -> None:
    builder = make(8 * PAGE_BLOCKS)
    for page in range(8):
        builder.set_blocks(page * PAGE_BLOCKS + 1, digests(0, PAGE_BLOCKS - 1))
    assert list(builder.missing()) == [(page * PAGE_BLOCKS, 1) for page in range(8)]


def test_a_folder_that_takes_nothing_is_a_named_error(tmp_path: Path) -> None:
    builder = DigestBuilder(6 * PAGE_BLOCKS * DIGEST_BLOCK, folder=tmp_path / "gone")
    with pytest.raises(DeviceIOError, match="gone"):
        builder.set_blocks(0, digests(0, 6 * PAGE_BLOCKS))


def test_a_file_that_was_cut_is_a_named_error(tmp_path: Path) -> None:
    held = Pages(6 * PAGE_BLOCKS, ZERO_BLOCK_DIGEST, tmp_path)
    for number in range(6):
        held.store(number, 0, digests(0, PAGE_BLOCKS))
    assert held._file is not None
    os.ftruncate(held._file.fileno(), 100)
    with pytest.raises(DeviceIOError, match="cut"):
        held.read(5, 0, PAGE_BLOCKS)
    held.close()
