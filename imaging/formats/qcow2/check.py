"""Check a qcow2 that can be opened: L2 tables, refcounts and flags, and what its writer said. Changes nothing.

Reads all tables, of internal snapshots too, and no content. Memory: 64 MiB, and 100 bytes for each L2 table.
"""

from collections.abc import Iterator

from imaging.check import Finding, Severity
from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage
from imaging.formats.base import DiskImage
from imaging.formats.qcow2.layout import (
    COMPRESSED,
    CORRUPT,
    DIRTY,
    MAX_HEADER_SIZE,
    Header,
    parse_header,
    parse_names,
)
from imaging.formats.qcow2.refcounts import compare_refcounts
from imaging.formats.qcow2.tables import ClusterTables
from imaging.formats.qcow2.uses import Tables, TooMany, find_tables, l2_entries


def check_qcow2(file: BlockDevice, image: DiskImage) -> Iterator[Finding]:  # noqa: ARG001  (every checker has one shape)
    """Yield what is wrong or doubtful in a qcow2; its backing file and its data file are not looked at."""
    header = parse_header(read_bytes(file, 0, min(MAX_HEADER_SIZE, file.size)))
    yield from _check_flags(header)
    is_damaged = False
    for finding in _check_tables(file, header):
        is_damaged = True
        yield finding
    if is_damaged:
        yield _uncounted("a table is damaged")
        return
    try:
        names = parse_names(read_bytes(file, 0, min(header.cluster_size, file.size)), header)
        tables = find_tables(file, header, names.bitmaps)
        yield from compare_refcounts(file, header, tables)
    except InvalidImage as err:
        yield Finding("check.table-damaged", Severity.ERROR, str(err), err.fields.get("offset"))
        yield _uncounted("a table is damaged")
    except TooMany as err:
        yield _uncounted(f"too much to count: {err}")
    else:
        yield from _unread(file, header, tables)


def _unread(file: BlockDevice, header: Header, tables: Tables) -> Iterator[Finding]:
    if any(
        entry & COMPRESSED for table in tables.times for entry in l2_entries(file, header, table)
    ):
        yield Finding(
            "check.content-unread",
            Severity.NOTE,
            "the content of compressed clusters was not looked at: `imageport disk digest` inflates it",
        )


def _uncounted(why: str) -> Finding:
    return Finding(
        "check.uncounted", Severity.NOTE, f"refcounts were not compared with uses: {why}"
    )


def _check_flags(header: Header) -> Iterator[Finding]:
    if header.incompatible & DIRTY:
        yield Finding(
            "check.not-closed",
            Severity.WARNING,
            "its writer did not close the image: refcounts may be wrong, and what was written last"
            " may be missing",
            72,
            8,
        )
    if header.incompatible & CORRUPT:
        yield Finding(
            "check.marked-corrupt",
            Severity.ERROR,
            "its writer found damage and marked the image as corrupt",
            72,
            8,
        )


def _check_tables(file: BlockDevice, header: Header) -> Iterator[Finding]:
    # In a data file a cluster lies where it lies in the disk; whether the file is that long, opening knows.
    data_size = header.virtual_size if header.has_data_file else file.size
    tables = ClusterTables(file, header, data_size=data_size)
    for number in tables.present():
        try:
            tables.require(number)
        except InvalidImage as err:
            place = err.fields.get("offset")
            yield Finding("check.table-damaged", Severity.ERROR, str(err), place)
