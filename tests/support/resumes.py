"""Conversions with checkpoints in tests: small ones, ended at a chosen place, gone on with in the same folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from imaging.convert import TARGETS, Options, convert
from imaging.convert.checkpoints import Interval
from imaging.convert.records import VERSION, Session
from imaging.convert.resume import begin
from imaging.counting import CountingDevice
from imaging.device import BlockDevice
from imaging.digest import DigestBuilder
from imaging.newfile import NewFile
from tests.support.sinks import OPTIONS


def session(device: BlockDevice, to: str, options: Options = OPTIONS, **changed: object) -> Session:
    """Describe a conversion of a device."""
    size = TARGETS[to].padded_size(device.size, sector_size=options.sector_size)
    made = Session(
        version=VERSION,
        target=to,
        name="image",
        partial=0,
        virtual_size=device.size,
        padded_size=size,
        sector_size=options.sector_size,
        digest=True,
        source_format="raw:",
        source=(),
        unique_id=options.unique_id,
        timestamp=options.timestamp,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def run(
    source: BlockDevice,
    path: Path,
    to: str,
    *,
    stop: Callable[[], bool] | None = None,
    options: Options = OPTIONS,
    with_digest: bool = True,
    every_bytes: int = 1,
    file: NewFile | None = None,
    progress: Callable[[int], None] | None = None,
    seen: Callable[[int], None] | None = None,
    changed: dict[str, object] | None = None,
) -> tuple[str | None, int, int, str | None]:
    """Convert, or go on; return (root, first byte copied, bytes read, why anew). A checkpoint after every run."""
    wanted = session(source, to, options, digest=with_digest, **(changed or {}))
    digest = DigestBuilder(source.size) if with_digest else None
    counted = CountingDevice(source)
    with file or NewFile(path, keep=True) as file:

        def make(options: Options):
            return TARGETS[to].make(file, wanted.padded_size, options)

        interval = Interval(every_bytes, 0)
        with begin(file, wanted, options, make, digest=digest, interval=interval) as begun:
            start = begun.checkpoints.start
            if seen is not None:
                seen(start)
            convert(
                counted,
                begun.sink,
                digest=digest,
                stop=stop,
                checkpoints=begun.checkpoints,
                progress=progress,
            )
        file.commit()
    return digest and digest.root(), start, counted.bytes_read, begun.anew
