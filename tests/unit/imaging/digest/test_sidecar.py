"""The digest manifest beside an image: it never describes other content than the image has, whenever the power goes."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from imaging.digest import DigestBuilder, digest_device
from imaging.digest.manifest import DigestManifest
from imaging.digest.sidecar import Sidecar, manifest_path
from imaging.errors import DeviceError, DiskTooLarge, FileExists
from imaging.filedev import FileDevice
from imaging.memory import MemoryDevice
from imaging.newfile import NewFile
from tests.support.disks import MiB, pattern, root_of

pytestmark = pytest.mark.exhaustive


def put(image: Path, content: bytes, *, with_digest: bool = True) -> None:
    """Write an image with its manifest, as a conversion does."""
    digest = DigestBuilder(len(content))
    digest_device(MemoryDevice(content), builder=digest)
    with Sidecar(image, len(content)) as sidecar, NewFile(image, replace=True) as file:
        file.write(0, content)
        if with_digest:
            sidecar.write(digest, format="raw", size=file.size)
        sidecar.withdraw()
        file.commit()
        sidecar.commit()


def described(image: Path) -> str | None:
    path = manifest_path(image)
    return DigestManifest(FileDevice(path)).header.root if path.exists() else None


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    put(path, pattern(MiB))
    return path


def test_it_lies_beside_the_image(image: Path) -> None:
    assert described(image) == root_of(pattern(MiB))
    assert sorted(p.name for p in image.parent.iterdir()) == ["disk.raw", "disk.raw.digest"]


def test_it_is_replaced_with_the_image(image: Path) -> None:
    put(image, pattern(MiB, 2))
    assert described(image) == root_of(pattern(MiB, 2))


def test_it_goes_when_the_new_image_has_none(image: Path) -> None:
    put(image, pattern(MiB, 2), with_digest=False)
    assert described(image) is None


class Died(BaseException):
    """The power went."""


def test_wherever_the_power_goes_it_describes_the_image_or_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 0

    def mortal(function):
        def wrapped(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                raise Died
            return function(*arguments, **options)

        return wrapped

    for owner, name in ((os, "fsync"), (os, "link"), (Path, "unlink"), (Path, "replace")):
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    seen = set()
    for steps in range(1, 40):
        folder = tmp_path / str(steps)
        folder.mkdir()
        image = folder / "disk.raw"
        left = -1
        put(image, pattern(MiB))
        left = steps
        with suppress(Died):
            put(image, pattern(MiB, 2))
        left = -1
        content = root_of(image.read_bytes())
        assert described(image) in (None, content)
        seen.add((content == root_of(pattern(MiB)), described(image) is not None))
    assert seen == {(True, True), (True, False), (False, False), (False, True)}


def test_the_old_one_is_gone_for_good_before_the_image_changes(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(name: str, function):
        def wrapped(*arguments, **options):
            done.append(name)
            return function(*arguments, **options)

        return wrapped

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(Path, "unlink", noted("unlink", Path.unlink))
    with Sidecar(image, MiB) as sidecar:
        sidecar.withdraw()
    assert done == ["unlink", "fsync"]


@pytest.mark.parametrize("kind", ["other", "short", "folder", "link"])
def test_what_is_none_of_ours_is_left_alone(kind: str, tmp_path: Path) -> None:
    image, path = tmp_path / "a", tmp_path / "a.digest"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        put(tmp_path / "b", pattern(MiB))
        path.symlink_to("b.digest")
    else:
        path.write_bytes(b"precious" if kind == "short" else b"a table of checksums " * 9)
    with pytest.raises(FileExists, match=r"a\.digest: is there already, and is no digest"):
        Sidecar(image, MiB)
    assert kind in ("folder", "link") or path.read_bytes()


def test_one_that_appeared_meanwhile_is_left_alone(tmp_path: Path) -> None:
    with Sidecar(tmp_path / "a", MiB) as sidecar:
        sidecar.path.write_bytes(b"precious")
        with pytest.raises(FileExists):
            sidecar.withdraw()
    assert sidecar.path.read_bytes() == b"precious"


def test_a_failure_leaves_nothing(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = DigestBuilder(MiB)
    digest.set_zero(0, 2)
    with Sidecar(image, MiB) as sidecar:
        sidecar.write(digest, format="raw", size=MiB)
    assert sorted(p.name for p in image.parent.iterdir()) == ["disk.raw", "disk.raw.digest"]
    assert described(image) == root_of(pattern(MiB))

    def refused(*_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(DeviceError):
        Sidecar(image, MiB).withdraw()


def test_a_disk_that_no_manifest_takes_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(DiskTooLarge):
        Sidecar(tmp_path / "a", 1 << 60)
