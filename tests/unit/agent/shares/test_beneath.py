"""Opening below a folder never leaves it, with openat2 and without."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.shares.beneath import open_beneath, open_by_steps

BOTH = pytest.mark.parametrize("opener", [open_beneath, open_by_steps])
Opener = Callable[[int, str, int], int]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A folder with a file, a folder and links in and out of it."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "sub" / "file").write_bytes(b"inside")
    (folder / "out").symlink_to("../secret")
    (folder / "absolute").symlink_to(tmp_path / "secret")
    (folder / "away").symlink_to("..")
    (folder / "in").symlink_to("sub/file")
    fd = os.open(folder, os.O_RDONLY)
    yield fd
    os.close(fd)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@BOTH
def test_a_file_below_is_opened(root: int, opener: Opener) -> None:
    assert _read(opener(root, "sub/file", os.O_RDONLY)) == b"inside"


@BOTH
def test_the_empty_path_is_the_folder_itself(root: int, opener: Opener) -> None:
    fd = opener(root, "", os.O_RDONLY | os.O_DIRECTORY)
    assert os.fstat(fd).st_ino == os.fstat(root).st_ino
    os.close(fd)


@BOTH
@pytest.mark.parametrize(
    "path", ["out", "absolute", "away/secret", "../secret", "sub/../../secret", "/etc/passwd"]
)
def test_no_path_and_no_link_leads_out(root: int, opener: Opener, path: str) -> None:
    with pytest.raises(OSError, match=r"link|cross-device|No such|Not a directory"):
        opener(root, path, os.O_RDONLY)


def test_a_link_that_stays_inside_is_followed_by_the_kernel(root: int) -> None:
    assert _read(open_beneath(root, "in", os.O_RDONLY)) == b"inside"
