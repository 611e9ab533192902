"""What a folder may hold after a power loss: traces what a process does to the files in it, and plays every state.

Names and data become durable apart from each other: data by the fsync of their file, names by the fsync of the folder.
Of what was done to names since then any beginning may be there, or all but one; and of the data of each file since its
own fsync nothing, all, or some.
"""

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.powerloss import Operation, Recording

Folder = dict[str, bytes]


@dataclass(frozen=True)
class Event:
    """Something that was done.

    Attributes:
        kind: "create", "link", "rename", "unlink" (names); "write" (data); "fsync"; "fsyncdir".
        name: The new name, or the one that goes.
        old: The other name of a link or rename.
        inode: Of the file.
        operation: What was written.
    """

    kind: str
    name: str = ""
    old: str = ""
    inode: int = 0
    operation: Operation | None = None

    @property
    def is_of_names(self) -> bool:
        """Whether it changes the folder itself."""
        return self.kind in ("create", "link", "rename", "unlink")


@dataclass
class FolderTrace:
    """What was done to one folder, whose files were `initial`; other folders are not looked at."""

    folder: Path
    initial: Folder = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def attach(self, patched: pytest.MonkeyPatch) -> None:
        """Record from now on."""
        self.initial = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self._inodes = {path.name: path.stat().st_ino for path in self.folder.iterdir()}
        self._patch_data(patched)
        self._patch_names(patched)

    def _patch_data(self, patched: pytest.MonkeyPatch) -> None:
        pwrite, truncate, fsync = os.pwrite, os.ftruncate, os.fsync

        def traced_pwrite(fd: int, data: bytes | memoryview, offset: int) -> int:
            with self._lock:
                done = pwrite(fd, data, offset)
                self._add_data(fd, Operation(offset, bytes(data[:done])))
                return done

        def traced_truncate(fd: int, size: int) -> None:
            with self._lock:
                truncate(fd, size)
                self._add_data(fd, Operation(size))

        def traced_fsync(fd: int) -> None:
            fsync(fd)
            found = os.fstat(fd)
            is_folder = os.path.samestat(found, self.folder.stat())
            with self._lock:
                self.events.append(
                    Event("fsyncdir") if is_folder else Event("fsync", inode=found.st_ino)
                )

        patched.setattr(os, "pwrite", traced_pwrite)
        patched.setattr(os, "ftruncate", traced_truncate)
        patched.setattr(os, "fsync", traced_fsync)

    def _patch_names(self, patched: pytest.MonkeyPatch) -> None:
        opened, link, replace, unlink = os.open, os.link, os.replace, os.unlink

        def traced_open(path: str | Path, flags: int, mode: int = 0o777, **more: int) -> int:
            is_new = not os.path.lexists(path)
            fd = opened(path, flags, mode, **more)
            if is_new:  # not so for unnamed files
                self._add_name("create", path, inode=os.fstat(fd).st_ino)
            return fd

        def traced_link(old: str | Path, new: str | Path) -> None:
            link(old, new)
            self._add_name("link", new, old, Path(new).stat().st_ino)

        def traced_replace(old: str | Path, new: str | Path) -> None:
            replace(old, new)
            self._add_name("rename", new, old, Path(new).stat().st_ino)

        def traced_unlink(path: str | Path) -> None:
            unlink(path)
            self._add_name("unlink", path)

        patched.setattr(os, "open", traced_open)
        patched.setattr(os, "link", traced_link)
        patched.setattr(os, "replace", traced_replace)
        patched.setattr(os, "unlink", traced_unlink)

    def states(self, seed: int = 1) -> Iterator[tuple[int, Folder]]:
        """Yield (events done, what the folder holds) for a power loss before each barrier, and at the end."""
        chance = random.Random(seed)
        for at, event in enumerate(self.events):
            if event.kind != "write":
                yield from self._states_at(at, chance)
        yield from self._states_at(len(self.events), chance)

    def _states_at(self, done: int, chance: random.Random) -> Iterator[tuple[int, Folder]]:
        names = self._names_at(done)
        contents = self._contents_at(done, chance)
        count = max(len(each) for each in contents.values()) if contents else 1
        for listing in names:
            for choice in range(count):
                yield (
                    done,
                    {
                        name: contents[inode][choice % len(contents[inode])]
                        for name, inode in listing.items()
                    },
                )

    def _names_at(self, done: int) -> list[dict[str, int]]:
        """Return every listing of the folder that may be there."""
        durable, pending = dict(self._inodes), []
        for event in self.events[:done]:
            if event.kind == "fsyncdir":
                durable, pending = _listing(durable, pending), []
            elif event.is_of_names:
                pending.append(event)
        choices = [pending[:count] for count in range(len(pending) + 1)]
        choices += [pending[:at] + pending[at + 1 :] for at in range(len(pending))]
        return [_listing(durable, choice) for choice in choices]

    def _contents_at(self, done: int, chance: random.Random) -> dict[int, list[bytes]]:
        """Return for each file some contents that it may have."""
        recordings: dict[int, Recording] = {
            inode: Recording(self.initial[name]) for name, inode in self._inodes.items()
        }
        for event in self.events[:done]:
            recording = recordings.setdefault(event.inode, Recording())
            if event.operation is not None:
                recording.operations.append(event.operation)
            elif event.kind == "fsync":
                recording.operations.append(Operation(-1))
        return {inode: one.last_states(chance) for inode, one in recordings.items()}

    def _is_ours(self, path: str | Path) -> bool:
        return Path(path).parent.resolve() == self.folder

    def _add_data(self, fd: int, operation: Operation) -> None:
        self.events.append(Event("write", inode=os.fstat(fd).st_ino, operation=operation))

    def _add_name(self, kind: str, path: str | Path, old: str | Path = "", inode: int = 0) -> None:
        if self._is_ours(path):
            with self._lock:
                self.events.append(Event(kind, Path(path).name, Path(old).name, inode))


def _listing(names: dict[str, int], events: list[Event]) -> dict[str, int]:
    """Return names and inodes after some events."""
    names = dict(names)
    for event in events:
        if event.kind == "unlink":
            names.pop(event.name, None)
        else:
            names[event.name] = event.inode
        if event.kind == "rename":
            names.pop(event.old, None)
    return names
