"""The content digest: SHA-256 per 512 KiB block and one root; knows no image format and no file.

Root, exactly: SHA-256 over the text `imageport-digest/1` and one zero byte, u64be(virtual size),
u64be(524288), d0, d1, ... with di the SHA-256 of virtual block i, the last block padded with zeros
to 524288 bytes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imaging.digest.pages import DIGEST_SIZE, PAGE_BLOCKS, Pages
from imaging.errors import DigestIncomplete
from imaging.units import KiB

DIGEST_BLOCK = 512 * KiB
"""Bytes of a digest block: the EBS block, so that those digests are reused."""

ZERO_BLOCK_DIGEST = hashlib.sha256(bytes(DIGEST_BLOCK)).digest()

_DOMAIN = b"imageport-digest/1\0"
_ZEROS = bytes(DIGEST_BLOCK)


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


class RootHash:
    """The root of a disk whose block digests come in order."""

    def __init__(self, virtual_size: int) -> None:
        self._hash = hashlib.sha256(_DOMAIN)
        self._hash.update(virtual_size.to_bytes(8, "big") + DIGEST_BLOCK.to_bytes(8, "big"))

    def update(self, digests: bytes) -> None:
        """Add the digests of the blocks that come next."""
        self._hash.update(digests)

    def text(self) -> str:
        """Return the root as `sha256:<hex>`."""
        return f"sha256:{self._hash.hexdigest()}"


class DigestBuilder:
    """Collects block digests in any order, from any thread; a block that nobody set is an error.

    Memory: 66 KiB for each GiB of disk that holds data, nothing for the rest; with a folder at most 17 MiB and what is
    being filled (`imaging.digest.pages`).
    """

    def __init__(self, virtual_size: int, *, folder: Path | None = None) -> None:
        """Begin.

        Args:
            virtual_size: Bytes of the disk.
            folder: Where an unnamed file may take what exceeds the memory, 64 KiB for each GiB of data.
        """
        if virtual_size <= 0:
            raise ValueError(f"virtual size {virtual_size} is not positive")
        self.virtual_size = virtual_size
        self.count = block_count(virtual_size)
        self._pages = Pages(self.count, ZERO_BLOCK_DIGEST, folder)

    def set_blocks(self, first_block: int, digests: bytes) -> None:
        """Store the digests (32 bytes each) of neighbouring blocks."""
        if len(digests) % DIGEST_SIZE:
            raise ValueError(f"{len(digests)} bytes are no whole number of digests")
        done = 0
        for number, index, count in self._spans(first_block, len(digests) // DIGEST_SIZE):
            part = digests[done : done + count * DIGEST_SIZE]
            done += count * DIGEST_SIZE
            self._pages.store(number, index, part)

    def set_zero(self, first_block: int, count: int) -> None:
        """Store that neighbouring blocks read as zeros."""
        for number, index, part in self._spans(first_block, count):
            if part == self._pages.length(number):
                self._pages.store_zeros(number)
            else:
                self._pages.store(number, index, ZERO_BLOCK_DIGEST * part)

    def blocks(self, first_block: int, count: int) -> bytes:
        """Return the digests of neighbouring blocks.

        Raises:
            DigestIncomplete: One of them is not set.
        """
        found = bytearray()
        for number, index, part in self._spans(first_block, count):
            unset = self._pages.find(number, is_set=False, start=index, stop=index + part)
            if unset >= 0:
                raise self._incomplete(number * PAGE_BLOCKS + unset, 1)
            found += self._pages.read(number, index, part)
        return bytes(found)

    def data_blocks(self, first_block: int, count: int) -> Iterator[int]:
        """Yield the neighbouring blocks that are not zeros, in order; 1 GiB of zeros that was set at once is one step.

        Raises:
            DigestIncomplete: One of the blocks is not set.
        """
        for number, index, part in self._spans(first_block, count):
            if self._pages.is_zero(number):
                continue
            first = number * PAGE_BLOCKS + index
            digests = self.blocks(first, part)
            if digests != ZERO_BLOCK_DIGEST * part:
                for i in range(part):
                    if digests[i * DIGEST_SIZE : (i + 1) * DIGEST_SIZE] != ZERO_BLOCK_DIGEST:
                        yield first + i

    def count_data(self) -> int:
        """Return how many blocks are set and not zeros. 0.3 s for each TiB of data: not for an event loop."""
        found = 0
        for number, index, part in self._spans(0, self.count):
            if not self._pages.is_zero(number):
                digests = self._pages.read(number, index, part)
                neither = (ZERO_BLOCK_DIGEST, bytes(DIGEST_SIZE))
                found += sum(
                    digests[at : at + DIGEST_SIZE] not in neither
                    for at in range(0, len(digests), DIGEST_SIZE)
                )
        return found

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
        root = RootHash(self.virtual_size)
        for number in range(len(self._pages)):
            root.update(self._pages.read(number, 0, self._pages.length(number)))
        return root.text()

    def close(self) -> None:
        """Let go of the file, if there is one."""
        self._pages.close()

    def digest(self) -> DiskDigest:
        """Return root and sizes together."""
        return DiskDigest(self.virtual_size, DIGEST_BLOCK, self.root())

    def _spans(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range of blocks at page borders into (page, index in the page, count)."""
        if min(first, count) < 0 or first + count > self.count:
            raise ValueError(f"blocks ({first}, {count}) are not inside {self.count} blocks")
        while count:
            number, index = divmod(first, PAGE_BLOCKS)
            part = min(count, PAGE_BLOCKS - index)
            yield number, index, part
            first, count = first + part, count - part

    def _states(self) -> Iterator[tuple[int, int, bool]]:
        """Describe runs of (first block, count, set), in order, cut at page borders."""
        for number in range(len(self._pages)):
            first, length = number * PAGE_BLOCKS, self._pages.length(number)
            index = 0
            while index < length:
                is_set = self._pages.find(number, is_set=True, start=index, stop=index + 1) >= 0
                end = self._pages.find(number, is_set=not is_set, start=index, stop=length)
                end = length if end < 0 else end
                yield first + index, end - index, is_set
                index = end

    def _incomplete(self, first: int, count: int) -> DigestIncomplete:
        return DigestIncomplete(
            f"{count} digest blocks from block {first} (of {self.count}) were never computed",
            block=first,
            count=count,
        )
