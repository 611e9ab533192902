"""Begin a conversion that can be gone on with, or go on with one. Opens the journal; copies nothing."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from imaging.convert.checkpoints import FileCheckpoints, Interval
from imaging.convert.journal import Journal
from imaging.convert.options import Options
from imaging.convert.records import VERSION, Session, SourceFile, why_anew
from imaging.convert.sink import ResumableSink
from imaging.convert.targets import TARGETS, Sink
from imaging.digest import DigestBuilder
from imaging.errors import JournalInvalid, UnsupportedImage
from imaging.filedev import FileDevice, FileId
from imaging.newfile import flush_folder
from imaging.output import OutputFile

USUALLY = Interval()
Maker = Callable[[Options], Sink]


@dataclass(frozen=True, slots=True)
class Begun:
    """A conversion that is ready to be copied.

    Attributes:
        sink: Restored.
        checkpoints: For `convert`; `start` is where it begins.
        anew: Why it begins at the beginning; None: it goes on with an earlier run.
    """

    sink: ResumableSink
    checkpoints: FileCheckpoints
    anew: str | None


def session_of(
    files: Sequence[FileId],
    file: OutputFile,
    options: Options,
    *,
    target: str,
    sizes: tuple[int, int],
    digest: bool,
    source_format: str,
) -> Session:
    """Describe a conversion.

    Args:
        files: All that the source was opened from.
        file: The new file.
        options: Of the new image.
        target: One of TARGETS.
        sizes: Virtual size of the source, and of the target.
        digest: Whether digests are computed.
        source_format: As opened.
    """
    source = tuple(
        SourceFile(_text(one.path.name), one.inode, one.size, one.mtime_ns) for one in files
    )
    return Session(
        version=VERSION,
        target=target,
        name=_text(file.path.name),
        partial=file.inode,
        virtual_size=sizes[0],
        padded_size=sizes[1],
        sector_size=options.sector_size,
        digest=digest,
        source_format=source_format,
        source=source,
        unique_id=options.unique_id,
        timestamp=options.timestamp,
    )


def why_not(files: Sequence[FileId], target: str) -> str | None:
    """Return why a conversion into `target` from these files cannot be gone on with, if it cannot."""
    if TARGETS[target].is_stream:
        return f"{target} is written from its beginning to its end: it cannot be resumed"
    for one in files:
        if not one.is_regular:
            return f"{one.path}: a device does not tell whether it changed: what was read of it cannot be resumed"
    return None


@contextmanager
def begin(
    file: OutputFile,
    wanted: Session,
    options: Options,
    make: Maker,
    *,
    digest: DigestBuilder | None,
    interval: Interval = USUALLY,
) -> Iterator[Begun]:
    """Go on with what `file`, opened with `keep`, and its journal hold, if it is the same conversion; else begin anew.

    The journal is closed at the end; committing the file deletes it.

    Args:
        file: The partial file, locked against others.
        wanted: What is to be done.
        options: Of the new image; ids and time come from an earlier run that is gone on with.
        make: Makes the sink in `file`.
        digest: Gets the digests of what was copied before.
        interval: Of the checkpoints.

    Raises:
        UnsupportedImage: The sink cannot be gone on with.
        JournalInvalid: The journal contradicts itself.
    """
    device = FileDevice(file.journal_path, writable=True, flags=os.O_CREAT | os.O_NOFOLLOW)
    try:
        journal = Journal(device)
        anew = open_session(file, journal, wanted)
        sink = make(_options(journal, options))
        if not isinstance(sink, ResumableSink):
            raise UnsupportedImage(f"{wanted.target} cannot be resumed", found=wanted.target)
        _restore(sink, journal, digest, file.journal_path)
        yield Begun(sink, FileCheckpoints(file, sink, journal, digest, interval=interval), anew)
    finally:
        device.close()


def open_session(file: OutputFile, journal: Journal, wanted: Session) -> str | None:
    """Make file and journal agree with each other: go on with both, or empty both; return why they are empty."""
    anew = why_anew(journal.session, journal.mark, wanted, file_size=file.size)
    if anew is None:
        journal.go_on()
        if journal.mark is not None:
            file.truncate(journal.mark.file_size)  # what was written behind it, perhaps torn
        return None
    journal.clear()  # before the file changes: it must never speak of what is not there
    file.truncate(0)
    journal.begin(wanted)
    flush_folder(file.journal_path.parent)
    return anew


def _restore(
    sink: ResumableSink, journal: Journal, digest: DigestBuilder | None, path: Path
) -> None:
    try:
        sink.restore(0 if journal.mark is None else journal.mark.offset, journal.places())
        if digest is not None:
            journal.load_digests(digest)
    except JournalInvalid as err:
        where = {"path": str(path), "offset": journal.position}
        raise JournalInvalid(f"{path}: {err}", **err.fields, **where) from err


def _options(journal: Journal, options: Options) -> Options:
    """Return what makes the file the same as one that was made without a break."""
    session = journal.session
    if session is None:
        return options
    return replace(options, unique_id=session.unique_id, timestamp=session.timestamp)


def _text(name: str) -> str:
    """Return a name as JSON can hold it, whatever its bytes are."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
