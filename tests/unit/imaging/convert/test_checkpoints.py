"""When a checkpoint is due, what it saves, and in which order it makes it durable."""

import threading
from pathlib import Path

import pytest

from imaging.convert.checkpoints import FileCheckpoints, Interval
from imaging.convert.copy import copy_random
from imaging.convert.journal import Journal
from imaging.convert.plan import RUN
from imaging.convert.records import Mark
from imaging.digest import DIGEST_BLOCK, DigestBuilder
from imaging.memory import MemoryDevice
from imaging.newfile import NewFile
from imaging.units import MiB
from tests.support.disks import pattern
from tests.support.resumes import session


class Sink:
    """Places what it is told to have placed."""

    def __init__(self) -> None:
        self.fresh: list[int] = []

    def write(self, offset: int, data: memoryview) -> None: ...

    def finish(self) -> None: ...

    def restore(self, offset: int, placed: object) -> None: ...

    def placed(self) -> list[int]:
        fresh, self.fresh = self.fresh, []
        return fresh


class World:
    """Checkpoints with a clock of their own; `log` is what was made durable."""

    def __init__(self, file: NewFile, digest: DigestBuilder | None) -> None:
        self.now, self.log = 100.0, []
        self.sink, self.device = Sink(), MemoryDevice(0)
        self.journal = Journal(self.device)
        self.journal.begin(session(MemoryDevice(64 * MiB), "raw"))
        flush, real = file.flush, self.device.flush
        file.flush = lambda: (self.log.append("data"), flush())
        self.device.flush = lambda: (self.log.append("journal"), real())
        self.points = FileCheckpoints(
            file,
            self.sink,
            self.journal,
            digest,
            interval=Interval(10 * MiB, 5.0),
            clock=lambda: self.now,
        )


@pytest.fixture
def file(tmp_path: Path):
    with NewFile(tmp_path / "a") as file:
        yield file


def test_both_data_and_time_must_have_passed(file: NewFile) -> None:
    world = World(file, None)
    assert not world.points.is_due(50 * MiB)
    world.now += 5
    assert not world.points.is_due(10 * MiB - 1)
    assert world.points.is_due(12 * MiB)
    save = world.points.freeze(12 * MiB)
    world.now += 100
    assert not world.points.is_due(60 * MiB)  # while the last one is being saved
    assert world.points.freeze(14 * MiB) is None
    save()
    assert not world.points.is_due(22 * MiB - 1)
    assert world.points.is_due(22 * MiB)
    assert world.points.freeze(12 * MiB) is None  # nothing is new


def test_data_are_durable_before_the_journal_speaks_of_them(file: NewFile) -> None:
    world = World(file, None)
    world.sink.fresh = [5, 3]
    file.truncate(777)
    world.points.freeze(4 * MiB)()
    assert world.log == ["data", "journal"]
    assert Journal(world.device).mark == Mark(4 * MiB, 2, 777)
    world.sink.fresh = [9]
    world.points.freeze(6 * MiB)()
    found = Journal(world.device)
    assert found.mark == Mark(6 * MiB, 3, 777)
    assert list(found.places()) == [5, 3, 9]
    assert FileCheckpoints(file, world.sink, found, None, interval=Interval()).start == 6 * MiB


def test_data_that_cannot_be_flushed_are_not_spoken_of(file: NewFile) -> None:
    world = World(file, None)

    def fails() -> None:
        raise OSError(5, "no")

    file.flush = fails
    with pytest.raises(OSError, match="no"):
        world.points.freeze(4 * MiB)()
    assert Journal(world.device).mark is None


def test_digests_are_saved_once(file: NewFile) -> None:
    digest = DigestBuilder(64 * MiB)
    world = World(file, digest)
    digest.set_zero(0, digest.count)
    digest.set_blocks(3, bytes(range(32)))
    world.points.freeze(4 * MiB)()
    size = world.device.size
    digest.set_blocks(8, bytes(range(1, 33)))
    digest.set_blocks(100, bytes(range(2, 34)))
    world.points.freeze(8 * MiB)()
    assert world.device.size - size < 150
    found = DigestBuilder(64 * MiB)
    Journal(world.device).load_digests(found)
    assert list(found.data_blocks(0, 16)) == [3, 8]
    assert next(found.missing()) == (16, 112)


class Watching(Sink):
    """Knows who is writing."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.writing = 0
        self.written: set[int] = set()

    def write(self, offset: int, data: memoryview) -> None:
        with self.lock:
            self.writing += 1
        threading.Event().wait(0.001)
        with self.lock:
            self.written.add(offset // DIGEST_BLOCK)
            self.writing -= 1


class Points:
    """Asks for a checkpoint all the time, and looks whether it is one."""

    start = 0

    def __init__(self, sink: Watching) -> None:
        self.sink = sink
        self.offsets: list[int] = []
        self.saved = 0
        self.saving = 0

    def is_due(self, copied: int) -> bool:
        return True

    def freeze(self, offset: int):
        assert self.sink.writing == 0
        assert self.sink.written == set(range(offset // DIGEST_BLOCK))
        if self.saving or self.offsets[-1:] == [offset]:
            return None
        self.offsets.append(offset)
        self.saving += 1
        return self.save

    def save(self) -> None:
        self.saving -= 1
        self.saved += 1


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_nobody_writes_while_a_copy_is_frozen(threads: int) -> None:
    sink = Watching()
    points = Points(sink)
    size = 12 * RUN
    copy_random(MemoryDevice(pattern(size)), sink, digest=None, threads=threads, checkpoints=points)
    assert points.offsets == sorted(set(points.offsets))
    assert points.saved == len(points.offsets) > 3


def test_nothing_new_is_begun_while_one_waits_for_the_others() -> None:
    """Else the others could keep the one waiting for ever."""

    class Seldom(Points):
        due = 0

        def is_due(self, copied: int) -> bool:
            if copied - self.due < 2 * RUN:
                return False
            self.due = copied
            return True

        def freeze(self, offset: int):
            assert offset == self.due
            return super().freeze(offset)

    sink = Watching()
    size = 16 * RUN
    points = Seldom(sink)
    copy_random(MemoryDevice(pattern(size)), sink, digest=None, threads=4, checkpoints=points)
    assert points.saved > 3


@pytest.mark.parametrize("threads", [1, 3])
def test_a_copy_begins_where_it_is_told(threads: int) -> None:
    sink, size = Watching(), 6 * RUN
    points = Points(sink)
    points.start = 4 * RUN
    points.is_due = lambda copied: False
    seen: list[int] = []
    copy_random(
        MemoryDevice(pattern(size)),
        sink,
        digest=None,
        threads=threads,
        checkpoints=points,
        progress=seen.append,
    )
    assert sink.written == set(range(4 * RUN // DIGEST_BLOCK, size // DIGEST_BLOCK))
    assert sum(seen) == size


def test_a_checkpoint_that_fails_ends_the_copy() -> None:
    class Failing(Points):
        def save(self) -> None:
            raise OSError(28, "no room under the test")

    sink = Watching()
    with pytest.raises(OSError, match="under the test"):
        copy_random(
            MemoryDevice(pattern(8 * RUN)), sink, digest=None, threads=3, checkpoints=Failing(sink)
        )
