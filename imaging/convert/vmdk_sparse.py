"""Write a VMDK of the kind monolithicSparse: one file that grows, as VMware Workstation and many tools take it.

Implements "Virtual Disk Format 5.0", "Hosted Sparse Extents". Layout: header, descriptor, redundant grain directory and
its tables, grain directory and its tables, grains in the order in which they came. Knows no thread and no source.
"""

from array import array
from collections.abc import Iterable, Sequence

from imaging.convert.options import Options
from imaging.convert.places import Places
from imaging.convert.vmdk_stream import too_large
from imaging.formats.vmdk import build
from imaging.formats.vmdk.layout import TABLE_ENTRIES, build_header
from imaging.output import OutputFile
from imaging.units import SECTOR_SIZE


class MonolithicSparseSink:
    """A RandomSink; grains of which nothing was written are not in the file. Memory: see `Places`."""

    def __init__(self, file: OutputFile, size: int, options: Options) -> None:
        """Begin the image of a disk of `size` bytes, a multiple of 512, in an empty file."""
        self._file = file
        self._size = size
        self._unique_id = options.unique_id
        self._tables = build.Tables.of(size)
        self._places = Places()

    def restore(self, offset: int, placed: Iterable[int]) -> None:  # noqa: ARG002  (the places say it)
        """See `ResumableSink`."""
        self._places.restore(placed, limit=-(-self._size // build.GRAIN_SIZE))
        self._file.truncate(self._sector_of(self._places.count) * SECTOR_SIZE)
        self._file.write(0, bytes(SECTOR_SIZE))  # that of a run that ended while it finished

    def placed(self) -> Sequence[int]:
        """See `ResumableSink`."""
        return self._places.fresh()

    def write(self, offset: int, data: memoryview) -> None:
        """Write into the grains, which get their places as they come; neighbours at once.

        Raises:
            DiskTooLarge: The file would be longer than its tables can say.
        """
        start, run = 0, self._file_offset(offset)
        done = build.GRAIN_SIZE - offset % build.GRAIN_SIZE
        while done < len(data):
            file_offset = self._file_offset(offset + done)
            if file_offset - run != done - start:
                self._file.write(run, data[start:done])
                start, run = done, file_offset
            done += build.GRAIN_SIZE
        self._file.write(run, data[start:])

    def finish(self) -> None:
        """Write the tables behind data that are durable, and the header last: until then it is no VMDK."""
        self._file.truncate(self._sector_of(self._places.count) * SECTOR_SIZE)
        self._file.flush()
        redundant, directory = self._tables.directories
        self._write_tables(redundant)
        self._write_tables(directory)
        header = build.written_header(
            1,
            self._size,
            directory=directory,
            redundant=redundant,
            overhead=self._tables.overhead,
        )
        descriptor = build.build_descriptor(
            "monolithicSparse", self._file.path.name, self._size // SECTOR_SIZE, self._unique_id
        )
        self._file.write(build.DESCRIPTOR_SECTOR * SECTOR_SIZE, descriptor)
        self._file.flush()
        self._file.write(0, build_header(header))
        self._file.flush()

    def _write_tables(self, directory: int) -> None:
        """Write a directory and those of its tables that name a grain; the others are holes of the file."""
        tables = self._tables.places(directory)
        self._file.write(directory * SECTOR_SIZE, build.build_table(tables))
        end = self._tables.count * TABLE_ENTRIES
        for first, page in self._places.pages():
            entries = array("I", [self._sector_of(place - 1) if place else 0 for place in page])
            table = tables[first // TABLE_ENTRIES]
            self._file.write(table * SECTOR_SIZE, build.build_table(entries[: end - first]))

    def _file_offset(self, offset: int) -> int:
        grain, inside = divmod(offset, build.GRAIN_SIZE)
        place, is_new = self._places.find(grain)
        if is_new and self._sector_of(place + 1) > build.MAX_SECTORS:
            raise too_large(self._file.path)
        return self._sector_of(place) * SECTOR_SIZE + inside

    def _sector_of(self, place: int) -> int:
        return self._tables.overhead + place * build.GRAIN_SECTORS
