"""The contract of agent.shares.base.Share, held by every kind: a folder (the reference) and real Samba."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import Cancelled
from agent.shares import KINDS, open_share
from agent.shares.base import Share, ShareFile
from agent.shares.errors import (
    AccessDenied,
    BadPath,
    NotAFile,
    NotFound,
    ShareClosed,
    UnknownShareKind,
)
from agent.shares.folder import ShareFolder
from imaging.device import read_bytes
from imaging.errors import DeviceClosed, FileMissing, OutOfRange, ReadOnlyDevice, ReferenceRefused
from imaging.extent import Kind
from imaging.formats import open_image
from imaging.units import KiB, MiB
from tests.support.chains import Writes, model, vhdx_chain
from tests.support.samba import IMPATIENT, SIGNED, samba_rig

CONTENT = bytes(range(256)) * 12_345
"""Three READs of 1 MiB and a rest that ends on no boundary."""


@dataclass
class Place:
    """Where the share's files really lie, and how to open the share."""

    folder: Path
    connect: Callable[[], Share]


@pytest.fixture(scope="module", params=["local", "smb-encrypted", "smb-signed", "smb-read-only"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """One server per kind for the whole file."""
    if request.param == "local":
        folder = tmp_path_factory.mktemp("share")
        _fill(folder)
        yield Place(folder, lambda: open_share("local", folder))
    else:
        policy = SIGNED if request.param == "smb-signed" else IMPATIENT
        name = "ro" if request.param == "smb-read-only" else "plain"
        with samba_rig(shares={"ro": {"read only": "yes"}}) as rig:
            _fill(rig.folder)
            yield Place(rig.folder, lambda: rig.share(name, policy=policy))


@pytest.fixture
def share(place: Place) -> Iterator[Share]:
    """A fresh share on the place."""
    opened = place.connect()
    yield opened
    opened.close()


def _fill(folder: Path) -> None:
    (folder / "disks").mkdir(mode=0o755)
    for name in ("image.vhdx", "disks/Böse Kopie 1.vhd"):
        (folder / name).write_bytes(CONTENT)
        (folder / name).chmod(0o644)
    (folder / "empty").touch(mode=0o644)


def test_read_returns_the_bytes_at_any_offset_and_length(share: Share) -> None:
    file = share.open_read("image.vhdx")
    for offset, length in ((0, len(CONTENT)), (1, 64 * KiB), (MiB - 1, 2), (len(CONTENT) - 5, 5)):
        assert read_bytes(file, offset, length) == CONTENT[offset : offset + length]


def test_size_and_identity_agree_with_the_file_system(share: Share, place: Place) -> None:
    file = share.open_read("image.vhdx")
    real = (place.folder / "image.vhdx").stat()
    identity = file.identity()
    assert (file.size, identity.size) == (len(CONTENT), len(CONTENT))
    assert abs(identity.write_time_ns - real.st_mtime_ns) < 100  # Windows counts in 100 ns.
    assert identity.file_id == real.st_ino


def test_stat_and_open_file_tell_the_same_identity(share: Share) -> None:
    assert share.stat("image.vhdx") == share.open_read("image.vhdx").identity()


def test_a_change_of_the_file_shows_in_its_identity(share: Share, place: Place) -> None:
    file = share.open_read("disks/Böse Kopie 1.vhd")
    before = file.identity()
    os.utime(place.folder / "disks/Böse Kopie 1.vhd", ns=(1, before.write_time_ns + 1_000_000))
    assert file.identity() != before


def test_list_returns_sorted_names(share: Share) -> None:
    assert share.list("") == ["disks", "empty", "image.vhdx"]
    assert share.list("disks") == ["Böse Kopie 1.vhd"]


def test_an_empty_file_has_no_bytes_and_no_extents(share: Share) -> None:
    file = share.open_read("empty")
    assert file.size == 0
    assert list(file.extents(0, 0)) == []
    file.read_into(0, memoryview(bytearray()))


def test_extents_cover_the_window_and_call_data_data(share: Share) -> None:
    extents = list(share.open_read("image.vhdx").extents(4 * KiB, 2 * MiB))
    assert extents[0].offset == 4 * KiB
    assert extents[-1].end == 4 * KiB + 2 * MiB
    assert {extent.kind for extent in extents} == {Kind.DATA}


def test_a_range_outside_of_the_file_is_refused(share: Share) -> None:
    file = share.open_read("image.vhdx")
    with pytest.raises(OutOfRange):
        file.read_into(file.size - 1, memoryview(bytearray(2)))
    with pytest.raises(OutOfRange):
        list(file.extents(0, file.size + 1))


@pytest.mark.parametrize("call", ["write", "zero", "flush"])
def test_a_file_on_a_share_cannot_be_written(share: Share, call: str) -> None:
    file = share.open_read("image.vhdx")
    arguments = {"write": (0, b"x"), "zero": (0, 1), "flush": ()}
    with pytest.raises(ReadOnlyDevice):
        getattr(file, call)(*arguments[call])


@pytest.mark.parametrize("use", ["read", "extents", "identity"])
def test_a_closed_file_is_refused_and_may_be_closed_again(share: Share, use: str) -> None:
    file = share.open_read("image.vhdx")
    file.close()
    file.close()
    uses: dict[str, Callable[[ShareFile], object]] = {
        "read": lambda f: read_bytes(f, 0, 1),
        "extents": lambda f: list(f.extents(0, 1)),
        "identity": lambda f: f.identity(),
    }
    with pytest.raises(DeviceClosed):
        uses[use](file)


def test_a_missing_file_is_named(share: Share) -> None:
    with pytest.raises(NotFound, match="missing"):
        share.open_read("missing.vhdx")
    with pytest.raises(NotFound, match="missing"):
        share.stat("no folder/missing.vhdx")


def test_a_folder_is_no_file_and_a_file_is_no_folder(share: Share) -> None:
    with pytest.raises(NotAFile):
        share.open_read("disks")
    with pytest.raises(NotAFile):
        share.list("image.vhdx")


@pytest.mark.parametrize(
    "path", ["", "../image.vhdx", "/image.vhdx", "C:/x", "a//b", "image.vhdx:x"]
)
def test_a_path_that_leads_elsewhere_is_refused(share: Share, path: str) -> None:
    with pytest.raises(BadPath):
        share.open_read(path)


def test_a_link_out_of_the_share_is_not_followed(
    share: Share, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    link = place.folder / "disks" / f"link-{os.getpid()}"
    link.symlink_to(tmp_path / "secret")
    try:
        with pytest.raises((BadPath, NotFound, AccessDenied)):
            share.open_read(f"disks/{link.name}")
    finally:
        link.unlink()


def test_free_space_is_that_of_the_volume(share: Share, place: Place) -> None:
    volume = os.statvfs(place.folder)
    free = volume.f_bavail * volume.f_frsize
    assert free / 2 < share.free_space() < free * 2  # Others write while this runs.


def test_after_abort_every_call_is_cancelled(share: Share) -> None:
    file = share.open_read("image.vhdx")
    share.abort()
    share.abort()
    for call in (
        lambda: read_bytes(file, 0, 1),
        lambda: share.stat("image.vhdx"),
        lambda: share.list(""),
        lambda: share.open_read("image.vhdx"),
        share.free_space,
    ):
        with pytest.raises(Cancelled):
            call()


def test_after_close_every_call_is_refused(share: Share) -> None:
    file = share.open_read("image.vhdx")
    share.close()
    share.close()
    with pytest.raises(ShareClosed):
        share.stat("image.vhdx")
    with pytest.raises(ShareClosed):
        read_bytes(file, 0, 1)


def test_every_kind_is_held_to_this() -> None:
    assert set(KINDS) == {"local", "smb"}


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UnknownShareKind, match="nfs"):
        open_share("nfs")


# --- the files beside an image -------------------------------------------------------------------


def test_a_chain_on_a_share_reads_as_one_disk(place: Place, share: Share) -> None:
    layers: list[tuple[int, Writes]] = [
        (2 * MiB, [(0, CONTENT[: 2 * MiB])]),
        (3 * MiB, [(MiB - 512, CONTENT[:4096])]),
    ]
    for name, content in vhdx_chain(layers).items():
        (place.folder / name).write_bytes(content)
        (place.folder / name).chmod(0o666)
    folder = ShareFolder(share, "base.1.avhdx")
    image = open_image(share.open_read("base.1.avhdx"), name="base.1.avhdx", siblings=folder)
    assert read_bytes(image, 0, image.size) == model(layers)
    assert list(folder.first) == ["base.vhdx"]
    assert folder.identities() == folder.first
    os.utime(place.folder / "base.vhdx", (1, 1))
    assert folder.identities() != folder.first
    image.close()


def test_what_an_image_may_not_name_is_refused_and_what_is_not_there_is_missing(
    share: Share,
) -> None:
    folder = ShareFolder(share, "sub/image.vhdx")
    for name in ("../image.raw", "image.raw:stream", ".."):
        with pytest.raises(ReferenceRefused):
            folder.open(name)
    with pytest.raises(FileMissing):
        folder.open("gone.vhdx")
    assert folder.first == {}
