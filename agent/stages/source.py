"""The source of a job: a file on a share and its parents, opened and checked, and the virtual disk inside them.

All of it is blocking work, done in a pool of its own.
"""

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from agent.shares.base import FileIdentity, Share, ShareFile
from agent.shares.folder import ShareFolder
from agent.stages.base import StageContext
from agent.stages.plugins import make_share
from agent.threads import Pool, run_blocking
from agent.transfer.errors import SourceChanged
from imaging.extent import data_bytes
from imaging.formats import DiskImage, open_image
from protocol.ops import ShareRef

T = TypeVar("T")


class _AbortingFlag(threading.Event):
    """A stop flag that also wakes a call which waits for the share (an open may wait 90 s for a busy file)."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share

    def set(self) -> None:
        """Set, and abort the share's calls."""
        super().set()
        self._share.abort()


@dataclass(slots=True)
class Source:
    """An open source disk.

    Attributes:
        image: The virtual disk; read from any thread.
        identity: Of the file, when it was opened.
        folder: The files beside it that the image needed (its parents), and their identities.
        pool: The thread for all blocking calls on this share but reading.
    """

    image: DiskImage
    identity: FileIdentity
    folder: ShareFolder
    pool: Pool
    _share: Share
    _file: ShareFile
    _path: str

    @classmethod
    async def open(
        cls, ref: ShareRef, path: str, job: StageContext, *, image_format: str | None
    ) -> "Source":
        """Connect, open the file and its parents so that they cannot change, and check all of the metadata.

        Raises:
            AgentError: The share's. ImagingError: the image's, before the first byte goes anywhere.
        """
        share = make_share(ref, job)
        pool = Pool(f"share-{job.command_id[:8]}", 1)

        def blocking() -> "Source":
            try:
                file = share.open_read(path)
                identity = file.identity()
                folder = ShareFolder(share, path)
                image = open_image(file, format=image_format, name=path, siblings=folder)
            except BaseException:
                share.close()
                raise
            return cls(image, identity, folder, pool, share, file, path)

        try:
            return await run_blocking(pool, blocking, stop=_AbortingFlag(share))
        except BaseException:
            pool.close()
            raise

    async def data_bytes(self) -> int:
        """Return the bytes of the disk that are data."""
        return await self.run(lambda: data_bytes(self.image.extents(0, self.image.size)))

    async def check_unchanged(self) -> None:
        """Ask the share again whether every file is still the one that was opened; raises SourceChanged."""
        now = await self.run(self._file.identity)
        _require_same(self._path, asdict(self.identity), asdict(now))
        for name, parent in (await self.run(self.folder.identities)).items():
            _require_same(name, asdict(self.folder.first[name]), asdict(parent))

    def require_as_before(self, before: dict[str, Any]) -> None:
        """Raise SourceChanged unless every file is the one of which an earlier attempt kept `kept()`."""
        _require_same(self._path, before.get("source", {}), asdict(self.identity))
        parents = before.get("parents", {})
        for name, identity in self.folder.first.items():
            _require_same(name, parents.get(name, {}), asdict(identity))

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the source: the identities of its files."""
        parents = {name: asdict(identity) for name, identity in self.folder.first.items()}
        return {"source": asdict(self.identity), **({"parents": parents} if parents else {})}

    @property
    def is_remote(self) -> bool:
        """Whether each read is a server's answer."""
        return self._share.kind != "local"

    def abort(self) -> None:
        """Make blocked reads end now."""
        self._share.abort()

    async def close(self) -> None:
        """Disconnect; also after an abort."""

        def blocking() -> None:
            self.image.close()
            self._file.close()
            self._share.close()

        await run_blocking(self.pool, blocking)
        self.pool.close()

    async def run(self, fn: Callable[[], T]) -> T:
        """Run blocking work of this job in the pool, off the event loop."""
        return await run_blocking(self.pool, fn, stop=_AbortingFlag(self._share))


def _require_same(path: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise SourceChanged, naming what differs, unless two identities are equal."""
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        told = ", ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in differing)
        msg = f"{path} changed while the job ran: {told}"
        raise SourceChanged(msg, path=path, fields_changed=differing)
