"""Read, test and hash one chunk: the part of the pump that runs in worker threads. Knows no event loop.

512 KiB at a time: read, compare with zeros and hash while the bytes are still in the core's cache
(2 MiB pieces were measured to be about half as fast). From a server a chunk is read as a whole: there each read costs
a round trip and some work of both sides (0.54 of the slower end with blocks, 0.78 with chunks).
"""

import hashlib
from dataclasses import dataclass

from agent.targets.base import Checksum
from agent.transfer.plan import Chunk
from agent.whereabouts import At, now
from imaging.device import BlockDevice
from imaging.digest import DIGEST_BLOCK, ZERO_BLOCK_DIGEST

_ZEROS = bytes(DIGEST_BLOCK)
_PROBE = 64
"""Bytes looked at first: nearly every block that holds data shows it there, so the full compare is rare."""


@dataclass(frozen=True, slots=True)
class Span:
    """One put: (offset in the chunk, length) and the service's checksum of the bytes, if it takes one."""

    start: int
    length: int
    checksum: str | None


@dataclass(slots=True)
class FilledChunk:
    """A chunk in memory.

    Attributes:
        chunk: What it is.
        buffer: Pool buffer; its first `chunk.length` bytes are the chunk (padded with zeros to whole blocks).
        digests: 32 bytes for each digest block of the chunk.
        spans: What is not zero and has to be sent.
    """

    chunk: Chunk
    buffer: bytearray
    digests: bytes
    spans: list[Span]


def fill_chunk(
    device: BlockDevice,
    chunk: Chunk,
    buffer: bytearray,
    *,
    alignment: int,
    checksum: Checksum | None,
    whole: bool = False,
) -> FilledChunk:
    """Read a chunk's data into `buffer`, hash it by digest block and find what has to be sent.

    Args:
        device: The source disk.
        chunk: What to read; its offset is a multiple of 512 KiB.
        buffer: At least as long as the chunk, rounded up to whole digest blocks.
        alignment: Length of every span is rounded up to this (the padding is zeros).
        checksum: The service's checksum, computed here while the bytes are at hand.
        whole: Whether each stretch of data is read at once, not block by block.

    Raises:
        ImagingError, AgentError: Whatever the device raises.
    """
    digests = bytearray()
    runs: list[tuple[int, int]] = []
    with memoryview(buffer) as view:
        ranges = list(chunk.ranges)
        if whole:
            now(At.READING)
            for offset, length in ranges:
                start = offset - chunk.offset
                device.read_into(offset, view[start : start + length])
        for start in range(0, chunk.length, DIGEST_BLOCK):
            block = view[start : start + DIGEST_BLOCK]
            first = chunk.offset + start
            length = min(DIGEST_BLOCK, chunk.length - start)
            inside, ranges = _split(ranges, first + length)
            now(At.READING if not whole and inside else At.COMPUTING)
            _read_block(None if whole else device, first, block, inside)
            now(At.COMPUTING)
            if not inside or _is_zero(buffer, start):
                digests += ZERO_BLOCK_DIGEST
                continue
            digests += hashlib.sha256(block).digest()
            _add_run(runs, start, -(-length // alignment) * alignment)
        spans = [
            Span(start, length, _checksum(checksum, view, digests, (start, length)))
            for start, length in runs
        ]
    return FilledChunk(chunk, buffer, bytes(digests), spans)


def _checksum(
    checksum: Checksum | None, view: memoryview, digests: bytearray, run: tuple[int, int]
) -> str | None:
    if checksum is None:
        return None
    start, length = run
    first, end = start // DIGEST_BLOCK, -(-(start + length) // DIGEST_BLOCK)
    return checksum(view[start : start + length], bytes(digests[32 * first : 32 * end]))


def _split(
    ranges: list[tuple[int, int]], end: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Cut ordered ranges at `end`: what lies before it, and the rest."""
    inside: list[tuple[int, int]] = []
    for index, (offset, length) in enumerate(ranges):
        if offset >= end:
            return inside, ranges[index:]
        inside.append((offset, min(length, end - offset)))
        if offset + length > end:
            return inside, [(end, offset + length - end), *ranges[index + 1 :]]
    return inside, []


def _read_block(
    device: BlockDevice | None, first: int, block: memoryview, inside: list[tuple[int, int]]
) -> None:
    """Fill a whole block: data is read, unless it was, the rest is zeroed (the buffer held another chunk before)."""
    cursor = 0
    for offset, length in inside:
        at = offset - first
        if at > cursor:
            block[cursor:at] = _ZEROS[: at - cursor]
        if device is not None:
            device.read_into(offset, block[at : at + length])
        cursor = at + length
    if cursor < len(block):
        block[cursor:] = _ZEROS[: len(block) - cursor]


def _is_zero(buffer: bytearray, start: int) -> bool:
    # bytearray slices compare 80 times faster than memoryviews; the copy costs less than the hash that it saves.
    if buffer[start : start + _PROBE] != _ZEROS[:_PROBE]:
        return False
    return buffer[start : start + DIGEST_BLOCK] == _ZEROS


def _add_run(runs: list[tuple[int, int]], start: int, length: int) -> None:
    if runs and runs[-1][0] + runs[-1][1] == start:
        runs[-1] = (runs[-1][0], runs[-1][1] + length)
    else:
        runs.append((start, length))
