"""Disks that are written in place, beside a plain model of their content; and what a power loss may leave of them."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from imaging.device import read_bytes
from imaging.errors import DeviceIOError
from imaging.formats import edit_image, open_image
from imaging.formats.base import WritableImage
from imaging.siblings import Siblings
from tests.support.disks import MiB, pattern
from tests.support.powerloss import RecordedDevice

SECTOR = 512


@dataclass
class Edited:
    """An image being written, its file recorded.

    Attributes:
        file: What the image lies in.
        model: What the disk holds.
        steps: (operations before the step, content after it), the beginning first.
        flushed: (operations after a flush, number of the step whose content it made durable).
    """

    file: RecordedDevice
    form: str
    model: bytearray
    siblings: Siblings | None = None
    steps: list[tuple[int, bytes]] = field(default_factory=list)
    flushed: list[tuple[int, int]] = field(default_factory=list)
    image: WritableImage = field(init=False)

    def __post_init__(self) -> None:
        self.steps.append((0, bytes(self.model)))
        self.flushed.append((0, 0))
        self.reopen()

    @property
    def done(self) -> int:
        """Operations so far."""
        return len(self.file.recording.operations)

    def reopen(self) -> None:
        """Open the image to be written."""
        self.image = edit_image(self.file, format=self.form, siblings=self.siblings)

    def write(self, offset: int, data: bytes) -> None:
        """Write to the disk and to the model."""
        before = self.done
        self.model[offset : offset + len(data)] = data
        self.steps.append((before, bytes(self.model)))
        self.image.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Zero a range of both."""
        before = self.done
        self.model[offset : offset + length] = bytes(length)
        self.steps.append((before, bytes(self.model)))
        self.image.zero(offset, length)

    def flush(self) -> None:
        """Make it durable: all that was done up to the last flush of the file, whatever came behind it."""
        self.image.flush()
        operations = self.file.recording.operations
        last = max((at for at, one in enumerate(operations) if one.offset < 0), default=-1)
        self.flushed.append((last + 1, len(self.steps) - 1))

    def assert_reads(self) -> None:
        """The disk is the model, through the writer and through a new reader of the file."""
        assert read_bytes(self.image, 0, self.image.size) == bytes(self.model)

    def assert_reopens(self) -> None:
        """A reader of the file as it is finds the model."""
        image = open_image(self.file, format=self.form, siblings=self.siblings)
        assert read_bytes(image, 0, image.size) == bytes(self.model)
        image.close()

    def assert_survives_power_loss(self, *, random_choices: int = 4) -> int:
        """Every state that may be left opens, and each sector holds what was flushed or something newer."""
        count = 0
        for content, durable, reached in self.file.recording.states(random_choices=random_choices):
            image = open_image(_ReadOnly(content), format=self.form, siblings=self.siblings)
            found = read_bytes(image, 0, image.size)
            image.close()
            first = max(step for at, step in self.flushed if at <= durable)
            last = max(number for number, (at, _) in enumerate(self.steps) if at <= reached)
            versions = [self.steps[number][1] for number in range(first, last + 1)]
            assert len(found) == len(versions[0])
            if found not in versions:
                for at in range(0, len(found), SECTOR):
                    sector = found[at : at + SECTOR]
                    assert any(one[at : at + SECTOR] == sector for one in versions), at
            count += 1
        return count


def change_at_random(edited: Edited, seed: int, steps: int) -> None:
    """Write, zero, flush and reopen by chance."""
    chance = random.Random(seed)
    size = len(edited.model)
    for number in range(steps):
        offset = chance.randrange(size)
        length = min(chance.choice([1, 100, 512, 4096, 70_000, 1 << 20, 3 << 20]), size - offset)
        if chance.random() < 0.5:
            offset, length = offset // 4096 * 4096, max(length // 4096 * 4096, 512)
            length = min(length, size - offset)
        action = chance.random()
        if action < 0.55:
            edited.write(offset, pattern(length, seed * 1000 + number))
        elif action < 0.8:
            edited.zero(offset, length)
        elif action < 0.93:
            edited.flush()
        else:
            edited.flush()
            edited.image.close()
            edited.reopen()
        edited.assert_reads()


class _ReadOnly(RecordedDevice):
    """A file that nobody may change."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._read_only = True


class Failing(RecordedDevice):
    """A file of which one operation fails, and does nothing; then all is as if nothing had been."""

    def __init__(self, content: bytes, fails: int) -> None:
        super().__init__(content)
        self.fails = fails
        self.failed = False

    def _count(self) -> None:
        self.fails -= 1
        if self.fails == 0:
            self.failed = True
            raise DeviceIOError("the storage failed once")

    def write(self, offset: int, data: memoryview | bytes) -> None:
        self._count()
        super().write(offset, data)

    def flush(self) -> None:
        self._count()
        super().flush()


def changed_as_far_as_it_goes(edited: Edited) -> int:
    """Write and flush, each once more if it fails; return the step up to which a flush said that all is durable."""
    durable = written = 0
    for offset, data in ((2 * MiB + 512, pattern(MiB, 20)), (10, b"x"), (1 * MiB, pattern(700, 3))):
        for _ in range(2):
            with suppress(DeviceIOError):
                edited.write(offset, data)
                written = len(edited.steps) - 1
                break
        for _ in range(2):
            with suppress(DeviceIOError):
                edited.image.flush()
                durable = written
                break
    with suppress(DeviceIOError):
        edited.image.close()
    return durable


def assert_sound_after_any_failure(make: Callable[[], Edited]) -> None:
    """Whichever operation of the file fails, the image opens, and holds what a flush that succeeded made durable."""
    for number in range(1, 200):
        whole = make()
        file = Failing(whole.file.recording.initial, number)
        edited = Edited(file, whole.form, whole.model, whole.siblings)
        durable = changed_as_far_as_it_goes(edited)
        image = open_image(file, format=whole.form, siblings=edited.siblings)
        found = read_bytes(image, 0, image.size)
        image.close()
        versions = [content for _, content in edited.steps[durable:]]
        for at in range(0, len(found), 512):
            sector = found[at : at + 512]
            assert any(one[at : at + 512] == sector for one in versions), (number, at)
        if not file.failed:
            assert durable == len(edited.steps) - 1
            return
    raise AssertionError("the changes never ended")
