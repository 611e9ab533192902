"""PageFile keeps bytes and ranges, comes back after a kill, and tolerates a torn last line."""

from pathlib import Path

import pytest

from appliance.sim.store import RECORD, PageFile

PAGE = 512


@pytest.fixture
def file(tmp_path: Path) -> PageFile:
    return PageFile(tmp_path, "one", 64 * PAGE, create=True)


def _reopened(tmp_path: Path) -> PageFile:
    return PageFile(tmp_path, "one", 64 * PAGE, create=False)


def test_chunks_are_stored_joined(file: PageFile) -> None:
    file.write(PAGE, [b"a" * 100, b"b" * 412])
    assert file.read(PAGE, PAGE) == b"a" * 100 + b"b" * 412
    assert list(file.pages.within(0, file.size)) == [(PAGE, PAGE)]


def test_body_in_thousands_of_pieces_is_stored(file: PageFile) -> None:
    file.write(0, [b"z"] * 8 * PAGE)
    assert file.read(0, 9 * PAGE) == b"z" * 8 * PAGE + bytes(PAGE)


def test_cleared_pages_read_as_zeros_and_are_forgotten(file: PageFile) -> None:
    file.write(0, [b"x" * 4 * PAGE])
    file.clear(PAGE, 2 * PAGE)
    assert file.read(0, 4 * PAGE) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE
    assert list(file.pages.within(0, file.size)) == [(0, PAGE), (3 * PAGE, PAGE)]


def test_killed_store_comes_back_with_every_acknowledged_write(
    file: PageFile, tmp_path: Path
) -> None:
    file.write(0, [b"x" * 4 * PAGE])
    file.clear(PAGE, PAGE)
    again = _reopened(tmp_path)  # the first one is never closed: that is the kill
    assert list(again.pages.within(0, again.size)) == list(file.pages.within(0, file.size))
    assert again.read(0, 4 * PAGE) == file.read(0, 4 * PAGE)
    assert again.writes == file.writes


def test_count_of_writes_survives_two_restarts(file: PageFile, tmp_path: Path) -> None:
    for _ in range(3):
        file.write(0, [b"y" * PAGE])
    assert _reopened(tmp_path).writes == 3
    assert _reopened(tmp_path).writes == 3


def test_torn_last_line_is_dropped(file: PageFile, tmp_path: Path) -> None:
    file.write(0, [b"x" * PAGE])
    with (tmp_path / "one.pages").open("ab") as lines:
        lines.write(RECORD.pack(1, 8 * PAGE, PAGE)[:-1])
    assert list(_reopened(tmp_path).pages.within(0, file.size)) == [(0, PAGE)]


def test_shrinking_forgets_what_was_cut_off(file: PageFile) -> None:
    file.write(8 * PAGE, [b"x" * PAGE])
    file.resize(4 * PAGE)
    file.resize(64 * PAGE)
    assert list(file.pages.within(0, file.size)) == []
    assert file.read(8 * PAGE, PAGE) == bytes(PAGE)


def test_huge_object_costs_no_disk_space(tmp_path: Path) -> None:
    file = PageFile(tmp_path, "huge", 64 << 30, create=True)
    file.write((64 << 30) - PAGE, [b"x" * PAGE])
    assert (tmp_path / "huge.data").stat().st_blocks * 512 < 1 << 20


def test_flip_changes_one_bit_and_no_range(file: PageFile) -> None:
    file.write(0, [bytes(PAGE)])
    file.flip(10)
    assert file.read(0, PAGE) == bytes(10) + b"\x01" + bytes(PAGE - 11)
    assert list(file.pages.within(0, file.size)) == [(0, PAGE)]
