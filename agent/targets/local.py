"""Target `local`: a folder of this machine that behaves like a cloud. The reference implementation.

Disk = `<name>.raw`, sparse, beside `<name>.json` with size, state and owner tags. A disk being written is
`<name>.part`; finishing renames it, so a name without `.part` is always a whole disk.
"""

import errno
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from agent.targets.base import (
    Artifact,
    Checksum,
    DiskSpec,
    Intent,
    IntentLog,
    Preflight,
)
from agent.targets.errors import (
    DiskLost,
    SizeDiffers,
    SizeUnsupported,
    TargetNotFound,
    TargetRefused,
)
from agent.targets.limits import RULES
from agent.targets.naming import Choice, Found, choose_name, nothing_known
from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.digest import DigestBuilder
from imaging.extent import Extent
from imaging.filedev import FileDevice

KIND = "local.disk"


@dataclass(frozen=True, slots=True)
class _Meta:
    """What `<name>.json` holds."""

    id: str
    size: int
    final: bool
    tags: dict[str, str]


class LocalDisk:
    """One disk being written."""

    def __init__(self, folder: "LocalTarget", name: str, meta: _Meta, *, resumed: bool) -> None:
        self._folder = folder
        self._name = name
        self._meta = meta
        self.resumed = resumed
        self.checksum: Checksum | None = None
        self._file = FileDevice(folder.data_path(name, final=meta.final), writable=not meta.final)

    def put(self, offset: int, data: memoryview, checksum: str | None, stop: Stop) -> None:  # noqa: ARG002 - none here
        """Write one range."""
        self._file.write(offset, data)

    async def seal(self, digest: DigestBuilder) -> None:  # noqa: ARG002 - nothing checks it here
        """Flush; raise SizeDiffers if the file no longer has the disk's size (reading back would miss a longer one)."""
        if not self._meta.final:
            self._file.flush()
            self._folder.check_size(self._name, self._meta)

    async def allocated(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """Describe what was written."""
        for extent in self._file.extents(offset, length):
            yield extent

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Read back."""
        self._file.read_into(offset, buffer)

    async def reject(self) -> None:
        """Make it a part again if it was renamed already; a part never looks finished."""
        if self._meta.final:
            self._meta = self._folder.make_part(self._name, self._meta)

    async def finish(self) -> Artifact:
        """Rename data and description: whole or not there."""
        if not self._meta.final:
            self._meta = self._folder.make_final(self._name, self._meta)
        properties: dict[str, str | int | bool] = {"size": self._meta.size, "name": self._name}
        return Artifact(KIND, self._meta.id, properties)

    async def close(self) -> None:
        """Close the file."""
        self._file.close()


class LocalTarget:
    """One folder."""

    kind: ClassVar[str] = "local"
    limits = RULES["local"].transfer

    def __init__(self, folder: Path, name: str) -> None:
        """Use `folder`; `name` is the disk to make.

        Raises:
            TargetNotFound: The folder is not there.
        """
        if not folder.is_dir():
            msg = f"{folder} is no folder"
            raise TargetNotFound(msg, path=str(folder))
        self._folder = folder
        self._name = name
        self._scope = {"provider": "local", "account": str(folder), "region": "-"}

    async def open(self, spec: DiskSpec, intents: IntentLog) -> LocalDisk:
        """Create the disk or find this line's own."""
        choice = await self._choose(
            spec, known=lambda name: intents.known(Intent(KIND, self._scope, name)) is not None
        )
        name = choice.name
        intent = Intent(KIND, self._scope, name)
        known = intents.known(intent)
        meta = self._own_meta(name, spec.tagger) if known is not None else None
        if meta is None:
            meta = await self._create(name, spec, intents, intent)
            return LocalDisk(self, name, meta, resumed=False)
        self._check(name, meta, spec, known)
        return LocalDisk(self, name, meta, resumed=True)

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Look which name is free."""
        choice = await self._choose(spec)
        return Preflight(choice.name, (f"file {self.data_path(choice.name, final=True)}",))

    async def covers(self, intent: Intent) -> bool:
        """See `DiskTarget`."""
        return intent.scope == self._scope

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """Delete an unfinished or finished disk of this line."""
        for final in (False, True):
            meta = self._read_meta(intent.name, final=final)
            if meta is None or (object_id and meta.id != object_id):
                continue  # nothing, or the disk that was to be replaced
            if not tagger.is_this_line(meta.tags, self._scope, intent.name):
                return f"{self._folder / intent.name} carries another owner tag"
            self.data_path(intent.name, final=final).unlink(missing_ok=True)
            self._meta_path(intent.name, final=final).unlink(missing_ok=True)
        return None

    async def close(self) -> None:
        """Nothing is held."""

    def data_path(self, name: str, *, final: bool) -> Path:
        """Return where a disk's bytes are."""
        return self._folder / (f"{name}.raw" if final else f"{name}.part")

    def check_size(self, name: str, meta: _Meta) -> None:
        """Raise SizeDiffers unless the unfinished disk's file is as long as the disk."""
        path = self.data_path(name, final=False)
        found = path.stat().st_size
        if found != meta.size:
            msg = f"{path} has {found} bytes, the disk needs {meta.size}"
            raise SizeDiffers(msg, name=name, found=found, expected=meta.size)

    def make_final(self, name: str, meta: _Meta) -> _Meta:
        """Swap a flushed disk in. Every step may have happened already in an attempt that was killed."""
        part = self.data_path(name, final=False)
        if part.exists():
            part.rename(self.data_path(name, final=True))
        meta = replace(meta, final=True)
        self._write_meta(name, meta)
        self._meta_path(name, final=False).unlink(missing_ok=True)
        return meta

    def make_part(self, name: str, meta: _Meta) -> _Meta:
        """Take a finished disk out of its place."""
        self.data_path(name, final=True).rename(self.data_path(name, final=False))
        meta = replace(meta, final=False)
        self._write_meta(name, meta)
        self._meta_path(name, final=True).unlink(missing_ok=True)
        return meta

    def _write_meta(self, name: str, meta: _Meta) -> None:
        path = self._meta_path(name, final=meta.final)
        fresh = path.with_name(path.name + ".new")
        with fresh.open("w") as file:
            json.dump(asdict(meta), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def _choose(self, spec: DiskSpec, known: Callable[[str], bool] = nothing_known) -> Choice:
        """Return the name that the disk gets."""
        return await choose_name(
            self._name,
            spec.if_exists,
            known=known,
            look=lambda name: self._look(name, spec.tagger),
            can_replace=True,
        )

    async def _look(self, name: str, tagger: Tagger) -> Found | None:
        for final in (True, False):
            meta = self._read_meta(name, final=final)
            if meta is not None or self.data_path(name, final=final).exists():
                ours = meta is not None and tagger.read(meta.tags, self._scope, name) is not None
                return Found(ours, final, str(self.data_path(name, final=final)))
        return None

    async def _create(self, name: str, spec: DiskSpec, intents: IntentLog, intent: Intent) -> _Meta:
        await intents.record(intent)
        tags = spec.tagger.tags(self._scope, name)
        meta = _Meta(uuid.uuid4().hex, spec.padded_size, final=False, tags=tags)
        path = self.data_path(name, final=False)
        try:
            with path.open("wb") as file:
                file.truncate(spec.padded_size)
            self._write_meta(name, meta)
        except OSError as err:
            msg = f"{path} cannot be made with {spec.padded_size} bytes: {err.strerror}"
            kind = SizeUnsupported if err.errno == errno.EFBIG else TargetRefused
            raise kind(msg, path=str(path)) from err
        await intents.created(intent, meta.id)
        return meta

    def _own_meta(self, name: str, tagger: Tagger) -> _Meta | None:
        """Return the description of this line's own disk, unfinished or finished."""
        for final in (False, True):
            meta = self._read_meta(name, final=final)
            if meta is not None and tagger.is_this_line(meta.tags, self._scope, name):
                # killed between the two renames of make_final: the data is in its place already
                moved = not final and not self.data_path(name, final=False).exists()
                return self.make_final(name, meta) if moved else meta
        return None

    def _check(self, name: str, meta: _Meta, spec: DiskSpec, known: str | None) -> None:
        if known and known != meta.id:
            msg = f"{self._folder / name} is not the disk that this job created"
            raise DiskLost(msg, name=name)
        if meta.size != spec.padded_size:
            msg = f"{self._folder / name} has {meta.size} bytes, the disk needs {spec.padded_size}"
            raise SizeDiffers(msg, name=name, found=meta.size, expected=spec.padded_size)

    def _meta_path(self, name: str, *, final: bool) -> Path:
        return self._folder / (f"{name}.json" if final else f"{name}.part.json")

    def _read_meta(self, name: str, *, final: bool) -> _Meta | None:
        path = self._meta_path(name, final=final)
        try:
            plain: dict[str, Any] = json.loads(path.read_text())
            return _Meta(plain["id"], plain["size"], plain["final"], plain["tags"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as err:
            msg = f"{path} is damaged: {err}"
            raise DiskLost(msg, name=name) from err
