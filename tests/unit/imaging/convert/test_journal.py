"""The journal of a conversion: what was added is found again, a torn end is dropped, no lie is believed."""

import json
import struct
import uuid
from contextlib import suppress
from dataclasses import asdict, replace

import google_crc32c
import pytest

from imaging.convert.journal import Journal
from imaging.convert.records import (
    HEAD,
    MAX_PAYLOAD,
    VERSION,
    Mark,
    Record,
    Session,
    SourceFile,
    build_digests,
    build_mark,
    build_places,
    build_record,
    why_anew,
)
from imaging.digest import DIGEST_BLOCK, DIGEST_SIZE, ZERO_BLOCK_DIGEST, DigestBuilder
from imaging.errors import ImagingError, JournalInvalid
from imaging.memory import MemoryDevice
from imaging.units import GiB, MiB

SESSION = Session(
    version=VERSION,
    target="vhdx:dynamic",
    name="a.vhdx",
    partial=7,
    virtual_size=2 * GiB,
    padded_size=2 * GiB,
    sector_size=512,
    digest=True,
    source_format="raw:",
    source=(SourceFile("a", 1, 2, 3), SourceFile("b", 4, 5, 6)),
    unique_id=uuid.UUID(int=5),
    timestamp=1_700_000_000,
)
SALT = SESSION.unique_id.bytes
FIRST, SECOND = Mark(2 * MiB, 1, 100), Mark(1536 * MiB, 3, 200)


def digest(number: int) -> bytes:
    return bytes([number]) * DIGEST_SIZE


def written() -> MemoryDevice:
    device = MemoryDevice(0)
    journal = Journal(device)
    journal.clear()
    journal.begin(SESSION)
    digests = digest(1) + ZERO_BLOCK_DIGEST + digest(2) + ZERO_BLOCK_DIGEST
    journal.add(
        [build_digests(0, digests, SALT), *build_places([0], SALT), build_mark(FIRST, SALT)]
    )
    journal.add(
        [
            build_digests(2048, digest(3), SALT),
            *build_places([9, 4], SALT),
            build_mark(SECOND, SALT),
        ]
    )
    return device


def test_what_was_added_is_found_again() -> None:
    journal = Journal(written())
    assert (journal.session, journal.mark) == (SESSION, SECOND)
    assert list(journal.places()) == [0, 9, 4]
    found = DigestBuilder(2 * GiB)
    journal.load_digests(found)
    assert found.blocks(0, 4) == digest(1) + ZERO_BLOCK_DIGEST + digest(2) + ZERO_BLOCK_DIGEST
    assert list(found.data_blocks(0, 3072)) == [0, 2, 2048]
    assert next(found.missing()) == (3072, 1024)


def test_a_torn_end_is_dropped_and_overwritten() -> None:
    content = bytes(written()._bytes)
    ends = []
    for size in range(len(content)):
        device = MemoryDevice(content[:size])
        journal = Journal(device)
        assert journal.mark in (None, FIRST)
        if journal.session is not None and journal.mark not in ends:
            ends.append(journal.mark)
            journal.go_on()
            journal.add([*build_places([8, 7], journal.salt), build_mark(SECOND, journal.salt)])
            again = Journal(device)
            assert again.mark == SECOND
            assert again.session == SESSION
    assert ends == [None, FIRST]


def test_every_flipped_bit_is_noticed() -> None:
    content = written()._bytes
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        assert Journal(MemoryDevice(bytes(content))).mark in (None, FIRST)
        content[bit // 8] ^= 1 << bit % 8


def test_going_on_cuts_off_what_does_not_count() -> None:
    device = written()
    end = device.size
    device.truncate(end + 100)
    flushed: list[int] = []
    device.flush = lambda: flushed.append(device.size)  # type: ignore[method-assign]
    Journal(device).go_on()
    assert (device.size, flushed) == (end, [end])


def test_records_of_another_session_do_not_count() -> None:
    device = MemoryDevice(0)
    journal = Journal(device)
    other = replace(SESSION, unique_id=uuid.UUID(int=6))
    journal.begin(other)
    end = device.size
    device.truncate(end + 200)
    old = build_mark(FIRST, SALT)
    device.write(end, old)
    assert Journal(device).mark is None
    device.write(end, build_mark(FIRST, other.unique_id.bytes))
    assert Journal(device).mark == FIRST


def test_clearing_forgets_all_of_it() -> None:
    device = written()
    Journal(device).clear()
    assert device.size == 0
    assert Journal(device).session is None


def test_a_journal_that_goes_on_has_no_second_session() -> None:
    device = written()
    size = device.size
    record = build_record(Record.SESSION, b"{}", SALT)
    device.truncate(size + len(record) + 50)
    device.write(size, record)
    assert Journal(device).mark == SECOND


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"source": 1, "unique_id": 1}',
        json.dumps({**asdict(SESSION), "unique_id": "no id"}).encode(),
        json.dumps(
            {**asdict(SESSION), "unique_id": str(uuid.UUID(int=5)), "timestamp": -1}
        ).encode(),
        json.dumps({**asdict(SESSION), "unique_id": str(uuid.UUID(int=5)), "more": 1}).encode(),
        json.dumps({**asdict(SESSION), "unique_id": str(uuid.UUID(int=5)), "source": [1]}).encode(),
    ],
)
def test_what_is_no_session_is_none(payload: bytes) -> None:
    assert Journal(MemoryDevice(build_record(Record.SESSION, payload, b""))).session is None


def test_a_length_that_lies_is_not_read() -> None:
    for length in (MAX_PAYLOAD + 1, 2**32 - 1, 40):
        head = HEAD.pack(length, 0, Record.SESSION)
        assert Journal(MemoryDevice(head + bytes(30))).session is None


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Record.PLACES, b"1234567"),
        (Record.PLACES, struct.pack(">QQ", 1, 2)),
        (Record.DIGESTS, b""),
        (Record.DIGESTS, struct.pack(">QHB", 0, 1, 1)),
        (Record.DIGESTS, struct.pack(">QHB", 0, 1, 3) + bytes(64)),
        (Record.DIGESTS, struct.pack(">QHB", 1 << 40, 1, 0)),
        (Record.DIGESTS, struct.pack(">QH", 0, 2**16 - 1)),
    ],
)
def test_lies_under_a_right_checksum_are_errors(kind: Record, payload: bytes) -> None:
    device = MemoryDevice(0)
    journal = Journal(device)
    journal.begin(SESSION)
    journal.add([build_record(kind, payload, SALT), build_mark(Mark(MiB, 1, 0), SALT)])
    found = Journal(device)
    with pytest.raises(JournalInvalid):
        list(found.places())
    if kind == Record.DIGESTS:
        with pytest.raises(JournalInvalid):
            Journal(device).load_digests(DigestBuilder(2 * GiB))


def test_a_mark_of_a_wrong_size_ends_it() -> None:
    device = written()
    journal = Journal(device)
    journal.add([build_record(Record.MARK, b"", SALT), build_mark(Mark(1, 0, 0), SALT)])
    assert Journal(device).mark == SECOND


def test_noise_raises_nothing_else() -> None:
    content = bytearray(written()._bytes)
    for at in range(0, len(content), 7):
        changed = bytearray(content)
        changed[at] ^= 0xFF
        length, _, kind = HEAD.unpack_from(changed)
        if HEAD.size + length <= len(changed):
            body = bytes([kind]) + bytes(changed[HEAD.size : HEAD.size + length])
            changed[4:8] = struct.pack(">I", google_crc32c.value(body))
        with suppress(ImagingError):
            journal = Journal(MemoryDevice(bytes(changed)))
            list(journal.places())
            journal.load_digests(DigestBuilder(2 * GiB))


def test_many_places_are_several_records() -> None:
    blocks = list(range(20_000))
    records = list(build_places(blocks, SALT))
    assert len(records) == 3
    assert max(map(len, records)) <= MAX_PAYLOAD + HEAD.size


def test_digests_of_zeros_take_no_record() -> None:
    assert build_digests(5, ZERO_BLOCK_DIGEST * 2048, SALT) == b""


@pytest.mark.parametrize(
    "field", [name for name in asdict(SESSION) if name not in ("unique_id", "timestamp")]
)
def test_every_field_but_the_ids_must_be_the_same(field: str) -> None:
    other = replace(SESSION, **{field: None})  # type: ignore[arg-type]
    assert why_anew(other, SECOND, SESSION, file_size=200)


def test_what_is_gone_on_with() -> None:
    ids = replace(SESSION, unique_id=uuid.UUID(int=9), timestamp=1)
    assert why_anew(SESSION, SECOND, ids, file_size=200) is None
    assert why_anew(None, None, ids, file_size=200)
    assert why_anew(SESSION, None, ids, file_size=200)
    assert why_anew(SESSION, SECOND, ids, file_size=199)
    beyond = replace(SECOND, offset=2 * GiB + DIGEST_BLOCK)
    assert why_anew(SESSION, beyond, ids, file_size=200)
    assert why_anew(SESSION, replace(SECOND, offset=3 * MiB), ids, file_size=200)
    odd = replace(SESSION, virtual_size=2 * GiB - 512)
    assert why_anew(odd, replace(SECOND, offset=2 * GiB - 512), odd, file_size=200) is None
