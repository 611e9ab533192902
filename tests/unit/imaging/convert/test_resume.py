"""A conversion that is gone on with: the same file as without a break, whatever a power loss left; nothing twice."""

import random
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from imaging.convert import Options, copy
from imaging.convert.journal import Journal
from imaging.convert.records import Mark, SourceFile, build_mark, build_places
from imaging.errors import DeviceFull, DeviceIOError, JournalInvalid, Stopped
from imaging.filedev import FileDevice
from imaging.memory import MemoryDevice
from imaging.newfile import NewFile
from imaging.units import KiB, MiB
from tests.support.disks import pattern, root_of
from tests.support.powerloss import Operation, Recording
from tests.support.resumes import run, session
from tests.support.sinks import OPTIONS, read_image, sparse_device, write_image

pytestmark = pytest.mark.exhaustive

TARGETS = ["raw", "vhd:fixed", "vhd:dynamic", "vhdx:dynamic", "vhdx:fixed", "vmdk:monolithicSparse"]
SIZE = 19 * MiB + 512


def disk() -> MemoryDevice:
    """Data, holes and written zeros, on borders and off them."""
    parts = {
        4096: pattern(3 * MiB),
        5 * MiB: bytes(2 * MiB),
        8 * MiB + 68 * KiB: pattern(MiB, 2),
        12 * MiB - 4096: pattern(5 * MiB, 3),
        SIZE - 512: pattern(512, 4),
    }
    return sparse_device(SIZE, parts)


CONTENT = bytes(disk()._bytes)
ROOT = root_of(CONTENT)


class Stopping:
    """Answers true from the n-th question on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


class Breaking(MemoryDevice):
    """Cannot be read from a place on."""

    limit = 0

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self.limit:
            raise DeviceIOError("the disk under the test is broken")
        super().read_into(offset, buffer)


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """With several, grains of a VMDK lie in another order each time."""
    if "several" not in request.node.name:
        monkeypatch.setattr(copy, "_thread_count", lambda **_: 1)


def other_ids() -> Options:
    return replace(OPTIONS, unique_id=uuid.uuid4(), timestamp=OPTIONS.timestamp + 77)


@pytest.mark.parametrize(
    ("to", "with_digest"),
    [*((to, True) for to in TARGETS), ("raw", False), ("vhdx:dynamic", False)],
)
def test_wherever_it_stops_the_file_is_the_same(to: str, with_digest: bool, tmp_path: Path) -> None:
    image = tmp_path / "image"
    write_image(disk(), image, to)
    whole = image.read_bytes()
    for steps in (1, 4):
        image.unlink()
        starts = [0]
        while not image.exists():
            options = OPTIONS if starts == [0] else other_ids()
            with suppress(Stopped):
                root, *_ = run(
                    disk(),
                    image,
                    to,
                    stop=Stopping(steps),
                    options=options,
                    with_digest=with_digest,
                    seen=starts.append,
                )
        assert image.read_bytes() == whole
        assert root == (ROOT if with_digest else None)
        assert starts[1] == 0
        assert starts[2:] == sorted({*starts[2:]} - {0})
        assert len(starts) > 2
        assert [path.name for path in tmp_path.iterdir()] == ["image"]


@pytest.mark.parametrize("to", TARGETS)
def test_nothing_before_the_mark_is_read_again_by_several(to: str, tmp_path: Path) -> None:
    broken = Breaking(CONTENT)
    broken.limit = 14 * MiB
    with pytest.raises(DeviceIOError):
        run(broken, tmp_path / "image", to)
    seen: list[int] = []
    root, start, read, anew = run(
        MemoryDevice(CONTENT), tmp_path / "image", to, progress=seen.append
    )
    assert (root, anew) == (ROOT, None)
    assert 0 < start <= 14 * MiB
    assert read == SIZE - start
    assert (seen[0], sum(seen)) == (start, SIZE)
    padded = read_image(tmp_path / "image", to)
    assert padded == CONTENT.ljust(len(padded), b"\0")


def test_stopping_saves_what_is_done_by_several(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(disk(), tmp_path / "image", "vhdx:dynamic", stop=Stopping(8), every_bytes=1 << 60)
    _, start, _, anew = run(disk(), tmp_path / "image", "vhdx:dynamic")
    assert (start > 8 * MiB, anew) == (True, None)


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(NewFile):
        def write(self, offset: int, data: memoryview | bytes) -> None:
            if offset > 10 * MiB:
                raise DeviceFull("no room under the test")
            super().write(offset, data)

    with pytest.raises(DeviceFull):
        run(disk(), tmp_path / "image", "raw", file=Small(tmp_path / "image", keep=True))
    _, start, _, anew = run(disk(), tmp_path / "image", "raw")
    assert (start, anew) == (10 * MiB, None)
    assert (tmp_path / "image").read_bytes() == CONTENT


def stopped(path: Path, to: str = "raw", **changed: object) -> None:
    with pytest.raises(Stopped):
        run(disk(), path, to, stop=Stopping(5), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"version": 2}, "version"),
        ({"name": "other"}, "another file"),
        ({"partial": 1}, "partial file is another"),
        ({"source": (SourceFile("a", 1, 2, 3),)}, "source changed"),
        ({"source_format": "vhd:fixed"}, "another format"),
        ({"sector_size": 4096}, "other sectors"),
        ({"virtual_size": SIZE + 1}, "source has another size"),
        ({"padded_size": SIZE + 512}, "target has another size"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_the_same_begins_anew(
    changed: dict[str, object], why: str, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(disk(), tmp_path / "image", "raw", stop=Stopping(5), changed=changed)
    root, start, _, anew = run(disk(), tmp_path / "image", "raw")
    assert (root, start) == (ROOT, 0)
    assert anew is not None
    assert why in anew
    assert (tmp_path / "image").read_bytes() == CONTENT


def test_another_target_or_digest_begins_anew(tmp_path: Path) -> None:
    stopped(tmp_path / "image", "vhdx:fixed")
    _, start, _, anew = run(disk(), tmp_path / "image", "raw", stop=None)
    assert (start, anew) == (0, "the earlier run made another format")
    (tmp_path / "image").unlink()
    stopped(tmp_path / "image", with_digest=False)
    root, start, _, anew = run(disk(), tmp_path / "image", "raw")
    assert (root, start) == (ROOT, 0)
    assert anew is not None
    assert "digest" in anew


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ("image.partial.journal", "no journal"),
        ("image.partial", "shorter than"),
        ("its end", "shorter than"),
    ],
)
def test_one_without_the_other_begins_anew(lost: str, why: str, tmp_path: Path) -> None:
    stopped(tmp_path / "image", "vhdx:dynamic")
    if lost == "its end":
        with (tmp_path / "image.partial").open("r+b") as file:
            file.truncate((tmp_path / "image.partial").stat().st_size - 1)
    else:
        (tmp_path / lost).unlink()
    root, start, _, anew = run(disk(), tmp_path / "image", "vhdx:dynamic")
    assert (root, start) == (ROOT, 0)
    assert anew is not None
    assert why in anew


def test_a_run_before_the_first_checkpoint_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(DeviceIOError):
        run(Breaking(CONTENT), tmp_path / "image", "raw")
    _, start, _, anew = run(disk(), tmp_path / "image", "raw")
    assert (start, anew) == (0, "the earlier run ended before its first checkpoint")


def test_a_run_without_resume_makes_the_journal_of_the_other_void(tmp_path: Path) -> None:
    stopped(tmp_path / "image")
    with NewFile(tmp_path / "image") as file:
        file.truncate(SIZE)
        file.write(0, b"what the other run wrote")
        file._keep = True  # as if it was killed
    root, start, _, _ = run(disk(), tmp_path / "image", "raw")
    assert (root, start) == (ROOT, 0)
    assert (tmp_path / "image").read_bytes() == CONTENT


def test_bytes_behind_the_mark_do_not_show(tmp_path: Path) -> None:
    """What the earlier run wrote there was perhaps torn; zeros of the source are not written over it."""
    for to in TARGETS:
        image = tmp_path / to.replace(":", "-")
        broken = Breaking(CONTENT)
        broken.limit = 10 * MiB
        with pytest.raises(DeviceIOError):
            run(broken, image, to)
        partial = image.with_name(image.name + ".partial")
        with partial.open("r+b") as file:
            file.seek(0, 2)
            file.write(b"\xee" * 9 * MiB)
        if to == "raw":
            with partial.open("r+b") as file:
                file.seek(20 * MiB)
                file.write(b"\xee" * MiB)
        _, start, _, anew = run(disk(), image, to)
        assert (start > 0, anew) == (True, None)
        padded = read_image(image, to)
        assert padded == CONTENT.ljust(len(padded), b"\0")


def test_a_run_that_ended_while_it_finished_leaves_no_image_behind(tmp_path: Path) -> None:
    class Dying(NewFile):
        def commit(self) -> None:
            raise KeyboardInterrupt

    for to in TARGETS[1:]:
        image = tmp_path / to.replace(":", "-")
        whole = tmp_path / "whole"
        write_image(disk(), whole, to)
        with pytest.raises(KeyboardInterrupt):
            run(disk(), image, to, file=Dying(image, keep=True))
        with pytest.raises(Stopped):
            run(disk(), image, to, stop=Stopping(0))
        content = image.with_name(image.name + ".partial").read_bytes()
        assert content[:512].strip(b"\0") == b"" or to == "vhd:fixed"
        assert b"conectix" not in content
        _, start, _, _ = run(disk(), image, to)
        assert start > 0
        if "vmdk" not in to:  # its descriptor has the file's name
            assert image.read_bytes() == whole.read_bytes()
        whole.unlink()


class Recorder:
    """Everything that was done to a partial file and its journal, in order, the flushes of either among it."""

    def __init__(self) -> None:
        self.log: list[tuple[str, Operation]] = []

    def states(self, count: int) -> list[tuple[bytes, bytes]]:
        """Return what a power loss may leave of both: at every moment, of each file some of what it did not flush."""
        chance = random.Random(count)
        found = set()
        for moment in range(len(self.log) + 1):
            for way in range(4):
                both = []
                for name in ("data", "journal"):
                    done = [one for which, one in self.log[:moment] if which == name]
                    flushed = max((i for i, one in enumerate(done) if one.offset == -1), default=-1)
                    sure = [one for one in done[: flushed + 1] if one.offset >= 0]
                    maybe = done[flushed + 1 :]
                    kept = {
                        0: [],
                        1: maybe,
                        2: [one for one in maybe if chance.random() < 0.5],
                        3: maybe[:-1] + [_torn(one, chance) for one in maybe[-1:]],
                    }[way if name == "data" else chance.randrange(4)]
                    both.append(Recording()._apply(sure + kept))
                found.add((both[0], both[1]))
        return sorted(found)


def _torn(one: Operation, chance: random.Random) -> Operation:
    return (
        one if not one.data else Operation(one.offset, one.data[: chance.randrange(len(one.data))])
    )


@pytest.mark.parametrize("to", ["raw", "vhd:dynamic", "vhdx:dynamic"])
def test_whatever_a_power_loss_leaves_the_file_is_the_same(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {0: pattern(64 * KiB), 4 * MiB: pattern(4096, 2), 7 * MiB: pattern(4096, 3)}
    source = sparse_device(8 * MiB, parts)
    (tmp_path / "whole").mkdir()
    write_image(source, tmp_path / "whole" / "image", to)
    whole = (tmp_path / "whole" / "image").read_bytes()
    recorder = Recorder()
    with monkeypatch.context() as patched:
        record(recorder, patched)
        run(source, tmp_path / "image", to)
    (tmp_path / "image").unlink()
    states, starts = recorder.states(1), set()
    for data, journal in states:
        (tmp_path / "image.partial").write_bytes(data)
        (tmp_path / "image.partial.journal").write_bytes(journal)
        _, start, _, _ = run(source, tmp_path / "image", to, options=other_ids())
        got = (tmp_path / "image").read_bytes()
        starts.add(start)
        assert got == whole or start == 0
        assert read_image(tmp_path / "image", to) == bytes(source._bytes)
        (tmp_path / "image").unlink()
    assert len(starts) > 2
    assert len(states) > 20


def record(recorder: Recorder, patched: pytest.MonkeyPatch) -> None:
    for name, owner in (("data", NewFile), ("journal", FileDevice)):

        def write(self, offset, data, *, name=name, real=owner.write):
            recorder.log.append((name, Operation(offset, bytes(data))))
            real(self, offset, data)

        def truncate(self, size, *, name=name, real=owner.truncate):
            recorder.log.append((name, Operation(size)))
            real(self, size)

        def flush(self, *, name=name, real=owner.flush):
            real(self)
            recorder.log.append((name, Operation(-1)))

        patched.setattr(owner, "write", write)
        patched.setattr(owner, "truncate", truncate)
        patched.setattr(owner, "flush", flush)


def test_a_journal_that_contradicts_itself_is_an_error_by_name(tmp_path: Path) -> None:
    source = disk()
    for blocks in ([0, 0], [10], [1 << 40]):
        (tmp_path / "image.partial").write_bytes(bytes(SIZE))
        (tmp_path / "image.partial.journal").write_bytes(b"")
        device = FileDevice(tmp_path / "image.partial.journal", writable=True)
        journal = Journal(device)
        journal.begin(session(source, "vhdx:dynamic"))
        mark = build_mark(Mark(4 * MiB, len(blocks), 0), journal.salt)
        journal.add([*build_places(blocks, journal.salt), mark])
        device.close()
        with pytest.raises(JournalInvalid, match=r"image\.partial\.journal: ") as caught:
            run(source, tmp_path / "image", "vhdx:dynamic")
        assert caught.value.fields["offset"] > 0
