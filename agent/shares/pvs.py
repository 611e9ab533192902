"""PVS store: which files of a folder make one vDisk of Citrix Provisioning. Pure; reads nothing.

A vDisk X is X.vhdx (or .vhd), its versions X.N.avhdx (differences) and X.N.vhdx (merged bases), and beside each a
.pvp (properties) and, while somebody has it, a .lok (lock). A lock is only a file, so a copy of it is one as well.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from agent.shares.base import Entry

_DISK = re.compile(
    r"(?P<name>.+?)(?:\.(?P<version>[0-9]{1,9}))?\.(?P<kind>vhdx?|avhdx?|pvp|lok)", re.IGNORECASE
)


@dataclass(slots=True)
class Version:
    """One file of a vDisk.

    Attributes:
        number: 0 for the first base.
        file: The image.
        is_base: Whether it stands by itself; else it holds the differences to the one before.
        has_properties: Whether its .pvp is there.
        is_locked: Whether its .lok is there: somebody runs it, or writes it.
    """

    number: int
    file: Entry
    is_base: bool
    has_properties: bool = False
    is_locked: bool = False


@dataclass(slots=True)
class VDisk:
    """A vDisk of a store.

    Attributes:
        name: Of its files, without version and suffix.
        versions: The oldest first.
        loose: Numbers of .pvp and .lok files without an image.
    """

    name: str
    versions: list[Version] = field(default_factory=list)
    loose: list[int] = field(default_factory=list)

    @property
    def chain(self) -> list[Version]:
        """The newest version and everything that it needs, the base first; shorter if something is missing."""
        chain: list[Version] = []
        for version in reversed(self.versions):
            if chain and version.number != chain[0].number - 1:
                break
            chain.insert(0, version)
            if version.is_base:
                break
        return chain

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the chain is missing."""
        return bool(self.chain) and self.chain[0].is_base

    @property
    def is_locked(self) -> bool:
        """Whether somebody holds a version that the newest one needs."""
        return any(version.is_locked for version in self.chain)


def group_vdisks(entries: Iterable[Entry]) -> tuple[list[VDisk], list[Entry]]:
    """Return the vDisks of a store's folder, and what belongs to none.

    A lone image without .pvp, .lok or versions is no vDisk.
    """
    disks: dict[str, VDisk] = {}
    marks: list[tuple[str, int, str, Entry]] = []
    rest: list[Entry] = []
    for entry in entries:
        match = None if entry.is_folder else _DISK.fullmatch(entry.name)
        if match is None:
            rest.append(entry)
            continue
        name, number, kind = match["name"], int(match["version"] or 0), match["kind"].lower()
        if kind in {"pvp", "lok"}:
            marks.append((name.lower(), number, kind, entry))
        else:
            disk = disks.setdefault(name.lower(), VDisk(name))
            disk.versions.append(Version(number, entry, is_base=not kind.startswith("a")))
    for key, number, kind, entry in marks:
        if not _mark(disks.get(key), number, kind):
            rest.append(entry)
    for key in [key for key, disk in disks.items() if not _is_vdisk(disk)]:
        rest += [version.file for version in disks.pop(key).versions]
    for disk in disks.values():
        disk.versions.sort(key=lambda version: (version.number, version.is_base))
    ordered = sorted(disks.values(), key=lambda disk: disk.name.lower())
    return ordered, sorted(rest, key=lambda entry: entry.name)


def _mark(disk: VDisk | None, number: int, kind: str) -> bool:
    """Note a .pvp or .lok at the image that it lies beside; False if there is none."""
    if disk is None:
        return False
    beside = [version for version in disk.versions if version.number == number]
    for version in beside:
        version.has_properties |= kind == "pvp"
        version.is_locked |= kind == "lok"
    if not beside:
        disk.loose.append(number)
    return True


def _is_vdisk(disk: VDisk) -> bool:
    is_marked = any(version.has_properties or version.is_locked for version in disk.versions)
    return is_marked or bool(disk.loose) or len(disk.versions) > 1
