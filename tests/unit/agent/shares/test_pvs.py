"""Files of a PVS store become vDisks: chains, locks, and what belongs to none."""

import pytest

from agent.shares.base import Entry
from agent.shares.pvs import VDisk, group_vdisks


def _entries(*names: str) -> list[Entry]:
    return [
        Entry(name, is_folder=name.endswith("/"), size=5, allocated=4096, write_time_ns=1)
        for name in names
    ]


def _one(*names: str) -> VDisk:
    (disk,), rest = group_vdisks(_entries(*names))
    assert rest == []
    return disk


def test_a_chain_is_one_vdisk_from_its_last_base() -> None:
    disk = _one("G.vhdx", "G.pvp", "G.1.avhdx", "G.1.pvp", "G.2.vhdx", "G.2.pvp", "G.3.avhdx")
    assert [version.file.name for version in disk.chain] == ["G.2.vhdx", "G.3.avhdx"]
    assert disk.is_whole
    assert [version.has_properties for version in disk.versions] == [True, True, True, False]


def test_a_chain_with_a_gap_is_not_whole() -> None:
    disk = _one("G.vhdx", "G.pvp", "G.1.avhdx", "G.3.avhdx")
    assert [version.number for version in disk.chain] == [3]
    assert not disk.is_whole


@pytest.mark.parametrize(
    ("lock", "locked"), [("G.lok", False), ("G.2.lok", True), ("G.3.lok", True)]
)
def test_a_lock_counts_if_the_newest_version_needs_its_file(lock: str, *, locked: bool) -> None:
    disk = _one("G.vhdx", "G.1.avhdx", "G.2.vhdx", "G.3.avhdx", lock)
    assert disk.is_locked == locked


def test_names_are_compared_as_windows_does() -> None:
    disk = _one("Gold.VHDX", "gold.PVP", "GOLD.1.AVHDX")
    assert (disk.name, len(disk.versions), disk.versions[0].has_properties) == ("Gold", 2, True)


def test_a_lone_image_is_no_vdisk() -> None:
    disks, rest = group_vdisks(_entries("a.vhdx", "b.vhd", "sub/", "notes.txt", "x.1.lok"))
    assert disks == []
    assert [entry.name for entry in rest] == ["a.vhdx", "b.vhd", "notes.txt", "sub/", "x.1.lok"]


def test_a_name_with_numbers_and_dots_stays_one_name() -> None:
    disk = _one("Win11.23H2.vhdx", "Win11.23H2.pvp", "Win11.23H2.1.avhdx")
    assert disk.name == "Win11.23H2"
    assert [version.number for version in disk.versions] == [0, 1]


def test_a_lock_beside_no_image_is_kept_in_mind() -> None:
    disk = _one("G.vhdx", "G.7.lok")
    assert disk.loose == [7]
    assert not disk.is_locked
