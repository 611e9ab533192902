"""Sinks of disks that lie in one piece in their file: raw, and fixed VHD, a footer behind it. Zeros stay holes."""

from imaging.convert.options import Options
from imaging.formats.vhd.layout import UNIX_TIME_OF_EPOCH, build_fixed_footer
from imaging.newfile import NewFile


class RawSink:
    """A raw image."""

    def __init__(self, file: NewFile, size: int, options: Options) -> None:  # noqa: ARG002  (every factory has one shape)
        file.truncate(size)
        self._file = file

    def write(self, offset: int, data: memoryview) -> None:
        """See `RandomSink`."""
        self._file.write(offset, data)

    def finish(self) -> None:
        """Flush; there is nothing else to write."""
        self._file.flush()


class FixedVhdSink:
    """A fixed VHD of exactly `size` bytes, a multiple of 512."""

    def __init__(self, file: NewFile, size: int, options: Options) -> None:
        self._footer = build_fixed_footer(
            size,
            unique_id=options.unique_id.bytes,
            timestamp=options.timestamp - UNIX_TIME_OF_EPOCH,
        )
        file.truncate(size)
        self._file = file
        self._size = size

    def write(self, offset: int, data: memoryview) -> None:
        """See `RandomSink`."""
        self._file.write(offset, data)

    def finish(self) -> None:
        """Write the footer behind data that are durable."""
        self._file.flush()
        self._file.write(self._size, self._footer)
        self._file.flush()
