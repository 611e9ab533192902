"""The content digest: SHA-256 per 512 KiB block and one root; knows no image format and no file.

Root, exactly: SHA-256 over the text `imageport-digest/1` and one zero byte, u64be(virtual size),
u64be(524288), d0, d1, ... with di the SHA-256 of virtual block i, the last block padded with zeros
to 524288 bytes.
"""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from imaging.errors import DigestIncomplete
from imaging.units import KiB

DIGEST_BLOCK = 512 * KiB
"""Bytes of a digest block: the EBS block, so that those digests are reused."""

DIGEST_SIZE = 32
ZERO_BLOCK_DIGEST = hashlib.sha256(bytes(DIGEST_BLOCK)).digest()

_DOMAIN = b"imageport-digest/1\0"
_ZEROS = bytes(DIGEST_BLOCK)
_PAGE_BLOCKS = 2048
"""Blocks of a page: 1 GiB of disk, 64 KiB of digests. Pages that are zero throughout share one."""


def block_count(virtual_size: int) -> int:
    """Return the number of digest blocks of a disk."""
    return -(-virtual_size // DIGEST_BLOCK)


def hash_block(buffer: bytearray) -> bytes:
    """Return the digest of one block.

    Args:
        buffer: The block, at most 524288 bytes; a shorter (last) one is padded with zeros. It is a
            `bytearray` because comparing those with zeros is 80 times faster than memoryviews.
    """
    if len(buffer) < DIGEST_BLOCK:
        buffer = buffer + bytes(DIGEST_BLOCK - len(buffer))
    if buffer == _ZEROS:
        return ZERO_BLOCK_DIGEST
    return hashlib.sha256(buffer).digest()


@dataclass(frozen=True, slots=True)
class DiskDigest:
    """What identifies the content of a disk."""

    virtual_size: int
    block_size: int
    root: str


class _Page:
    """Digests of up to 2048 neighbouring blocks and which of them are set."""

    __slots__ = ("digests", "is_set")

    def __init__(self) -> None:
        self.digests = bytearray(_PAGE_BLOCKS * DIGEST_SIZE)
        self.is_set = bytearray(_PAGE_BLOCKS)

    def store(self, index: int, digests: bytes) -> None:
        count = len(digests) // DIGEST_SIZE
        self.digests[index * DIGEST_SIZE : (index + count) * DIGEST_SIZE] = digests
        self.is_set[index : index + count] = b"\1" * count


_ZERO_PAGE = _Page()
_ZERO_PAGE.store(0, ZERO_BLOCK_DIGEST * _PAGE_BLOCKS)


class DigestBuilder:
    """Collects block digests in any order, from any thread; a block that nobody set is an error.

    Memory: 66 KiB for each GiB of disk that holds data, nothing for the rest.
    """

    def __init__(self, virtual_size: int) -> None:
        if virtual_size <= 0:
            raise ValueError(f"virtual size {virtual_size} is not positive")
        self.virtual_size = virtual_size
        self.count = block_count(virtual_size)
        self._pages: list[_Page | None] = [None] * -(-self.count // _PAGE_BLOCKS)
        self._lock = threading.Lock()

    def set_blocks(self, first_block: int, digests: bytes) -> None:
        """Store the digests (32 bytes each) of neighbouring blocks."""
        if len(digests) % DIGEST_SIZE:
            raise ValueError(f"{len(digests)} bytes are no whole number of digests")
        done = 0
        for number, index, count in self._spans(first_block, len(digests) // DIGEST_SIZE):
            part = digests[done : done + count * DIGEST_SIZE]
            done += count * DIGEST_SIZE
            with self._lock:
                self._own_page(number).store(index, part)

    def set_zero(self, first_block: int, count: int) -> None:
        """Store that neighbouring blocks read as zeros."""
        for number, index, part in self._spans(first_block, count):
            with self._lock:
                if part == self._page_length(number):
                    self._pages[number] = _ZERO_PAGE
                else:
                    self._own_page(number).store(index, ZERO_BLOCK_DIGEST * part)

    def blocks(self, first_block: int, count: int) -> bytes:
        """Return the digests of neighbouring blocks.

        Raises:
            DigestIncomplete: One of them is not set.
        """
        found = bytearray()
        for number, index, part in self._spans(first_block, count):
            page = self._pages[number]
            unset = index if page is None else page.is_set.find(0, index, index + part)
            if page is None or unset >= 0:
                raise self._incomplete(number * _PAGE_BLOCKS + unset, 1)
            found += page.digests[index * DIGEST_SIZE : (index + part) * DIGEST_SIZE]
        return bytes(found)

    def data_blocks(self, first_block: int, count: int) -> Iterator[int]:
        """Yield the neighbouring blocks that are not zeros, in order; 1 GiB of zeros that was set at once is one step.

        Raises:
            DigestIncomplete: One of the blocks is not set.
        """
        for number, index, part in self._spans(first_block, count):
            if self._pages[number] is _ZERO_PAGE:
                continue
            first = number * _PAGE_BLOCKS + index
            digests = self.blocks(first, part)
            if digests != ZERO_BLOCK_DIGEST * part:
                for i in range(part):
                    if digests[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE] != ZERO_BLOCK_DIGEST:
                        yield first + i

    def missing(self) -> Iterator[tuple[int, int]]:
        """Describe the blocks that are not set as (first block, count), in order."""
        start: int | None = None
        for first, count, is_set in self._states():
            if is_set and start is not None:
                yield start, first - start
                start = None
            elif not is_set and count and start is None:
                start = first
        if start is not None:
            yield start, self.count - start

    def root(self) -> str:
        """Return the root as `sha256:<hex>`.

        Raises:
            DigestIncomplete: Some block was never set: a short disk has no root.
        """
        for first, count in self.missing():
            raise self._incomplete(first, count)
        root = hashlib.sha256(_DOMAIN)
        root.update(self.virtual_size.to_bytes(8, "big") + DIGEST_BLOCK.to_bytes(8, "big"))
        for number, page in enumerate(self._pages):
            if page is not None:
                root.update(memoryview(page.digests)[: self._page_length(number) * DIGEST_SIZE])
        return f"sha256:{root.hexdigest()}"

    def digest(self) -> DiskDigest:
        """Return root and sizes together."""
        return DiskDigest(self.virtual_size, DIGEST_BLOCK, self.root())

    def _page_length(self, number: int) -> int:
        return min(_PAGE_BLOCKS, self.count - number * _PAGE_BLOCKS)

    def _own_page(self, number: int) -> _Page:
        page = self._pages[number]
        if page is None or page is _ZERO_PAGE:
            fresh = _Page()
            if page is not None:
                fresh.digests[:] = page.digests
                fresh.is_set[:] = page.is_set
            self._pages[number] = page = fresh
        return page

    def _spans(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range of blocks at page borders into (page, index in the page, count)."""
        if min(first, count) < 0 or first + count > self.count:
            raise ValueError(f"blocks ({first}, {count}) are not inside {self.count} blocks")
        while count:
            number, index = divmod(first, _PAGE_BLOCKS)
            part = min(count, _PAGE_BLOCKS - index)
            yield number, index, part
            first, count = first + part, count - part

    def _states(self) -> Iterator[tuple[int, int, bool]]:
        """Describe runs of (first block, count, set), in order, cut at page borders."""
        for number, page in enumerate(self._pages):
            first, length = number * _PAGE_BLOCKS, self._page_length(number)
            flags = b"" if page is None else page.is_set
            index = 0
            while index < length:
                value = flags[index] if flags else 0
                end = flags.find(1 - value, index, length)
                end = length if end < 0 else end
                yield first + index, end - index, bool(value)
                index = end

    def _incomplete(self, first: int, count: int) -> DigestIncomplete:
        return DigestIncomplete(
            f"{count} digest blocks from block {first} (of {self.count}) were never computed",
            block=first,
            count=count,
        )
