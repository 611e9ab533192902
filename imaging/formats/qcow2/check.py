"""Check a qcow2 that can be opened: every L2 table, and what its writer said about it. Changes nothing.

Reads all L2 tables (8 bytes for each cluster in use, or 16), no data: compressed clusters are not inflated.
"""

from collections.abc import Iterator

from imaging.check import Finding, Severity
from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage
from imaging.formats.qcow2.layout import CORRUPT, DIRTY, MAX_HEADER_SIZE, Header, parse_header
from imaging.formats.qcow2.tables import ClusterTables


def check_qcow2(file: BlockDevice) -> Iterator[Finding]:
    """Yield what is wrong or doubtful in a qcow2; its backing file and its data file are not looked at."""
    header = parse_header(read_bytes(file, 0, min(MAX_HEADER_SIZE, file.size)))
    yield from _check_flags(header)
    yield from _check_tables(file, header)
    yield Finding(
        "check.open-only",
        Severity.NOTE,
        "refcounts, snapshots and the content of compressed clusters were not looked at:"
        " `qemu-img check` does that",
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
