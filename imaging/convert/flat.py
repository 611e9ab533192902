"""Sinks of disks that lie in one piece in their file: raw, and fixed VHD, a footer behind it. Zeros stay holes."""

from collections.abc import Iterable, Sequence

from imaging.convert.options import Options
from imaging.formats.vhd.layout import UNIX_TIME_OF_EPOCH, build_fixed_footer
from imaging.output import OutputFile


class RawSink:
    """A raw image of `size` bytes."""

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:  # noqa: ARG002  (every factory has one shape)
        file.truncate(size)
        self._file = file
        self._size = size

    def restore(self, offset: int, placed: Iterable[int]) -> None:  # noqa: ARG002  (blocks have their places by nature)
        """See `ResumableSink`."""
        self._file.truncate(offset)
        self._file.truncate(self._size)

    def placed(self) -> Sequence[int]:
        """See `ResumableSink`."""
        return ()

    def write(self, offset: int, data: memoryview) -> None:
        """See `RandomSink`."""
        self._file.write(offset, data)

    def finish(self) -> None:
        """Flush; there is nothing else to write."""
        self._file.flush()


class FixedVhdSink(RawSink):
    """A fixed VHD of exactly `size` bytes, a multiple of 512."""

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        super().__init__(file, size, options)
        self._footer = build_fixed_footer(
            size,
            unique_id=options.unique_id.bytes,
            timestamp=options.timestamp - UNIX_TIME_OF_EPOCH,
        )

    def finish(self) -> None:
        """Write the footer behind data that are durable."""
        self._file.flush()
        self._file.write(self._size, self._footer)
        self._file.flush()
