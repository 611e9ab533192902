"""Siblings: a reference is the plain name of a file beside the image, or it is refused."""

import pytest

from imaging.errors import FileMissing, InvalidImage, NotAFile, ParentNeeded, ReferenceRefused
from imaging.formats.place import MAX_CHAIN, Place
from imaging.siblings import LocalFolder, bare_name, last_component

HOSTILE = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../x.vmdk",
    "a/b",
    "..\\x",
    "C:x",
    "json:{}",
    "nbd:localhost",
    "x\0y",
    "x\ny",
    "a*",
    "x:stream",
    "é" * 200,
    "\u202egnp.exe",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_leads_or_may_lead_elsewhere_is_refused(text):
    with pytest.raises(ReferenceRefused) as caught:
        bare_name(text, what="parent", offset=7)
    assert caught.value.fields["offset"] == 7


@pytest.mark.parametrize("text", ["base.vhdx", "golden image (1).vmdk", ".hidden", "übung.vhd"])
def test_plain_names_pass(text):
    assert bare_name(text, what="parent") == text


@pytest.mark.parametrize("path", ["C:\\x\\base.vhdx", "./base.vhdx", ".\\base.vhdx", "base.vhdx"])
def test_only_the_last_component_of_a_path_counts(path):
    assert last_component(path) == "base.vhdx"


def test_a_folder_opens_its_own_regular_files_only(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "secret"
    inside.mkdir()
    outside.write_bytes(b"secret")
    (inside / "disk").write_bytes(b"disk")
    (inside / "link").symlink_to(outside)
    (inside / "near").symlink_to("disk")
    (inside / "dir").mkdir()
    folder = LocalFolder(inside)
    opened = folder.open("disk")
    assert opened.size == 4
    opened.close()
    for name, error in (
        ("link", ReferenceRefused),
        ("near", ReferenceRefused),
        ("dir", NotAFile),
        ("gone", FileMissing),
        ("../secret", ReferenceRefused),
    ):
        with pytest.raises(error):
            folder.open(name)


def test_a_chain_that_comes_back_is_refused():
    place = Place("top").below("middle")
    with pytest.raises(InvalidImage, match="comes back"):
        place.below("top")
    with pytest.raises(InvalidImage, match="comes back"):
        place.below("middle")


def test_a_chain_has_an_end():
    place = Place("0")
    for number in range(1, MAX_CHAIN):
        place = place.below(str(number))
    with pytest.raises(InvalidImage, match=str(MAX_CHAIN)):
        place.below("one more")


def test_without_a_folder_a_reference_is_needed_and_named():
    with pytest.raises(ParentNeeded, match=r"base\.vhdx"):
        Place("top").open_file("base.vhdx", what="parent")
