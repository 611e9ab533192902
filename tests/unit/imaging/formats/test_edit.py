"""Which images open to be written in place, and that nobody else writes them meanwhile."""

from pathlib import Path

import pytest

from imaging.device import read_bytes
from imaging.errors import FileBusy, InvalidImage, UnsupportedImage
from imaging.formats import EDITABLE, FORMATS, edit_image, edit_path
from imaging.memory import MemoryDevice
from imaging.overlay import OverlayDevice
from tests.support.disks import KiB


def test_what_is_written_can_be_read_and_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(b"\1" * 64 * KiB)
    with edit_path(tmp_path / "disk.raw", format="raw") as image:
        image.write(10, b"new")
        image.zero(4096, 8192)
        image.flush()
        assert read_bytes(image, 9, 5) == b"\1new\1"
    expected = bytearray(b"\1" * 64 * KiB)
    expected[10:13] = b"new"
    expected[4096:12288] = bytes(8192)
    assert (tmp_path / "disk.raw").read_bytes() == expected


def test_two_cannot_write_one_image(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(512))
    with (
        edit_path(tmp_path / "disk.raw", format="raw"),
        pytest.raises(FileBusy, match="another process"),
        edit_path(tmp_path / "disk.raw", format="raw"),
    ):
        pass


def test_a_dry_run_leaves_the_file_alone() -> None:
    file = MemoryDevice(b"\1" * 4096, read_only=True)
    image = edit_image(OverlayDevice(file), format="raw")
    image.write(0, b"new")
    image.flush()
    assert read_bytes(image, 0, 4) == b"new\1"
    assert read_bytes(file, 0, 4) == b"\1\1\1\1"


@pytest.mark.parametrize("form", [*sorted(set(FORMATS) - set(EDITABLE)), "vdi", ""])
def test_other_formats_are_refused_by_name(form: str) -> None:
    with pytest.raises(UnsupportedImage, match=repr(form)):
        edit_image(MemoryDevice(4096), format=form)


def test_an_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty.raw").write_bytes(b"")
    with (
        pytest.raises(InvalidImage, match=r"empty\.raw"),
        edit_path(tmp_path / "empty.raw", format="raw"),
    ):
        pass
