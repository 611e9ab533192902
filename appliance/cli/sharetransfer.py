"""The work behind `imageport share put` and `get`: a source, local or on a share, copied into a new file anywhere."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.shares.base import FileIdentity, Share
from agent.shares.errors import ShareFull
from agent.shares.folder import ShareFolder
from agent.shares.identity import require_unchanged
from appliance.cli import output
from imaging.convert import TARGETS, Options, convert
from imaging.convert.resume import begin, session_of
from imaging.counting import CountingDevice
from imaging.device import BlockDevice
from imaging.digest import DigestBuilder, digest_device
from imaging.errors import ImagingError, Stopped
from imaging.extent import Kind
from imaging.filedev import FileDevice, FileId
from imaging.formats import DiskImage, open_files, open_image
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE

_KEPT = "imageport: what was copied is kept: the same command goes on with it"

AS_IT_IS = "raw"
"""The target that has the bytes of its source: a file is copied like a disk without a format."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied: the bytes of a file, or the disk inside it.

    Attributes:
        device: Its bytes.
        files: All that it is read from.
        require_unchanged: Raises if one of them changed since.
        format: For the journal: what it was opened as.
        sector_size: Of the disk.
    """

    device: BlockDevice
    files: tuple[FileId, ...]
    require_unchanged: Callable[[], None]
    format: str = "file"
    sector_size: int = SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class Done:
    """A finished copy.

    Attributes:
        size: Bytes that were copied: of the file, or of the disk.
        root: Their digest; None if none was computed.
        resumed_from: Byte at which this run began.
        bytes_read: From the source.
        bytes_written: To the new file.
    """

    size: int
    root: str | None
    resumed_from: int
    bytes_read: int
    bytes_written: int

    def fields(self) -> dict[str, object]:
        """Return what is shown as JSON."""
        return asdict(self)


# --- sources --------------------------------------------------------------------------------------


@contextmanager
def local_source(path: Path, to: str | None) -> Iterator[Source]:
    """Open a file or block device of this machine, or, if it is converted, the disk inside."""
    if to is None:
        with closing(FileDevice(path)) as file:
            first = file.identify()
            yield Source(file, (first,), lambda: _require_same([first]))
        return
    with open_files(path) as (image, files):
        _warn(image, str(path))

        yield _image_source(image, files, lambda: _require_same(files))


@contextmanager
def shared_source(share: Share, name: str, to: str | None) -> Iterator[Source]:
    """Open a file on a share, or, if it is converted, the disk inside it and its parents."""
    with ExitStack() as stack:
        file = stack.enter_context(closing(share.open_read(name)))
        first = file.identity()

        def file_unchanged() -> None:
            require_unchanged(name, first, file.identity())

        if to is None:
            yield Source(file, (_file_id(name, first),), file_unchanged)
            return
        folder = ShareFolder(share, name)
        image = stack.enter_context(closing(open_image(file, name=name, siblings=folder)))
        _warn(image, name)

        def all_unchanged() -> None:
            file_unchanged()
            for sibling, now in folder.identities().items():
                require_unchanged(sibling, folder.first[sibling], now)

        others = [_file_id(sibling, identity) for sibling, identity in folder.first.items()]
        yield _image_source(image, (_file_id(name, first), *others), all_unchanged)


def _image_source(
    image: DiskImage, files: tuple[FileId, ...], unchanged: Callable[[], None]
) -> Source:
    info = image.info
    return Source(image, files, unchanged, f"{info.format}:{info.subformat}", info.sector_size)


def _file_id(name: str, identity: FileIdentity) -> FileId:
    return FileId(
        path=Path(name),
        device=0,
        inode=identity.file_id,
        size=identity.size,
        mtime_ns=identity.write_time_ns,
        is_regular=True,
    )


def _require_same(files: Sequence[FileId]) -> None:
    for before in files:
        if before.is_regular:
            now = before.path.stat()
            require_unchanged(
                str(before.path),
                FileIdentity(before.size, before.mtime_ns, 0, before.inode),
                FileIdentity(now.st_size, now.st_mtime_ns, 0, now.st_ino),
            )


def _warn(image: DiskImage, name: str) -> None:
    for warning in image.info.warnings:
        output.note(f"imageport: warning: {name}: {warning}")


# --- the copy -------------------------------------------------------------------------------------


def require_room(source: Source, share: Share, url: str) -> None:
    """Refuse to begin what a share has no room for; `url` is what messages call it."""
    extents = source.device.extents(0, source.device.size)
    data = sum(extent.length for extent in extents if extent.kind is Kind.DATA)
    free = share.free_space()
    if data > free:
        raise ShareFull(
            f"{url}: the copy has {data} bytes of data, and the share has {free} bytes free",
            needed=data,
            free=free,
        )


def copy(
    source: Source, file: OutputFile, *, to: str | None, digest: bool, stop: Callable[[], bool]
) -> Done | None:
    """Copy, from where the same copy ended before, and give the file its name.

    Returns:
        None if `stop` ended it: everything is kept for the next time.

    Raises:
        FileChanged: The source changed meanwhile; nothing was given its name.
    """
    target, device = TARGETS[to or AS_IT_IS], source.device
    options = Options(
        uuid.uuid4(),
        time.time_ns() // 1_000_000_000,
        source.sector_size,
        device.extents(0, device.size),
    )
    size = target.padded_size(device.size, sector_size=source.sector_size)
    counted = CountingDevice(device)
    with ExitStack() as stack:
        builder = None
        if digest and device.size:
            folder = file.journal_path.parent
            builder = stack.enter_context(closing(DigestBuilder(device.size, folder=folder)))
        checkpoints, start = None, 0
        if target.is_stream:
            file.truncate(0)
            sink = target.make(file, size, options)
        else:
            wanted = session_of(
                source.files,
                file,
                options,
                target=to or AS_IT_IS,
                sizes=(device.size, size),
                digest=builder is not None,
                source_format=source.format,
            )
            begun = stack.enter_context(
                begin(
                    file,
                    wanted,
                    options,
                    lambda chosen: target.make(file, size, chosen),
                    digest=builder,
                )
            )
            sink, checkpoints = begun.sink, begun.checkpoints
            start = begun.checkpoints.start
            if begun.anew is None and start:
                output.note(f"imageport: goes on at byte {start} of {device.size}")
        line = stack.enter_context(output.ProgressLine("copy", device.size))
        line.advance(start)
        try:
            convert(
                counted,
                sink,
                digest=builder,
                progress=line.advance,
                stop=stop,
                checkpoints=checkpoints,
            )
        except Stopped:
            output.note(_KEPT)
            return None
        except (AgentError, ImagingError):
            output.note(_KEPT)
            raise
        source.require_unchanged()
        file.commit()
        root = None if builder is None else builder.root()
        return Done(device.size, root, start, counted.bytes_read, file.bytes_written)


def root_on(share: Share, name: str, to: str | None) -> str:
    """Read what is on the share now, and return its root digest."""
    with (
        shared_source(share, name, to) as source,
        output.ProgressLine("verify", source.device.size) as line,
    ):
        return digest_device(source.device, progress=line.advance).root
