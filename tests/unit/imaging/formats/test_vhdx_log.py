"""The VHDX log: which entries count, what they change, and that no log makes the replay long or wrong."""

import random
import struct

import pytest

from imaging.device import read_bytes
from imaging.errors import ImagingError, InvalidImage, Truncated, UnsupportedImage
from imaging.formats import open_image
from imaging.formats.vhdx.device import open_vhdx
from imaging.formats.vhdx.log import LogEntry, active_sequence
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder, VhdxChild
from tests.support.disks import MiB, Vhdx, pattern, vhdx_header
from tests.support.vhdx_logs import DATA, GUID, SECTOR, Entry, image


def content(log: dict[int, bytes], **fields: int) -> bytes:
    return read_bytes(open_vhdx(MemoryDevice(image(log, **fields))), 0, MiB)


def refusal(log: dict[int, bytes], **fields: int) -> ImagingError:
    with pytest.raises(ImagingError) as caught:
        content(log, **fields)
    return caught.value


def patched(changes: dict[int, bytes]) -> bytes:
    disk = bytearray(pattern(MiB))
    for offset, data in changes.items():
        disk[offset : offset + len(data)] = data
    return bytes(disk)


NEW, NEWER = pattern(SECTOR, 7), pattern(SECTOR, 8)


def test_data_and_zeros_are_applied_and_the_file_is_not_changed() -> None:
    entry = Entry(5, {DATA + 8192: NEW, DATA + 65536: 3 * SECTOR})
    file = MemoryDevice(image({0: entry.build()}))
    before = read_bytes(file, 0, file.size)
    disk = open_vhdx(file)
    assert disk.info.dirty
    assert "log" in disk.info.warnings[0]
    assert read_bytes(disk, 0, MiB) == patched({8192: NEW, 65536: bytes(3 * SECTOR)})
    assert read_bytes(file, 0, file.size) == before


def test_later_entries_win() -> None:
    first, second = Entry(5, {DATA: NEW}), Entry(6, {DATA: NEWER})
    position = len(first.build())
    assert content({0: first.build(), position: second.build()}) == patched({0: NEWER})


def test_entries_before_the_tail_are_not_replayed() -> None:
    first = Entry(5, {DATA: NEW}).build()
    second = Entry(6, {DATA + SECTOR: NEWER}, tail=len(first)).build()
    assert content({0: first, len(first): second}) == patched({SECTOR: NEWER})


def test_a_log_that_wraps_is_followed_round_the_ring() -> None:
    start = MiB - 2 * SECTOR
    first = Entry(5, {DATA: NEW, DATA + SECTOR: NEW}, tail=start).build()  # 3 sectors
    second = Entry(6, {DATA + SECTOR: NEWER}, tail=start).build()
    assert content({start: first, SECTOR: second}) == patched({0: NEW, SECTOR: NEWER})


def test_a_torn_last_entry_ends_the_sequence() -> None:
    first = Entry(5, {DATA: NEW}).build()
    torn = bytearray(Entry(6, {DATA: NEWER}).build())
    torn[-100] ^= 1
    assert content({0: first, len(first): bytes(torn)}) == patched({0: NEW})


def test_the_sequence_with_the_highest_last_number_counts() -> None:
    log: dict[int, bytes] = {}
    for sequence, position in ((20, 0), (21, 2 * SECTOR)):
        log[position] = Entry(sequence, {DATA: NEW}, tail=0).build()
    for sequence, position in ((19, 512 * 1024), (22, 768 * 1024)):
        log[position] = Entry(sequence, {DATA: NEWER}, tail=position).build()
    assert content(log) == patched({0: NEWER})


def test_many_descriptors_fill_several_sectors() -> None:
    changes: dict[int, bytes | int] = {DATA + i * SECTOR: pattern(SECTOR, i) for i in range(200)}
    expected = {offset - DATA: bytes(data) for offset, data in changes.items()}
    assert content({0: Entry(1 << 40, changes).build()}) == patched(expected)


def test_a_log_may_change_the_bat() -> None:
    entry = Entry(5, {3 * MiB: struct.pack("<Q", 2).ljust(SECTOR, b"\0")})
    assert content({0: entry.build()}) == bytes(MiB)


def test_the_file_is_extended_with_zeros() -> None:
    bat = struct.pack("<Q", (5 << 20) | 6).ljust(SECTOR, b"\0")
    entry = Entry(5, {3 * MiB: bat, 5 * MiB: NEW}, last=6 * MiB)
    assert content({0: entry.build()}) == NEW.ljust(MiB, b"\0")


GOOD = Entry(5, {DATA: NEW})
REFUSED = {
    "empty": ({}, InvalidImage, "no complete sequence"),
    "wrong-guid": ({0: Entry(5, guid=bytes(16)).build()}, InvalidImage, "no complete"),
    "number-0": ({0: Entry(0).build()}, InvalidImage, "no complete"),
    "tail-elsewhere": ({0: Entry(5, tail=SECTOR).build()}, InvalidImage, "no complete"),
    "file-shortened": ({0: Entry(5, flushed=9 * MiB).build()}, Truncated, "9437184"),
    "change-behind-end": ({0: Entry(5, {5 * MiB: NEW}).build()}, InvalidImage, "changes"),
    "change-unaligned": ({0: Entry(5, {DATA + 1: NEW}).build()}, InvalidImage, "changes"),
    "zeros-unaligned": ({0: Entry(5, {DATA: 512}).build()}, InvalidImage, "changes"),
    "zeros-1-PiB": ({0: Entry(5, {DATA: 1 << 50}).build()}, InvalidImage, "changes"),
    "file-becomes-1-EiB": (
        {0: Entry(5, {DATA: NEW}, last=1 << 60).build()},
        InvalidImage,
        "at most",
    ),
}


@pytest.mark.parametrize(("log", "error", "cause"), REFUSED.values(), ids=REFUSED.keys())
def test_an_impossible_log_is_refused(
    log: dict[int, bytes], error: type[ImagingError], cause: str
) -> None:
    err = refusal(log)
    assert type(err) is error
    assert cause in str(err)


def test_another_log_version_is_refused() -> None:
    assert isinstance(refusal({0: GOOD.build()}, log_version=1), UnsupportedImage)


def test_a_log_larger_than_any_writer_makes_is_refused() -> None:
    header = vhdx_header(2, log_guid=GUID, log=(65 * MiB, 9 * MiB))
    image = Vhdx(MiB, {0: pattern(MiB)}, headers=(header, header), file_size=74 * MiB)
    size, parts = image.layout()
    file = MemoryDevice(size)
    for offset, data in parts.items():
        file.write(offset, data)
    with pytest.raises(UnsupportedImage, match="68157440 bytes"):
        open_vhdx(file)


def test_more_changes_than_any_writer_makes_are_refused() -> None:
    zeros: dict[int, bytes | int] = {DATA + i: 0 for i in range(0, 16385 * SECTOR, SECTOR)}
    err = refusal({0: Entry(5, zeros, last=1 << 40).build()})
    assert isinstance(err, UnsupportedImage)


def test_every_flipped_byte_of_an_entry_takes_it_out() -> None:
    entry = GOOD.build()
    for offset in [*range(64), 70, 95, 4000, SECTOR, SECTOR + 7, 6000, len(entry) - 1]:
        broken = bytearray(entry)
        broken[offset] ^= 0x40
        assert isinstance(refusal({0: bytes(broken)}), InvalidImage)


def test_entries_in_any_order_of_positions_make_one_sequence() -> None:
    ring, rng = 64 * SECTOR, random.Random(1)
    for _ in range(50):
        start, position = rng.randrange(64) * SECTOR, 0
        entries: dict[int, LogEntry] = {}
        for number in range(rng.randrange(1, 16)):
            length = rng.randrange(1, 4) * SECTOR
            at = (start + position) % ring
            entries[at] = LogEntry(at, length, start, 100 + number, 0, 0, 0)
            position += length
        shuffled = dict(rng.sample(sorted(entries.items()), len(entries)))
        found = active_sequence(shuffled, ring)
        assert [entry.sequence for entry in found] == [100 + i for i in range(len(entries))]


def test_the_log_of_a_parent_is_replayed_too() -> None:
    base = image({0: Entry(1, {DATA: NEW}).build()})
    child = VhdxChild(
        MiB, {0: pattern(MiB, 9)}, sectors={0: [1]}, paths={"relative_path": "base.vhdx"}
    )
    place = MemoryFolder({"base.vhdx": base})
    disk = open_image(MemoryDevice(child.build()), name="top.avhdx", siblings=place)
    expected = bytearray(patched({0: NEW}))
    expected[512:1024] = pattern(MiB, 9)[512:1024]
    assert read_bytes(disk, 0, MiB) == expected
    assert disk.info.dirty is False
    assert "the changes in its log were applied" in disk.info.warnings[0]
