"""What became of each image that was made to hurt, and the cases that campaigns found, by construction."""

import pytest

from imaging.errors import InvalidImage
from imaging.formats import EDITABLE, edit_image
from imaging.memory import MemoryDevice
from tests.fuzz.cases import make_case
from tests.fuzz.hostile import hostile_seeds
from tests.fuzz.oracle import judge

OPENS, DAMAGED = "opens", "opens, damaged where it is read"
KEPT = {
    "raw-empty": "invalid",
    "raw-huge": OPENS,
    "vhd-entries": OPENS,  # the check looked at each of 2^32 entries in a hole: hours
    "vhd-self": "invalid",
    "vhd-loop": "invalid",
    "vhd-40": "invalid",
    "vhd-hidden": OPENS,
    "vhd-longlocator": "invalid",
    "vhd-tiny": OPENS,
    "vhdx-longer55": "invalid",  # the check allocated 32 GiB for the file that the log promised
    "vhdx-longer64": "invalid",
    "vhdx-scattered": OPENS,
    "vhdx-zeroing": "invalid",
    "vhdx-loop": "invalid",
    "vhdx-locator": "invalid",
    "vhdx-64tib": OPENS,
    "vhdx-noutf16": "invalid",
    "vhdx-twice": "block-overlap",
    "vhdx-strays": OPENS,
    "vhdx-logversion": "unsupported",
    "vhdx-loglong": "unsupported",
    "vhdx-overlap": "block-overlap",
    "vmdk-owntable": "block-overlap",
    "vmdk-ownspare": OPENS,  # by its redundant directory
    "vmdk-onetable": "block-overlap",
    "vmdk-onegrain": "truncated",
    "vmdk-8tib": OPENS,  # an empty directory cost a window of tables for each 2 GiB
    "vmdk-extents": OPENS,
    "vmdk-keys": "unsupported",
    "vmdk-bomb": DAMAGED,
    "vmdk-self": "invalid",
    "vmdk-passwd": "reference-refused",
    "vmdk-dots": "reference-refused",
    "vmdk-itself": "invalid",
    "vmdk-zeros": OPENS,
    "vmdk-toolong": "invalid",
    "vmdk-encoding": "unsupported",
    "vmdk-longkind": "unsupported",  # messages were as long as a word of the descriptor
    "vmdk-longkey": "invalid",
    "vmdk-longword": "unsupported",
    "vmdk-fewtables": "block-overlap",
    "qcow2-bombs": DAMAGED,
    "qcow2-zbombs": DAMAGED,
    "qcow2-shared": OPENS,
    "qcow2-owntable": "block-overlap",
    "qcow2-itself": "invalid",
    "qcow2-json": "reference-refused",
    "qcow2-abs": "reference-refused",
    "qcow2-noutf": "reference-refused",
    "qcow2-unsaid": "reference-refused",
    "qcow2-rawbase": OPENS,
    "qcow2-ownfile": "invalid",
    "qcow2-urldata": "reference-refused",
    "qcow2-40": "invalid",
    "qcow2-64tib": OPENS,
    "qcow2-extensions": OPENS,
    "ova-laughs": "invalid",
    "ova-doctype": "invalid",
    "ova-deep": "invalid",
    "ova-attributes": "unsupported",
    "ova-base256": "invalid",
    "ova-members": "invalid",
    "ova-foreign": OPENS,  # another member of the archive: no foreign file
    "ova-escape": OPENS,  # a warning had the escape sequence of a member's name
    "ova-longname": OPENS,
    "ova-two": "unsupported",
    "ova-chunks": "unsupported",
    "ova-gzip": "unsupported",
    "ova-gzipped": "unsupported",
    "ova-size": OPENS,
    "ova-lines": "unsupported",
    "ova-line": "unsupported",
    "ova-nofile": "invalid",
    "ova-two-ovf": "unsupported",
    "ova-bomb": DAMAGED,
}


@pytest.mark.parametrize("name", sorted({*KEPT, *hostile_seeds()}))
def test_an_image_that_was_made_to_hurt(name: str) -> None:
    outcome = judge(make_case(name))
    codes = sorted(code.removeprefix("imaging.") for code in outcome.codes)
    if outcome.opened:
        assert KEPT[name] == (DAMAGED if codes else OPENS)
    else:
        assert codes == [KEPT[name]]


@pytest.mark.parametrize("content", [b"", b"vhdxfile", b"vhdxfile" + bytes(70_000)])
@pytest.mark.parametrize("form", [form for form in EDITABLE if form != "raw"])
def test_the_stump_of_an_image_is_not_edited(form: str, content: bytes) -> None:
    """It was OutOfRange, an error of ours, where the headers of a VHDX were not all there."""
    with pytest.raises(InvalidImage):
        edit_image(MemoryDevice(content), format=form, name="stump")
