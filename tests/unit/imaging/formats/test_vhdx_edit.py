"""VHDX written in place: what is written is read, by us and by others, and no power loss leaves anything else."""

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from imaging.device import read_bytes
from imaging.errors import DeviceIOError, ImagingError, InvalidImage, UnsupportedImage
from imaging.formats import edit_image, open_image
from imaging.formats.vhdx.entries import (
    state_of,
)
from imaging.formats.vhdx.headers import read_header
from imaging.formats.vhdx.layout import HEADER_OFFSETS, HEADER_SIZE, NO_GUID, parse_header
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder, VhdxChild, vhdx_chain
from tests.support.disks import LOG_OFFSET, KiB, MiB, Vhdx, pattern, vhdx_header
from tests.support.editing import (
    Edited,
    Failing,
    assert_sound_after_any_failure,
    change_at_random,
)
from tests.support.powerloss import RecordedDevice
from tests.support.vhdx_logs import DATA, Entry
from tests.support.vhdx_logs import image as image_with_log

pytestmark = pytest.mark.exhaustive

SIZE = 5 * MiB + 8 * KiB


def dynamic(sector: int = 512) -> Edited:
    blocks = {1: pattern(MiB, 1), 5: pattern(8 * KiB, 5)}
    content = bytearray(SIZE)
    for block, data in blocks.items():
        content[block * MiB : block * MiB + len(data)] = data
    file = Vhdx(SIZE, blocks, sector=sector, states={2: 2, 3: 3 | 77 * MiB}).build()
    return Edited(RecordedDevice(file), "vhdx", content)


def fixed() -> Edited:
    blocks = {block: pattern(MiB, block) for block in range(6)}
    content = b"".join(blocks.values())[:SIZE]
    file = Vhdx(SIZE, blocks, flags=1).build()
    return Edited(RecordedDevice(file), "vhdx", bytearray(content))


def child(sector: int = 512) -> Edited:
    """A child with a block of each state over a full parent."""
    base = pattern(SIZE, 9)
    parent = Vhdx(SIZE, {b: base[b * MiB : (b + 1) * MiB] for b in range(6)}, sector=sector)
    blocks = {1: pattern(MiB, 1), 3: pattern(MiB, 3)}
    image = VhdxChild(
        SIZE,
        blocks,
        sector=sector,
        states={4: 2},
        sectors={3: [0, 5, 6, 100]},
        paths={"relative_path": ".\\base.vhdx"},
    )
    content = bytearray(base)
    content[MiB : 2 * MiB] = blocks[1]
    for number in (0, 5, 6, 100):
        at = number * sector
        content[3 * MiB + at : 3 * MiB + at + sector] = blocks[3][at : at + sector]
    content[4 * MiB : 5 * MiB] = bytes(MiB)
    folder = MemoryFolder({"base.vhdx": parent.build()})
    return Edited(RecordedDevice(image.build()), "vhdx", content, folder)


def bare_child() -> Edited:
    """A child that has no bitmap yet."""
    base = pattern(SIZE, 9)
    parent = Vhdx(SIZE, {b: base[b * MiB : (b + 1) * MiB] for b in range(6)})
    image = VhdxChild(SIZE, paths={"relative_path": ".\\base.vhdx"})
    folder = MemoryFolder({"base.vhdx": parent.build()})
    return Edited(RecordedDevice(image.build()), "vhdx", bytearray(base), folder)


KINDS: dict[str, Callable[[], Edited]] = {
    "dynamic": dynamic,
    "dynamic-4096": lambda: dynamic(4096),
    "fixed": fixed,
    "child": child,
    "child-bare": bare_child,
    "child-4096": lambda: child(4096),
}
_EACH = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


@_EACH
def test_the_images_of_this_file_hold_what_their_models_say(make: Callable[[], Edited]) -> None:
    edited = make()
    edited.assert_reads()
    edited.assert_reopens()


@_EACH
@pytest.mark.parametrize("seed", range(4))
def test_any_changes_are_read_back(make: Callable[[], Edited], seed: int) -> None:
    edited = make()
    change_at_random(edited, seed, 25)
    edited.flush()
    edited.assert_reopens()
    edited.image.close()
    edited.assert_reopens()
    assert read_header(edited.file)[0].log_guid == NO_GUID


@_EACH
def test_a_power_loss_leaves_what_was_flushed_or_something_newer(
    make: Callable[[], Edited],
) -> None:
    edited = make()
    edited.write(10, b"unaligned")
    edited.write(2 * MiB + 512, pattern(MiB, 20))
    edited.flush()
    edited.zero(3 * MiB - 700, 2000)
    edited.write(3 * MiB + 512, pattern(512, 21))
    edited.write(SIZE - 5000, pattern(5000, 22))
    edited.flush()
    edited.zero(0, 2 * MiB)
    edited.image.close()
    assert edited.assert_survives_power_loss() > 50


@pytest.mark.parametrize("make", [child, bare_child])
def test_many_changes_are_committed_in_parts_that_each_survive(make: Callable[[], Edited]) -> None:
    """More metadata pages than one log entry holds: a child whose bitmaps and BAT entries lie far apart."""
    edited = make()
    image = edited.image
    image._log.capacity = 1  # type: ignore[attr-defined]
    for block in (0, 2, 5):
        edited.write(block * MiB + 512, pattern(512, block))
        assert not image._pages.changed  # type: ignore[attr-defined]
    edited.zero(4 * MiB, 512)
    edited.flush()
    assert not list(image._pages.changes())  # type: ignore[attr-defined]
    edited.write(4 * MiB + 4096, pattern(512, 30))
    edited.image.close()
    edited.assert_survives_power_loss()


def test_what_one_write_leaves_behind_a_commit_is_flushed_too() -> None:
    """Block 0 is new, which is committed; block 1, in the same write, is there and written in place."""
    edited = dynamic()
    edited.image._log.capacity = 1  # type: ignore[attr-defined]
    edited.write(512, pattern(2 * MiB - 512, 4))
    edited.flush()
    edited.assert_survives_power_loss()


def test_a_log_that_is_there_is_applied_to_the_file() -> None:
    new = pattern(4096, 7)
    entry = Entry(5, {DATA + 8192: new, DATA + 65536: 3 * 4096})
    content = image_with_log({0: entry.build()})
    before = open_image(MemoryDevice(content), format="vhdx")
    model = bytearray(read_bytes(before, 0, before.size))
    edited = Edited(RecordedDevice(content), "vhdx", model)
    assert model[8192:12288] == new
    edited.assert_reads()
    edited.assert_reopens()
    reopened = open_image(edited.file, format="vhdx")
    assert not reopened.info.dirty
    edited.write(MiB - 512, b"\1" * 512)
    edited.image.close()
    edited.assert_survives_power_loss()


def test_a_log_is_not_applied_to_an_image_that_is_damaged_with_it() -> None:
    bad = pattern(4096, 7)  # as the first page of the BAT: reserved states
    content = image_with_log({0: Entry(5, {3 * MiB: bad}).build()})
    file = RecordedDevice(content)
    with pytest.raises(ImagingError):
        edit_image(file, format="vhdx")
    assert file.recording.operations == []


def test_opening_alone_changes_nothing() -> None:
    edited = dynamic()
    edited.image.flush()
    edited.image.close()
    assert edited.file.recording.operations == []


def test_a_change_gives_the_file_new_guids_before_anything_else() -> None:
    edited = dynamic()
    before = read_header(edited.file)[0]
    edited.write(MiB, b"in a block that is there")
    first = edited.file.recording.operations[0]
    assert struct.unpack_from("<4s", first.data or b"") == (b"head",)
    after = read_header(edited.file)[0]
    assert after.data_write_guid != before.data_write_guid
    assert after.sequence == before.sequence + 2


def test_a_child_notices_that_its_parent_was_written() -> None:
    files = vhdx_chain([(2 * MiB, [(0, pattern(MiB))]), (2 * MiB, [(512, pattern(512, 3))])])
    base, top = files
    parent = MemoryDevice(files[base])
    editor = edit_image(parent, format="vhdx")
    editor.write(0, b"changed")
    editor.close()
    folder = MemoryFolder({base: read_bytes(parent, 0, parent.size)})
    with pytest.raises(ImagingError, match="parent"):
        open_image(MemoryDevice(files[top]), format="vhdx", siblings=folder)


def test_flushing_twice_writes_nothing_the_second_time() -> None:
    edited = dynamic()
    edited.write(0, b"x")
    edited.flush()
    count = edited.done
    edited.flush()
    assert edited.done == count


def test_zeros_where_nothing_is_take_no_space() -> None:
    edited = dynamic()
    size = edited.file.size
    edited.zero(0, MiB)
    edited.zero(2 * MiB, MiB)
    edited.flush()
    assert edited.file.size == size


def test_bits_of_an_earlier_life_of_a_block_do_not_count() -> None:
    """A block that is NOT_PRESENT again, with its old bits still in the bitmap (2.5.1.2)."""
    edited = child()
    bitmap = edited.image._bitmaps  # type: ignore[attr-defined]
    where, first = edited.image._bitmap_of(2)  # type: ignore[attr-defined]
    bitmap.assign(where, first, 2048, to=True)
    edited.image._commit()  # type: ignore[attr-defined]
    edited.assert_reads()
    edited.image._log.capacity = 1  # type: ignore[attr-defined]
    edited.write(2 * MiB + 512, pattern(512, 40))
    edited.flush()
    edited.assert_reads()
    edited.image.close()
    edited.assert_survives_power_loss()


def test_a_log_may_make_the_file_longer() -> None:
    content = image_with_log({0: Entry(5, {DATA: pattern(4096, 7)}, last=9 * MiB).build()})
    file = RecordedDevice(content)
    edit_image(file, format="vhdx").close()
    assert file.size == 9 * MiB


def test_both_headers_are_sound_and_neighbours_after_each_change() -> None:
    edited = dynamic()
    edited.write(0, b"x")
    edited.flush()
    edited.image.close()
    one, two = (parse_header(read_bytes(edited.file, at, HEADER_SIZE), at) for at in HEADER_OFFSETS)
    assert abs(one.sequence - two.sequence) == 1
    assert replace(one, sequence=0) == replace(two, sequence=0)


def test_blocks_are_aligned_in_a_file_that_ended_inside_one() -> None:
    blocks = {5: pattern(8 * KiB, 5)}
    vhdx = Vhdx(SIZE, blocks)
    vhdx.file_size = vhdx.data_offset + 8 * KiB
    content = bytearray(5 * MiB) + blocks[5]
    edited = Edited(RecordedDevice(vhdx.build()), "vhdx", content)
    edited.write(MiB, b"new")
    edited.flush()
    edited.image.close()
    edited.assert_survives_power_loss()


def test_a_whole_block_of_a_child_needs_no_bitmap() -> None:
    edited = bare_child()
    edited.write(2 * MiB, pattern(MiB, 2))
    edited.write(5 * MiB, pattern(SIZE - 5 * MiB, 3))
    table = edited.image._table  # type: ignore[attr-defined]
    assert [state_of(table.entry(block)) for block in range(6)] == [0, 0, 6, 0, 0, 6]
    edited.flush()
    edited.assert_reopens()


def test_a_log_that_would_not_be_replayed_is_not_written() -> None:
    header = vhdx_header(2, log=(65 * MiB, 5 * MiB))
    long = Vhdx(MiB, headers=(vhdx_header(1), header), file_size=70 * MiB)
    for content in (image_with_log({}, log_version=1, guid=NO_GUID), long.build()):
        open_image(MemoryDevice(content), format="vhdx").close()
        file = RecordedDevice(content)
        with pytest.raises(UnsupportedImage, match="log"):
            edit_image(file, format="vhdx")
        assert file.recording.operations == []


@pytest.mark.parametrize("at", [0, 128 * KiB, LOG_OFFSET, LOG_OFFSET + MiB - 4096])
@pytest.mark.parametrize("change", [pattern(4096), 4096], ids=["data", "zeros"])
def test_a_log_that_changes_headers_or_itself_is_not_applied(at: int, change: bytes | int) -> None:
    content = image_with_log({0: Entry(5, {at: change}).build()})
    file = RecordedDevice(content)
    with pytest.raises(InvalidImage, match="headers or the log itself"):
        edit_image(file, format="vhdx")
    assert file.recording.operations == []


@pytest.mark.parametrize("make", [dynamic, child])
def test_after_any_one_failure_the_file_is_sound_and_no_success_was_a_lie(
    make: Callable[[], Edited],
) -> None:
    assert_sound_after_any_failure(make)


def test_a_flush_that_failed_is_not_tried_again() -> None:
    edited = dynamic()
    content = edited.file.recording.initial
    for number in range(6, 14):
        file = Failing(content, number)
        image = edit_image(file, format="vhdx")
        image.write(0, b"new block")
        with pytest.raises(DeviceIOError, match="failed once"):
            image.flush()
        count = len(file.recording.operations)
        for again in (image.flush, partial(image.write, 0, b"y"), partial(image.zero, 0, 1)):
            with pytest.raises(DeviceIOError, match="open it anew"):
                again()
        assert read_bytes(image, 0, 9) == b"new block"
        image.close()
        assert len(file.recording.operations) == count


def test_headers_that_leave_no_higher_number_are_not_written() -> None:
    """Found by the fuzz campaign (vhdx-ours-fixed:field:2481)."""
    headers = (vhdx_header(1), vhdx_header(2**64 - 1))
    file = RecordedDevice(Vhdx(MiB, {0: pattern(MiB)}, headers=headers).build())
    assert open_image(file, format="vhdx").size == MiB
    with pytest.raises(InvalidImage, match="sequence number"):
        edit_image(file, format="vhdx")
    assert file.recording.operations == []


def test_a_child_that_is_refused_leaves_its_parent_closed() -> None:
    edited = child()
    edited.image.close()
    content = bytearray(read_bytes(edited.file, 0, edited.file.size))
    for at in (64 * KiB, 128 * KiB):
        content[at : at + 4 * KiB] = vhdx_header(2**64 - 2)
    folder = edited.siblings
    assert isinstance(folder, MemoryFolder)
    with pytest.raises(InvalidImage, match="sequence number"):
        edit_image(RecordedDevice(bytes(content)), format="vhdx", siblings=folder)
    assert folder.left_open == 0
