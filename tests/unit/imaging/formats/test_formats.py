"""open_image: the registry, given formats, and messages that name the file."""

import pytest

from imaging.device import read_bytes
from imaging.errors import (
    ImagingError,
    InvalidImage,
    ReferenceRefused,
    Truncated,
    UnsupportedImage,
)
from imaging.formats import FORMATS, DiskImage, open_image
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder
from tests.support.disks import MiB, Vhdx, fixed_vhd, pattern
from tests.support.qcow2_images import Qcow2

RAW = pattern(MiB)


def test_a_given_format_is_never_second_guessed() -> None:
    vhdx = Vhdx(MiB, {0: RAW}).build()
    image = open_image(MemoryDevice(vhdx), format="raw")
    assert (image.info.format, image.size) == ("raw", len(vhdx))
    assert read_bytes(image, 0, 8) == b"vhdxfile"
    with pytest.raises(InvalidImage):
        open_image(MemoryDevice(RAW), format="vhdx")
    with pytest.raises(InvalidImage):
        open_image(MemoryDevice(RAW), format="vhd")


def test_without_a_format_the_content_is_probed() -> None:
    image: DiskImage = open_image(MemoryDevice(fixed_vhd(RAW)))
    assert image.info.format == "vhd"


@pytest.mark.parametrize("name", ["vdi", "RAW", "../vhd"])
def test_an_unknown_format_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedImage, match="none of raw, vhd, vhdx"):
        open_image(MemoryDevice(RAW), format=name)
    assert name not in FORMATS


def test_messages_and_fields_name_the_file_and_keep_the_class() -> None:
    with pytest.raises(Truncated) as caught:
        open_image(MemoryDevice(b"vhdxfile"), name="gold/win11.vhdx")
    assert str(caught.value).startswith("gold/win11.vhdx: the file has 8 bytes")
    assert caught.value.fields["path"] == "gold/win11.vhdx"
    assert caught.value.fields["file_size"] == 8


def test_an_empty_file_is_no_disk() -> None:
    with pytest.raises(ImagingError, match="empty"):
        open_image(MemoryDevice(b""))


def test_a_raw_size_that_is_no_sector_multiple_is_warned_about() -> None:
    image = open_image(MemoryDevice(RAW[:1000]))
    assert (image.size, len(image.info.warnings)) == (1000, 1)
    assert open_image(MemoryDevice(RAW)).info.warnings == ()


FOLDER = MemoryFolder({"other.raw": pattern(MiB, 7)})
TRAP = Qcow2(MiB, backing=b"other.raw", backing_format=b"raw").build()
"""What the guest of a raw disk may write into its first sectors."""


@pytest.mark.parametrize("name", ["golden.raw", "golden", "golden.vhdx.bak", ""])
def test_an_image_of_unsaid_format_does_not_choose_which_files_are_read(name: str) -> None:
    with pytest.raises(ReferenceRefused, match=r"looks like qcow2 and names the file 'other\.raw'"):
        open_image(MemoryDevice(TRAP), name=name, siblings=FOLDER)
    raw = open_image(MemoryDevice(TRAP), name=name, format="raw", siblings=FOLDER)
    assert raw.size == len(TRAP)


@pytest.mark.parametrize(("name", "form"), [("golden.QCOW2", None), ("golden.img", "qcow2")])
def test_a_format_that_somebody_said_does(name: str, form: str | None) -> None:
    image = open_image(MemoryDevice(TRAP), name=name, format=form, siblings=FOLDER)
    assert read_bytes(image, 0, MiB) == pattern(MiB, 7)
