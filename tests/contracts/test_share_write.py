"""The contract of agent.shares.base.Share.create, held by every kind: a folder (the reference) and real Samba, signed
and encrypted.
"""

import itertools
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import Cancelled
from agent.shares import open_share
from agent.shares.base import Share
from agent.shares.errors import (
    AccessDenied,
    AlreadyThere,
    BadPath,
    InUse,
    NotAFile,
    NotFound,
    ShareFull,
)
from imaging.device import read_bytes
from imaging.errors import DeviceClosed
from imaging.output import OutputFile
from imaging.units import GiB, KiB, MiB
from tests.support.samba import IMPATIENT, SIGNED, samba_rig

CONTENT = random.Random(5).randbytes(5 * MiB + 777)


@dataclass
class Place:
    """Where the share's files really lie, and how to open the share."""

    folder: Path
    connect: Callable[[], Share]
    journals: Path

    def names(self) -> list[str]:
        """What is in the folder, partial files too."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture(scope="module", params=["local", "smb-encrypted", "smb-signed"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """One server per kind for the whole file."""
    journals = tmp_path_factory.mktemp("journals")
    if request.param == "local":
        folder = tmp_path_factory.mktemp("share")
        yield Place(folder, lambda: open_share("local", folder), journals)
    else:
        policy = SIGNED if request.param == "smb-signed" else IMPATIENT
        with samba_rig() as rig:
            yield Place(rig.folder, lambda: rig.share(policy=policy), journals)


@pytest.fixture
def place(server: Place) -> Place:
    """The server with an empty folder."""
    for path in server.folder.iterdir():
        path.unlink()
    return server


@pytest.fixture
def share(place: Place) -> Iterator[Share]:
    """A fresh share on the place."""
    opened = place.connect()
    yield opened
    opened.close()


def begin(
    share: Share,
    place: Place,
    name: str = "new.raw",
    *,
    job: str = "j1",
    replace: bool = False,
    keep: bool = False,
) -> OutputFile:
    """Begin a file with a journal of its job's."""
    return share.create(name, job=job, journal=place.journals / job, replace=replace, keep=keep)


def test_a_committed_file_holds_what_was_written_and_nothing_else_is_left(
    share: Share, place: Place
) -> None:
    with begin(share, place) as file:
        file.write(0, CONTENT[:MiB])
        file.write(MiB, CONTENT[MiB:])
        assert "new.raw" not in place.names()
        file.commit()
    assert place.names() == ["new.raw"]
    assert (place.folder / "new.raw").read_bytes() == CONTENT
    assert file.bytes_written == len(CONTENT)


def test_a_file_that_is_not_committed_leaves_nothing(share: Share, place: Place) -> None:
    with begin(share, place) as file:
        file.write(0, CONTENT)
    file.abort()
    assert place.names() == []


def test_writes_in_any_order_and_size_from_several_threads(share: Share, place: Place) -> None:
    chance = random.Random(7)
    cuts = sorted({0, len(CONTENT), *(chance.randrange(len(CONTENT)) for _ in range(300))})
    parts = list(itertools.pairwise(cuts))
    chance.shuffle(parts)
    with begin(share, place) as file:

        def write(mine: list[tuple[int, int]]) -> None:
            for start, end in mine:
                file.write(start, CONTENT[start:end])

        threads = [threading.Thread(target=write, args=(parts[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        file.commit()
    assert (place.folder / "new.raw").read_bytes() == CONTENT


def test_the_last_of_writes_to_one_place_stays(share: Share, place: Place) -> None:
    with begin(share, place) as file:
        for number in range(20):
            file.write(0, bytes([number]) * 100_000)
            file.write(50_000, bytes([number + 100]) * 10)
        file.commit()
    content = (place.folder / "new.raw").read_bytes()
    assert content[:3] == bytes([19]) * 3
    assert content[50_000:50_010] == bytes([119]) * 10


def test_a_buffer_may_be_used_again_at_once(share: Share, place: Place) -> None:
    buffer = bytearray(64 * KiB)
    with begin(share, place) as file:
        for number in range(64):
            buffer[:] = bytes([number]) * len(buffer)
            file.write(number * len(buffer), memoryview(buffer))
        file.commit()
    content = (place.folder / "new.raw").read_bytes()
    assert content == b"".join(bytes([number]) * len(buffer) for number in range(64))


def test_what_was_never_written_is_a_hole(share: Share, place: Place) -> None:
    with begin(share, place) as file:
        file.truncate(64 * GiB)
        file.write(40 * GiB, CONTENT[:MiB])
        assert file.size == 64 * GiB
        file.commit()
    found = (place.folder / "new.raw").stat()
    assert found.st_size == 64 * GiB
    assert found.st_blocks * 512 <= 2 * MiB
    reader = share.open_read("new.raw")
    data = [one for one in reader.extents(0, reader.size) if one.kind.name == "DATA"]
    assert sum(one.length for one in data) <= 2 * MiB
    assert read_bytes(reader, 40 * GiB, MiB) == CONTENT[:MiB]


def test_truncate_cuts_and_what_comes_back_is_zeros(share: Share, place: Place) -> None:
    with begin(share, place) as file:
        file.write(0, CONTENT[:MiB])
        file.truncate(1000)
        file.truncate(MiB)
        file.commit()
    assert (place.folder / "new.raw").read_bytes() == CONTENT[:1000] + bytes(MiB - 1000)


def test_flush_makes_the_bytes_visible_to_others(share: Share, place: Place) -> None:
    with begin(share, place) as file:
        file.write(5, CONTENT[:MiB])
        file.flush()
        (part,) = place.folder.iterdir()
        assert part.read_bytes() == bytes(5) + CONTENT[:MiB]


def test_a_file_that_is_there_is_not_replaced_unless_that_was_said(
    share: Share, place: Place
) -> None:
    (place.folder / "new.raw").write_bytes(b"old")
    with pytest.raises(AlreadyThere, match=r"new\.raw"):
        begin(share, place)
    assert place.names() == ["new.raw"]
    with begin(share, place, replace=True) as file:
        file.write(0, b"new")
        assert (place.folder / "new.raw").read_bytes() == b"old"
        file.commit()
    assert (place.folder / "new.raw").read_bytes() == b"new"


def test_a_file_that_appears_meanwhile_is_left_alone(share: Share, place: Place) -> None:
    with begin(share, place) as file:
        file.write(0, b"new")
        (place.folder / "new.raw").write_bytes(b"old")
        with pytest.raises(AlreadyThere, match=r"new\.raw"):
            file.commit()
    assert (place.folder / "new.raw").read_bytes() == b"old"
    assert place.names() == ["new.raw"]


def test_a_file_that_is_kept_is_gone_on_with(share: Share, place: Place) -> None:
    with begin(share, place, keep=True) as file:
        file.write(0, CONTENT[:MiB])
        file.flush()
        number = file.inode
    assert len(place.names()) == 1
    with begin(share, place, keep=True) as file:
        assert (file.size, file.inode) == (MiB, number)
        file.write(MiB, CONTENT[MiB:])
        file.commit()
    assert (place.folder / "new.raw").read_bytes() == CONTENT


def test_what_is_not_kept_is_emptied_by_the_next_run(share: Share, place: Place) -> None:
    with begin(share, place, keep=True) as file:
        file.write(0, CONTENT)
        file.flush()
    with begin(share, place) as file:
        assert file.size == 0
        file.write(0, b"short")
        file.commit()
    assert (place.folder / "new.raw").read_bytes() == b"short"


def test_commit_deletes_the_journal(share: Share, place: Place) -> None:
    with begin(share, place) as file:
        file.journal_path.touch()
        file.commit()
    assert not file.journal_path.exists()


def test_a_file_that_is_begun_anew_has_no_journal_of_an_earlier_life(
    share: Share, place: Place
) -> None:
    (place.journals / "j1").write_bytes(b"of what an earlier run wrote")
    with begin(share, place, keep=True) as file:
        assert file.journal_path.exists()
    with begin(share, place) as file:
        assert not file.journal_path.exists()


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_file_that_ended_is_refused(share: Share, place: Place, end: str) -> None:
    file = begin(share, place)
    getattr(file, end)()
    for call in (lambda: file.write(0, b"x"), file.flush, lambda: file.truncate(0), file.commit):
        with pytest.raises(DeviceClosed):
            call()
    file.abort()


@pytest.mark.parametrize("path", ["", "../x", "/x", "C:/x", "a//b", "x:y", "NUL", "x."])
def test_a_path_that_leads_elsewhere_is_refused(share: Share, place: Place, path: str) -> None:
    with pytest.raises(BadPath):
        begin(share, place, path)
    with pytest.raises(BadPath):
        share.remove(path)


def test_a_missing_folder_is_named(share: Share, place: Place) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        begin(share, place, "nowhere/new.raw")


def test_entries_tell_sizes_and_kinds(share: Share, place: Place) -> None:
    (place.folder / "a.raw").write_bytes(CONTENT)
    os.truncate(place.folder / "a.raw", 32 * MiB)
    names = {entry.name: entry for entry in share.entries("")}
    assert list(names) == ["a.raw"]
    entry = names["a.raw"]
    assert (entry.size, entry.is_folder) == (32 * MiB, False)
    assert 5 * MiB <= entry.allocated < 7 * MiB
    assert abs(entry.write_time_ns - (place.folder / "a.raw").stat().st_mtime_ns) < 100


def test_remove_deletes_a_file_and_names_what_is_not_there(share: Share, place: Place) -> None:
    (place.folder / "a.raw").write_bytes(b"x")
    (place.folder / "a.raw").chmod(0o666)
    share.remove("a.raw")
    assert place.names() == []
    with pytest.raises(NotFound):
        share.remove("a.raw")


def test_after_abort_of_the_share_a_file_is_cancelled(share: Share, place: Place) -> None:
    file = begin(share, place)
    share.abort()
    with pytest.raises(Cancelled):
        fill(file, CONTENT)
    file.abort()


def test_a_share_that_may_only_be_read_says_so(tmp_path: Path) -> None:
    with samba_rig(shares={"ro": {"read only": "yes"}}) as rig:
        (rig.folder / "a.raw").write_bytes(b"x")
        share = rig.share("ro")
        place = Place(rig.folder, lambda: share, tmp_path)
        with pytest.raises(AccessDenied):
            begin(share, place)
        with pytest.raises(AccessDenied):
            share.remove("a.raw")
        assert place.names() == ["a.raw"]
        share.close()


# --- what only some kinds have -------------------------------------------------------------------


def test_a_folder_in_the_way_is_named(share: Share, place: Place) -> None:
    (place.folder / "new.raw").mkdir()
    try:
        with pytest.raises((NotAFile, AlreadyThere)):
            begin(share, place)
    finally:
        (place.folder / "new.raw").rmdir()


@pytest.fixture(scope="module", params=["local", "smb-encrypted", "smb-signed"])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A share on a file system of 16 MiB."""
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    journals = tmp_path_factory.mktemp("journals")
    with samba_rig() as rig:
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=777", "small", str(rig.folder)]
        subprocess.run(mount, check=True)
        try:
            if request.param == "local":
                yield Place(rig.folder, lambda: open_share("local", rig.folder), journals)
            else:
                policy = SIGNED if request.param == "smb-signed" else IMPATIENT
                yield Place(rig.folder, lambda: rig.share(policy=policy), journals)
        finally:
            rig.stack.close()
            subprocess.run(["umount", "-l", str(rig.folder)], check=True)


def fill(file: OutputFile, content: bytes) -> None:
    """Write and flush."""
    for start in range(0, len(content), 256 * KiB):
        file.write(start, content[start : start + 256 * KiB])
    file.flush()


def test_a_share_that_fills_up_says_so_and_goes_on_after_room_was_made(small: Place) -> None:
    share = small.connect()
    content = random.Random(1).randbytes(12 * MiB + 5)
    (small.folder / "ballast").write_bytes(bytes(8 * MiB))
    with begin(share, small, keep=True) as file:
        with pytest.raises(ShareFull):
            fill(file, content)
        assert share.free_space() < MiB
        (small.folder / "ballast").unlink()
        fill(file, content)
        file.commit()
    assert (small.folder / "new.raw").read_bytes() == content
    (small.folder / "new.raw").unlink()
    share.close()


def test_a_full_share_is_left_as_it_was(small: Place) -> None:
    share = small.connect()
    with pytest.raises(ShareFull), begin(share, small) as file:
        fill(file, b"x" * 20 * MiB)
    assert small.names() == []
    share.close()


def test_two_writers_of_one_local_file_do_not_mix(tmp_path: Path) -> None:
    first, second = open_share("local", tmp_path), open_share("local", tmp_path)
    place = Place(tmp_path, lambda: first, tmp_path)
    with begin(first, place), pytest.raises(InUse):
        begin(second, place)
