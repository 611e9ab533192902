"""What a check finds in raw, VHD and VHDX images that open: each fault alone, and nothing in sound ones."""

import struct
from collections.abc import Callable

import pytest

from imaging.check import CheckReport, Finding, Severity
from imaging.errors import ImagingError, ParentNeeded
from imaging.formats import check_image
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder, VhdChild, VhdxChild, vhd_chain, vhdx_chain
from tests.support.disks import (
    BAT_OFFSET,
    DynamicVhd,
    KiB,
    MiB,
    Vhdx,
    fixed_vhd,
    pattern,
    region_table,
    vhd_footer,
    vhdx_header,
)
from tests.unit.imaging.formats.test_vhdx_log import DATA, NEW, Entry, image

BLOCK = 512 * KiB


def vhdx(**fields: object) -> bytes:
    return Vhdx(4 * MiB, **{"blocks": {0: pattern(MiB), 2: pattern(MiB, 2)}, **fields}).build()


def vhd(**fields: object) -> bytes:
    return DynamicVhd(4 * BLOCK, {2: pattern(BLOCK, 2), 0: pattern(BLOCK)}, **fields).build()


def checked(
    content: bytes, form: str | None = None, files: dict[str, bytes] | None = None
) -> CheckReport:
    return check_image(
        MemoryDevice(content, read_only=True),
        format=form,
        name="top",
        siblings=MemoryFolder(files or {}),
    )


def only(report: CheckReport) -> Finding:
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def changed(content: bytes, at: int, data: bytes) -> bytes:
    return content[:at] + data + content[at + len(data) :]


SOUND: dict[str, Callable[[], bytes]] = {
    "raw": lambda: pattern(MiB),
    "vhd-fixed": lambda: fixed_vhd(pattern(MiB)),
    "vhd-dynamic": vhd,
    "vhd-more-entries": lambda: vhd(max_entries=100),
    "vhdx": vhdx,
    "vhdx-unmapped": lambda: vhdx(states={2: (5 << 20) | 3}),  # keeps its place, as Hyper-V does
    "vhdx-last-block-cut": lambda: Vhdx(MiB + 512, {1: pattern(512), 0: pattern(MiB)}).build(),
}


@pytest.mark.parametrize("make", SOUND.values(), ids=SOUND.keys())
def test_a_sound_image_is_clean(make: Callable[[], bytes]) -> None:
    report = checked(make())
    assert report.findings == ()
    assert report.clean


@pytest.mark.parametrize("make", [vhd_chain, vhdx_chain], ids=["vhd", "vhdx"])
def test_a_sound_chain_is_clean_and_names_its_parent(make: Callable[..., dict[str, bytes]]) -> None:
    files = make([(2 * MiB, [(0, pattern(2 * MiB))]), (2 * MiB, [(512, pattern(512))])])
    base, top = files
    form = base.rpartition(".")[2]
    report = checked(files[top], form, files)
    assert (report.findings, report.parent, report.subformat) == ((), base, "differencing")
    with pytest.raises(ParentNeeded):
        checked(files[top], form)


# --- raw -----------------------------------------------------------------------------------------


def test_a_raw_size_that_is_no_sector_multiple_is_found() -> None:
    found = only(checked(pattern(1000), "raw"))
    assert (found.code, found.offset, found.length) == ("check.size-odd", 512, 488)


# --- VHD -----------------------------------------------------------------------------------------


def test_a_damaged_footer_and_a_damaged_copy_of_it_are_safe_to_repair() -> None:
    content = vhd()
    found = only(checked(changed(content, 100, b"\xff"), "vhd"))
    assert (found.code, found.offset, found.repairable) == ("check.copy-damaged", 0, True)
    end = len(content) - 512
    found = only(checked(changed(content, end + 100, b"\xff")))
    assert (found.code, found.offset, found.repairable) == ("check.copy-damaged", end, True)
    assert found.severity is Severity.ERROR


def test_sound_footers_that_differ_are_not_safe_to_repair() -> None:
    other = vhd_footer(4 * BLOCK, disk_type=3, data_offset=512, unique_id=bytes(16))
    content = vhd()
    found = only(checked(changed(content, 0, other)))
    assert (found.code, found.repairable) == ("check.copies-differ", False)
    assert found.offset == len(content) - 512 + 67  # the last byte of the checksum


def test_a_footer_of_511_bytes_and_a_saved_state_are_told() -> None:
    report = checked(fixed_vhd(pattern(MiB))[:-1], "vhd")
    assert (only(report).code, report.clean) == ("check.short-footer", True)
    report = checked(fixed_vhd(pattern(MiB), saved_state=1), "vhd")
    assert (only(report).code, report.clean) == ("check.saved-state", False)


def test_bytes_between_a_fixed_disk_and_its_footer_are_leaked() -> None:
    found = only(checked(pattern(MiB) + b"x" * 1024 + vhd_footer(MiB), "vhd"))
    assert (found.code, found.offset, found.length) == ("check.leaked-space", MiB, 1024)


def test_a_vhd_block_that_the_table_forgot_is_leaked_space() -> None:
    content = vhd()
    found = only(checked(changed(content, 1536 + 8, b"\xff" * 4)))
    assert (found.code, found.severity) == ("check.leaked-space", Severity.WARNING)
    assert (found.offset, found.length) == (2048, 512 + BLOCK)


def test_holes_of_the_file_are_no_leak() -> None:
    file = MemoryDevice(64 * KiB + 2 * MiB + 512)
    content = DynamicVhd(4 * BLOCK).build()
    file.write(0, content[:-512])
    file.write(file.size - 512, content[-512:])
    assert check_image(file).findings == ()


def test_entries_behind_the_disk_that_name_blocks_are_unreachable() -> None:
    content = vhd(max_entries=100)
    found = only(checked(changed(content, 1536 + 4 * 50, struct.pack(">I", 4))))
    assert (found.code, found.offset) == ("check.unreachable", 1536 + 4 * 50)


def test_data_under_a_0_of_a_dynamic_bitmap_is_found() -> None:
    content = vhd()  # block 2 is the first in the file
    found = only(checked(changed(content, 2048 + 1, b"\xef")))
    assert found.code == "check.bitmap-hides-data"
    assert found.offset == 2048 + 512 + 11 * 512
    assert "block 2" in found.message
    zeros = changed(content, 2048 + 512 + 11 * 512, bytes(512))
    assert checked(changed(zeros, 2048 + 1, b"\xef")).findings == ()


# --- VHDX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kib", [64, 128, 192, 256])
def test_a_damaged_copy_is_safe_to_repair(kib: int) -> None:
    found = only(checked(vhdx(parts={kib * KiB + 20: b"\xff"})))
    assert (found.code, found.severity) == ("check.copy-damaged", Severity.ERROR)
    assert (found.offset, found.repairable) == (kib * KiB, True)


def test_equal_headers_are_noted() -> None:
    report = checked(vhdx(headers=(vhdx_header(1), vhdx_header(1))))
    assert (only(report).code, report.clean) == ("check.headers-equal", True)


def test_sound_region_tables_that_differ_are_not_safe_to_repair() -> None:
    found = only(checked(vhdx(parts={256 * KiB: region_table([])})))
    assert (found.code, found.offset, found.repairable) == ("check.copies-differ", 256 * KiB, False)


def test_a_log_that_waits_is_safe_to_repair() -> None:
    found = only(checked(image({0: Entry(1, {DATA: NEW}).build()})))
    assert (found.code, found.offset, found.repairable) == ("check.log-pending", MiB, True)


def test_a_vhdx_block_that_the_table_forgot_is_leaked_space() -> None:
    found = only(checked(vhdx(states={2: 0})))
    assert (found.code, found.offset, found.length) == ("check.leaked-space", 5 * MiB, MiB)
    found = only(checked(vhdx(file_size=9 * MiB, parts={8 * MiB: b"x"})))
    assert (found.offset, found.length) == (6 * MiB, 3 * MiB)


def test_a_bitmap_of_a_disk_without_a_parent_is_found() -> None:
    made = Vhdx(0, block_size=256 * MiB)
    made.size = 17 * made.block_size
    made.parts = {BAT_OFFSET + 16 * 8: struct.pack("<Q", (3 << 20) | 6)}
    assert only(checked(made.build())).code == "check.bitmap-unneeded"


@pytest.mark.parametrize(("sectors", "whose"), [([], "parent's"), (range(2048), "image's")])
def test_a_partial_block_that_is_not_is_noted(sectors: list[int], whose: str) -> None:
    paths = {"relative_path": "base.vhdx"}
    child = VhdxChild(4 * MiB, {1: pattern(MiB)}, sectors={1: sectors}, paths=paths)
    report = checked(child.build(), "vhdx", {"base.vhdx": vhdx()})
    assert (only(report).code, report.clean) == ("check.bitmap-uniform", True)
    assert whose in only(report).message


def test_a_stale_sector_of_a_vhd_child_is_no_fault() -> None:
    child = VhdChild(4 * BLOCK, {1: pattern(BLOCK)}, sectors={1: [3]}, name="base.vhd")
    assert checked(child.build(), "vhd", {"base.vhd": vhd()}).findings == ()


# --- in general ----------------------------------------------------------------------------------


def test_what_cannot_be_read_is_an_error_and_no_report() -> None:
    for content, form in ((vhdx(states={1: (4 << 20) | 6}), "vhdx"), (vhd()[:1024], "vhd")):
        with pytest.raises(ImagingError):
            checked(content, form)


def test_a_thousand_faults_are_a_short_report() -> None:
    blocks = {block: pattern(4 * KiB, block) for block in range(100)}
    content = bytearray(DynamicVhd(100 * 4 * KiB, blocks, block_size=4 * KiB).build())
    for block in range(100):
        content[2048 + block * (512 + 4 * KiB)] = 0
    report = checked(bytes(content))
    assert len(report.findings) == 21
    assert report.findings[-1].message == "and 80 more"
