"""The parts of an archive: what a receipt keeps of each, and the row that they form. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from agent.targets.base import StoredPart
from imaging.convert.archive import State
from imaging.crc import CRC32C, combine
from imaging.digest import DIGEST_BLOCK, DigestBuilder, block_count
from protocol.codec import decode_plain, encode
from protocol.errors import ProtocolError

_MAX_RECEIPT = 64 * 1024 * 1024
_INDEX, _DIGEST = 4, 32

Blocks = Iterator[tuple[int, bytes]]


@dataclass(slots=True)
class PackedPart:
    """One part.

    Attributes:
        number: From 1, without gaps.
        start / end: The stretch of the disk that it stands for.
        file_offset / size: Where it is in the archive.
        crc32c: Of its bytes.
        tag: What the service gave for it.
        state: Of the archive behind it.
        is_last: Whether the archive ends with it.
    """

    number: int
    start: int
    end: int
    file_offset: int
    size: int
    crc32c: int
    tag: str
    state: State
    is_last: bool

    def tagged(self, tag: str) -> "PackedPart":
        """Return the acknowledged part."""
        return replace(self, tag=tag)

    def receipt(self, digest: DigestBuilder) -> bytes:
        """Return what a receipt keeps: these fields, and the digests of the blocks that are data."""
        first = self.start // DIGEST_BLOCK
        count = min(block_count(self.end), digest.count) - first
        blocks = bytearray()
        for block in digest.data_blocks(first, count) if count > 0 else ():
            blocks += (block - first).to_bytes(_INDEX, "big") + digest.blocks(block, 1)
        fields = [self.number, self.file_offset, self.size, self.crc32c, self.tag, self.is_last]
        return encode([*fields, list(self.state), bytes(blocks)])

    @classmethod
    def read(cls, start: int, length: int, receipt: bytes) -> "tuple[PackedPart | None, Blocks]":
        """Return the part of a receipt and the digests of its data blocks; None for what is no such receipt."""
        try:
            plain: Any = decode_plain(receipt, limit=_MAX_RECEIPT)
            number, offset, size, crc, tag, is_last, state, blocks = plain
            part = cls(
                number, start, start + length, offset, size, crc, tag, _state_of(state), is_last
            )
        except (ProtocolError, TypeError, ValueError):
            return None, iter(())
        return part, _blocks_of(start // DIGEST_BLOCK, blocks)


def _state_of(plain: list[Any]) -> State:
    if not all(isinstance(one, int) for one in plain):
        raise TypeError
    return tuple(plain)


def _blocks_of(first: int, packed: bytes) -> Blocks:
    for at in range(0, len(packed), _INDEX + _DIGEST):
        index = int.from_bytes(packed[at : at + _INDEX], "big")
        yield first + index, packed[at + _INDEX : at + _INDEX + _DIGEST]


@dataclass(slots=True)
class Row:
    """Finished parts by number."""

    parts: dict[int, PackedPart] = field(default_factory=dict)

    @property
    def last(self) -> PackedPart | None:
        """The part with the highest number."""
        return self.parts[max(self.parts)] if self.parts else None

    @property
    def is_complete(self) -> bool:
        """Whether the archive's end is there, and everything before it."""
        last = self.last
        return last is not None and last.is_last and len(self.parts) == last.number

    def continues(self, part: PackedPart) -> bool:
        """Whether a part is the next one."""
        last = self.last
        if last is None:
            return (part.number, part.start, part.file_offset) == (1, 0, 0)
        after = (last.number + 1, last.end, last.file_offset + last.size)
        return not last.is_last and (part.number, part.start, part.file_offset) == after

    def add(self, part: PackedPart) -> None:
        """Add a finished part."""
        self.parts[part.number] = part

    def in_order(self) -> list[PackedPart]:
        """Return the parts, ascending."""
        return [self.parts[number] for number in sorted(self.parts)]

    def states(self) -> list[State]:
        """Return the state behind each part, ascending."""
        return [part.state for part in self.in_order()]

    def stored(self) -> list[StoredPart]:
        """Return the parts as the target completes them."""
        return [StoredPart(part.number, part.size, part.tag) for part in self.in_order()]

    def crc32c(self) -> int:
        """Return the CRC-32C of the whole archive."""
        crc = 0
        for part in self.in_order():
            crc = combine(CRC32C, crc, part.crc32c, part.size)
        return crc
