"""How `imageport disk convert` begins: anew, or where an earlier run with `--resume` ended. Copies nothing itself."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.cli import output
from appliance.cli.exits import BadUsage
from imaging.convert import TARGETS, Options
from imaging.convert.sink import Checkpoints
from imaging.convert.targets import Sink
from imaging.digest import DigestBuilder
from imaging.filedev import FileId
from imaging.formats import DiskImage
from imaging.late import load
from imaging.newfile import JOURNAL, PARTIAL, NewFile

_RESUME = "imaging.convert.resume"
"""Imported when it is needed: most conversions are not gone on with."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A new file and what is copied into it; `start` is the byte of the disk where that begins."""

    file: NewFile
    sink: Sink
    checkpoints: Checkpoints | None = None
    start: int = 0


def require_resumable(files: Sequence[FileId], target: str) -> None:
    """Refuse `--resume` where nothing can be gone on with."""
    reason = load(f"{_RESUME}:why_not")(files, target)
    if reason is not None:
        raise BadUsage(f"--resume: {reason}")


@contextmanager
def begin_anew(
    args: argparse.Namespace,
    image: DiskImage,
    files: Sequence[FileId],  # noqa: ARG001  (both ways have one shape)
    options: Options,
    digest: DigestBuilder | None,  # noqa: ARG001
) -> Iterator[Begun]:
    """Begin the file; it is given up if it is not committed."""
    journal = args.target.with_name(args.target.name + JOURNAL)
    had_journal = journal.exists()
    with NewFile(args.target, replace=args.replace) as file:
        if had_journal:
            output.note(
                f"imageport: warning: what an earlier run with --resume has left of {args.target} was given up"
            )
        size = TARGETS[args.to].padded_size(image.size, sector_size=options.sector_size)
        yield Begun(file, TARGETS[args.to].make(file, size, options))


@contextmanager
def begin(
    args: argparse.Namespace,
    image: DiskImage,
    files: Sequence[FileId],
    options: Options,
    digest: DigestBuilder | None,
) -> Iterator[Begun]:
    """Go on with the file, or begin it; it stays if it is not committed, and the user is told."""
    partial = args.target.with_name(args.target.name + PARTIAL)
    was_there = partial.exists()
    target, info = TARGETS[args.to], image.info
    size = target.padded_size(image.size, sector_size=options.sector_size)
    with NewFile(args.target, replace=args.replace, keep=True) as file:
        wanted = load(f"{_RESUME}:session_of")(
            files,
            file,
            options,
            target=args.to,
            sizes=(image.size, size),
            digest=digest is not None,
            source_format=f"{info.format}:{info.subformat}",
        )

        def make(options: Options) -> Sink:
            return target.make(file, size, options)

        with load(f"{_RESUME}:begin")(file, wanted, options, make, digest=digest) as begun:
            start = begun.checkpoints.start
            if begun.anew is None:
                output.note(f"imageport: goes on with {partial} at byte {start} of {image.size}")
            elif was_there:
                output.note(f"imageport: begins anew: {begun.anew}")
            try:
                yield Begun(file, begun.sink, begun.checkpoints, start)
            except BaseException:
                output.note(
                    f"imageport: {partial} is kept: the same command with --resume goes on with it"
                )
                raise
