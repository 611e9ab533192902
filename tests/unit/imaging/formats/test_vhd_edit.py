"""VHD written in place: what is written is read, and no power loss leaves anything else."""

from collections.abc import Callable

import pytest

from imaging.device import read_bytes
from imaging.errors import DeviceIOError, DiskTooLarge, InvalidImage, UnsupportedImage
from imaging.formats import edit_image, open_image
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder, VhdChild
from tests.support.disks import DynamicVhd, KiB, MiB, fixed_vhd, pattern, vhd_footer
from tests.support.editing import Edited, assert_sound_after_any_failure, change_at_random
from tests.support.powerloss import RecordedDevice

pytestmark = pytest.mark.exhaustive

BLOCK = 512 * KiB
SIZE = 6 * BLOCK + 4 * KiB


def _model(blocks: dict[int, bytes]) -> bytearray:
    content = bytearray(SIZE)
    for block, data in blocks.items():
        content[block * BLOCK : block * BLOCK + len(data)] = data
    return content


def fixed() -> Edited:
    content = pattern(SIZE)
    return Edited(RecordedDevice(fixed_vhd(content)), "vhd", bytearray(content))


def dynamic(cut: int = 0) -> Edited:
    blocks = {1: pattern(BLOCK, 1), 6: pattern(4 * KiB, 6)}
    content = DynamicVhd(SIZE, blocks).build()
    return Edited(RecordedDevice(content[: len(content) - cut]), "vhd", _model(blocks))


def child() -> Edited:
    """A child with a whole block and one of some sectors over a full parent."""
    base = pattern(SIZE, 9)
    parent = fixed_vhd(base)
    blocks = {1: pattern(BLOCK, 1), 3: pattern(BLOCK, 3)}
    image = VhdChild(
        SIZE, blocks, sectors={3: [0, 5, 6, 100]}, name="base.vhd", unique_id=b"child" * 3 + b"!"
    )
    content = bytearray(base)
    content[BLOCK : 2 * BLOCK] = blocks[1]
    for sector in (0, 5, 6, 100):
        at = sector * 512
        content[3 * BLOCK + at : 3 * BLOCK + at + 512] = blocks[3][at : at + 512]
    folder = MemoryFolder({"base.vhd": parent})
    return Edited(RecordedDevice(image.build()), "vhd", content, folder)


KINDS: dict[str, Callable[[], Edited]] = {
    "fixed": fixed,
    "dynamic": dynamic,
    "dynamic-511": lambda: dynamic(cut=1),
    "child": child,
}
_EACH = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


@_EACH
def test_the_images_of_this_file_hold_what_their_models_say(make: Callable[[], Edited]) -> None:
    edited = make()
    edited.assert_reads()
    edited.assert_reopens()


@_EACH
@pytest.mark.parametrize("seed", range(5))
def test_any_changes_are_read_back(make: Callable[[], Edited], seed: int) -> None:
    edited = make()
    change_at_random(edited, seed, 25)
    edited.flush()
    edited.assert_reopens()
    edited.image.close()
    edited.assert_reopens()
    footer = read_bytes(edited.file, edited.file.size - 512, 512)
    assert footer.startswith(b"conectix") or make is KINDS["dynamic-511"]


@_EACH
def test_a_power_loss_leaves_what_was_flushed_or_something_newer(
    make: Callable[[], Edited],
) -> None:
    edited = make()
    edited.write(10, b"unaligned")
    edited.write(2 * BLOCK + 512, pattern(BLOCK, 20))
    edited.flush()
    edited.zero(3 * BLOCK - 700, 2000)
    edited.write(3 * BLOCK + 512, pattern(512, 21))
    edited.write(SIZE - 5000, pattern(5000, 22))
    edited.flush()
    edited.zero(0, 2 * BLOCK)
    edited.image.close()
    assert edited.assert_survives_power_loss() > 30


def test_a_block_that_looks_like_a_footer_is_never_taken_for_one() -> None:
    """A guest's block whose end is a footer, written where the file ends: the file's own footer stays the last."""
    edited = dynamic()
    nested = vhd_footer(BLOCK - 512)
    edited.write(2 * BLOCK, pattern(BLOCK - 512, 5) + nested)
    edited.flush()
    edited.image.close()
    edited.assert_survives_power_loss()


def test_room_that_was_made_ahead_is_given_back() -> None:
    edited = dynamic()
    before = edited.file.size
    edited.write(0, b"x")
    edited.flush()
    edited.image.close()
    assert edited.file.size - before <= BLOCK + 8 * KiB
    edited.assert_reopens()


@pytest.mark.parametrize("block_size", [512, 2 * KiB, 4 * KiB, 64 * KiB])
def test_footers_that_were_moved_on_do_not_show_in_later_blocks(block_size: int) -> None:
    """Room is made ahead several times, and of each block only a sector is written: the rest is zeros."""
    size = 40 * block_size
    blocks = {0: pattern(block_size)}
    content = DynamicVhd(size, blocks, block_size=block_size).build()
    model = bytearray(blocks[0] + bytes(size - block_size))
    edited = Edited(RecordedDevice(content), "vhd", model)
    for block in range(1, 40):
        edited.write(block * block_size, pattern(512, block))
    edited.assert_reads()
    edited.flush()
    edited.image.close()
    edited.assert_reopens()
    assert edited.file.size <= len(content) + 39 * (block_size + 4 * KiB)


def test_opening_alone_and_flushing_twice_change_nothing() -> None:
    edited = dynamic()
    edited.image.flush()
    assert edited.done == 0
    edited.write(0, b"x")
    edited.flush()
    count = edited.done
    edited.flush()
    assert edited.done == count
    edited.image.close()
    edited.reopen()
    count = edited.done
    edited.image.close()
    assert edited.done == count


def test_zeros_where_nothing_is_take_no_space() -> None:
    edited = dynamic()
    size = edited.file.size
    edited.zero(2 * BLOCK, BLOCK)
    edited.flush()
    assert edited.file.size == size


def test_changes_of_metadata_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.formats.vhd.edit._MANY", 1)
    edited = child()
    for block in (0, 2, 4):
        edited.write(block * BLOCK + 512, pattern(512, block))
        assert not list(edited.image._changes.changes())  # type: ignore[attr-defined]
    edited.image.close()
    edited.assert_survives_power_loss()


def test_what_one_write_leaves_behind_a_commit_is_flushed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Metadata are made durable in the middle of a write: the rest of it waits for the next flush."""
    monkeypatch.setattr("imaging.formats.vhd.edit._MANY", 2)
    edited = dynamic()
    edited.write(2 * BLOCK, pattern(3 * BLOCK, 4))
    edited.flush()
    edited.assert_survives_power_loss()


def test_after_a_failed_flush_closing_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    edited = dynamic()
    edited.write(2 * BLOCK, b"x")

    def fail(_: RecordedDevice) -> None:
        raise DeviceIOError("the storage failed")

    with monkeypatch.context() as patched:
        patched.setattr(RecordedDevice, "flush", fail)
        with pytest.raises(DeviceIOError):
            edited.image.flush()
    count = edited.done
    edited.image.close()
    assert edited.done == count


def test_written_sectors_of_a_dynamic_disk_are_marked() -> None:
    edited = dynamic()
    bitmap = edited.image._table.entry(1)  # type: ignore[attr-defined]
    edited.image.close()
    edited.file.write(bitmap, bytes(128))  # what an old writer might have left
    edited.reopen()
    edited.write(BLOCK + 512, pattern(1024, 3))
    edited.write(5 * BLOCK, b"a new block")
    edited.flush()
    assert read_bytes(edited.file, bitmap, 2) == bytes([0b0110_0000, 0])
    fresh = edited.image._table.entry(5)  # type: ignore[attr-defined]
    assert read_bytes(edited.file, fresh, 128) == b"\xff" * 128


def test_a_full_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging.formats.vhd.edit.ABSENT", 8)
    with pytest.raises(DiskTooLarge, match="full"):
        dynamic().write(0, b"x")


def test_a_damaged_footer_is_not_moved() -> None:
    content = bytearray(DynamicVhd(SIZE, {1: pattern(BLOCK)}).build())
    content[-100] ^= 1
    assert open_image(MemoryDevice(content), format="vhd").info.warnings
    with pytest.raises(InvalidImage, match="repair"):
        edit_image(MemoryDevice(content), format="vhd")


def test_a_suspended_machines_disk_is_not_written() -> None:
    content = fixed_vhd(pattern(MiB), saved_state=1)
    with pytest.raises(UnsupportedImage, match="suspended"):
        edit_image(MemoryDevice(content), format="vhd")


@_EACH
def test_after_any_one_failure_the_file_is_sound_and_no_success_was_a_lie(
    make: Callable[[], Edited],
) -> None:
    assert_sound_after_any_failure(make)
