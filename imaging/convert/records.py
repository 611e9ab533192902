"""The records of a conversion's journal, and what they let a later run leave out. Bytes and values; opens nothing.

A record, numbers big-endian: bytes of the payload (u32), CRC-32C (u32) over salt, kind and payload, kind (u8), payload.

    kind           salt       payload
    1 session      none       JSON of `Session`; the first record, and no other
    2 digests      unique id  first block (u64), count (u16), bitmap and digests (`imaging.digest.packed`);
                              a block below the mark that no record names is zeros
    3 places       unique id  blocks (u64 each) that got the next places, in the order of the places
    4 mark         unique id  `Mark`, three u64: everything before is durable

The salt keeps records of an earlier session, which a file system may bring back, from counting in this one.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from uuid import UUID

from imaging.convert.plan import RUN
from imaging.crc32c import crc32c
from imaging.digest import DIGEST_SIZE, ZERO_BLOCK_DIGEST
from imaging.digest.packed import bitmap_size, pack_digests, unpack_digests
from imaging.errors import JournalInvalid
from imaging.units import KiB

HEAD = struct.Struct(">IIB")
MAX_PAYLOAD = 128 * KiB
VERSION = 1
"""Of the records, and of where every sink puts what: a change of either needs another number."""

_PLACES_PER_RECORD = 8 * KiB
_DIGESTS = struct.Struct(">QH")
_MARK = struct.Struct(">QQQ")


class Record(IntEnum):
    """Kinds of records."""

    SESSION = 1
    DIGESTS = 2
    PLACES = 3
    MARK = 4


@dataclass(frozen=True, slots=True)
class SourceFile:
    """What tells whether a file of the source is the one that was read.

    Not its device number: that of a share may be another one after a restart of the machine.
    """

    name: str
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Session:
    """What one conversion is: a later run goes on with it if all but the last two are the same.

    Attributes:
        version: VERSION of who wrote it.
        target: "vhdx:dynamic" and the like.
        name: Of the file that is made.
        partial: Inode of the partial file.
        virtual_size: Bytes of the source's disk.
        padded_size: Bytes of the target's disk.
        sector_size: Of the target's disk.
        digest: Whether digests are computed.
        source_format: As opened.
        source: All files that the source was opened from.
        unique_id: Of the new image, from which all its ids are made.
        timestamp: Of the new image, seconds since 1970.
    """

    version: int
    target: str
    name: str
    partial: int
    virtual_size: int
    padded_size: int
    sector_size: int
    digest: bool
    source_format: str
    source: tuple[SourceFile, ...]
    unique_id: UUID
    timestamp: int


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the copy is.

    Attributes:
        offset: Everything before it is copied.
        placed: Blocks that have a place.
        file_size: The partial file is at least so long.
    """

    offset: int
    placed: int
    file_size: int


def why_anew(
    old: Session | None, mark: Mark | None, wanted: Session, *, file_size: int
) -> str | None:
    """Return why a conversion cannot be gone on with; None: it can be, from its mark.

    Args:
        old: The session in the journal; None: there is none.
        mark: The last one of it.
        wanted: What is to be done now.
        file_size: Of the partial file.
    """
    if old is None:
        return "there is no journal of an earlier run"
    for field in fields(Session):
        name = field.name
        if name not in ("unique_id", "timestamp") and getattr(old, name) != getattr(wanted, name):
            return _DIFFERENT[name]
    if mark is None:
        return "the earlier run ended before its first checkpoint"
    if mark.offset > wanted.virtual_size or file_size < mark.file_size:
        return "the partial file is shorter than its journal says"
    if mark.offset % RUN and mark.offset != wanted.virtual_size:
        return "the journal's mark is at no run's end"
    return None


_DIFFERENT = {
    "version": "the earlier run was one of another version",
    "target": "the earlier run made another format",
    "name": "the journal is that of another file",
    "partial": "the partial file is another one",
    "virtual_size": "the source has another size",
    "padded_size": "the target has another size",
    "sector_size": "the source has other sectors",
    "digest": "the earlier run computed no digest, or this one does not",
    "source_format": "the source was opened as another format",
    "source": "the source changed meanwhile",
}


def build_record(kind: Record, payload: bytes, salt: bytes) -> bytes:
    """Return a record's bytes."""
    return HEAD.pack(len(payload), crc32c(salt + bytes([kind]) + payload), kind) + payload


def is_sound(head: tuple[int, int, int], payload: bytes, salt: bytes) -> bool:
    """Tell whether a record is whole."""
    length, checksum, kind = head
    return length == len(payload) and checksum == crc32c(salt + bytes([kind]) + payload)


def build_session(session: Session) -> bytes:
    """Return the session's record."""
    values = {**asdict(session), "unique_id": str(session.unique_id)}
    return build_record(Record.SESSION, json.dumps(values).encode(), b"")


def parse_session(payload: bytes) -> Session | None:
    """Return the session; None if it is none of this version."""
    try:
        values = json.loads(payload)
        values["source"] = tuple(SourceFile(**one) for one in values["source"])
        values["unique_id"] = UUID(values["unique_id"])
        session = Session(**values)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    is_time = isinstance(session.timestamp, int) and 0 <= session.timestamp < 1 << 32
    return session if is_time else None


def build_mark(mark: Mark, salt: bytes) -> bytes:
    """Return the mark's record."""
    return build_record(Record.MARK, _MARK.pack(mark.offset, mark.placed, mark.file_size), salt)


def parse_mark(payload: bytes) -> Mark | None:
    """Return the mark, None if it is none."""
    return Mark(*_MARK.unpack(payload)) if len(payload) == _MARK.size else None


def build_digests(first: int, digests: bytes, salt: bytes) -> bytes:
    """Return the record of the digests of neighbouring blocks; nothing if all are zeros."""
    count = len(digests) // DIGEST_SIZE
    if digests == ZERO_BLOCK_DIGEST * count:
        return b""
    packed = b"".join(pack_digests(digests, ZERO_BLOCK_DIGEST))
    return build_record(Record.DIGESTS, _DIGESTS.pack(first, count) + packed, salt)


def parse_digests(payload: bytes) -> tuple[int, bytes]:
    """Return the first block and the digests."""
    if len(payload) >= _DIGESTS.size:
        first, count = _DIGESTS.unpack_from(payload)
        begin = _DIGESTS.size + bitmap_size(count)
        bitmap, kept = payload[_DIGESTS.size : begin], payload[begin:]
        digests = unpack_digests(bitmap, kept, count, ZERO_BLOCK_DIGEST)
        if digests is not None:
            return first, digests
    raise JournalInvalid("a record of digests that contradicts itself")


def build_places(blocks: Sequence[int], salt: bytes) -> Iterator[bytes]:
    """Yield the records of blocks that got places."""
    for at in range(0, len(blocks), _PLACES_PER_RECORD):
        part = blocks[at : at + _PLACES_PER_RECORD]
        yield build_record(Record.PLACES, struct.pack(f">{len(part)}Q", *part), salt)


def parse_places(payload: bytes) -> tuple[int, ...]:
    """Return the blocks."""
    if len(payload) % 8:
        raise JournalInvalid(f"places of {len(payload)} bytes, no multiple of 8")
    return struct.unpack(f">{len(payload) // 8}Q", payload)
