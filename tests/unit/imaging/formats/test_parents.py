"""Which file beside an image is its parent, what proves it, and which references are refused."""

from typing import Any

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    ImagingError,
    InvalidImage,
    ParentMismatch,
    ParentNeeded,
    ReferenceRefused,
)
from imaging.formats import open_image
from imaging.memory import MemoryDevice
from tests.support.chains import linkage, parent_locator, vhdx_chain
from tests.support.disks import MiB, pattern
from tests.unit.imaging.formats.test_layered import (
    VHD_BLOCK,
    base_vhdx,
    opened,
    refusal,
    vhd_child,
    vhd_pair,
    vhdx_child,
    vhdx_pair,
)


@pytest.mark.parametrize(
    "paths",
    [
        {"relative_path": "sub\\dir/base.vhdx"},
        {"relative_path": ".\\gone.vhdx", "absolute_win32_path": "C:\\x\\base.vhdx"},
        {"volume_path": "\\\\?\\Volume{26a2}\\x\\base.vhdx"},
        {"absolute_win32_path": "\\\\?\\C:\\..\\base.vhdx"},
    ],
    ids=["relative", "second", "volume", "absolute"],
)
def test_only_the_last_component_counts_and_only_beside_the_image(paths: dict[str, str]) -> None:
    disk, folder = opened(vhdx_pair(vhdx_child(paths=paths)), "top.avhdx")
    assert disk.info.parent == "base.vhdx"
    assert set(folder.asked) <= {"base.vhdx", "gone.vhdx"}


@pytest.mark.parametrize(
    "fields",
    [
        {"locators": [(b"W2ku", "D:\\x\\base.vhd"), (b"W2ru", ".\\gone.vhd")]},
        {"locators": [], "name": "C:\\x\\base.vhd"},
        {"locators": [(b"Wi2k", "base.vhd")], "name": "base.vhd"},
    ],
    ids=["absolute", "name-alone", "foreign-locator"],
)
def test_a_vhd_parent_is_found_by_any_of_its_names(fields: dict[str, Any]) -> None:
    disk, _ = opened(vhd_pair(vhd_child(**fields)), "top.avhd")
    assert read_bytes(disk, 0, VHD_BLOCK) == pattern(VHD_BLOCK, 0)


REFUSED = {
    "climbs": ("..\\..\\x", ReferenceRefused, "leads out"),
    "climbs-inside": ("a\\..\\..\\base.vhdx", ReferenceRefused, "leads out"),
    "drive": ("C:base.vhdx", ReferenceRefused, "plain name"),
    "stream": (".\\base.vhdx:s", ReferenceRefused, "plain name"),
    "folder": ("base.vhdx\\", ReferenceRefused, "plain name"),
    "json": ('json:{"file":"x"}', ReferenceRefused, "plain name"),
    "control": ("base.vhdx\0", ReferenceRefused, "plain name"),
    "long": ("b" * 256, ReferenceRefused, "plain name"),
    "device": ("/dev/sda", ParentNeeded, "'sda'"),
    "windows-device": ("\\\\.\\PhysicalDrive0", ParentNeeded, "'PhysicalDrive0'"),
    "gone": (".\\gone.vhdx", ParentNeeded, "'gone.vhdx'"),
    "self": (".\\top.avhdx", InvalidImage, "comes back to 'top.avhdx'"),
}


@pytest.mark.parametrize(("path", "error", "cause"), REFUSED.values(), ids=REFUSED.keys())
def test_a_reference_that_is_no_file_beside_the_image_is_refused(
    path: str, error: type[ImagingError], cause: str
) -> None:
    err = refusal(vhdx_pair(vhdx_child(paths={"relative_path": path})), "top.avhdx")
    assert type(err) is error
    assert cause in str(err)
    assert err.fields["offset"] > 0
    key = (b"W2ru", path.replace("avhdx", "avhd"))
    if not path.endswith("\0"):  # VHD locators may be padded
        assert type(refusal(vhd_pair(vhd_child(locators=[key])), "top.avhd")) is error


def test_an_image_without_a_folder_has_no_parent() -> None:
    for child in (vhdx_child(), vhd_child()):
        with pytest.raises(ParentNeeded, match="'base"):
            open_image(MemoryDevice(child.build()))


def test_an_image_that_names_no_parent_is_refused() -> None:
    assert "names no parent" in str(refusal(vhdx_pair(vhdx_child(paths={})), "top.avhdx"))
    assert "names no parent" in str(refusal(vhd_pair(vhd_child(locators=[])), "top.avhd"))


@pytest.mark.parametrize(
    "names", [("a.avhdx", "b.avhdx"), ("a.avhd", "b.avhd")], ids=["vhdx", "vhd"]
)
def test_a_loop_of_two_ends(names: tuple[str, str]) -> None:
    make = vhdx_child if names[0].endswith("x") else vhd_child
    files = {}
    for own, other in (names, names[::-1]):
        fields: Any = {"paths": {"relative_path": other}}
        files[own] = make(
            **(fields if make is vhdx_child else {"locators": [(b"W2ru", other)]})
        ).build()
    assert "comes back to" in str(refusal(files, names[0]))


def test_a_parent_that_changed_is_refused_with_both_ids() -> None:
    err = refusal(vhdx_pair(vhdx_child(parent_guid=bytes(16))), "top.avhdx")
    assert isinstance(err, ParentMismatch)
    assert err.fields["expected"] == "00000000-0000-0000-0000-000000000000"
    assert (err.fields["parent"], "base.vhdx" in str(err)) == ("base.vhdx", True)
    err = refusal(vhd_pair(vhd_child(parent_id=bytes(16))), "top.avhd")
    assert isinstance(err, ParentMismatch)
    assert err.fields["expected"] == "00" * 16


def test_the_second_linkage_is_as_good() -> None:
    values = [
        ("parent_linkage", linkage(bytes(16))),
        ("parent_linkage2", linkage(bytes(range(16, 32)))),
    ]
    item = parent_locator([*values, ("relative_path", "base.vhdx")])
    disk, _ = opened(vhdx_pair(vhdx_child(locator=item)), "top.avhdx")
    assert disk.info.parent == "base.vhdx"


def test_sector_sizes_must_agree() -> None:
    files = vhdx_pair(vhdx_child())
    files["base.vhdx"] = base_vhdx(sector=4096)
    err = refusal(files, "top.avhdx")
    assert isinstance(err, ParentMismatch)
    assert (err.fields["expected"], err.fields["found"]) == (512, 4096)


def test_what_is_wrong_with_a_parent_names_it() -> None:
    files = vhdx_pair(vhdx_child())
    files["base.vhdx"] = base_vhdx(states={1: 5})
    err = refusal(files, "top.avhdx")
    assert str(err).startswith("top.avhdx: parent 'base.vhdx': BAT entry of block 1")
    files["base.vhdx"] = pattern(MiB)
    assert "it is no VHDX" in str(refusal(files, "top.avhdx"))
    chain = vhdx_chain([(MiB, [])] * 3)
    err = refusal({**chain, "base.vhdx": pattern(MiB)}, "base.2.avhdx")
    assert "parent 'base.1.avhdx': parent 'base.vhdx': " in str(err)
    assert err.fields["parent"] == "base.vhdx"  # the file that `offset` is in
