"""SMB listing: what is in an open folder ([MS-SMB2] 2.2.33, [MS-FSCC] 2.4.10). Nothing that the server says of lengths
is trusted, nor that it ever comes to an end.
"""

import struct
from collections.abc import Iterator

from smbprotocol.exceptions import SMBResponseException
from smbprotocol.file_info import FileInformationClass
from smbprotocol.open import SMB2QueryDirectoryRequest, SMB2QueryDirectoryResponse

from agent.shares.base import Entry
from agent.shares.smb.link import METADATA_BYTES, Link
from agent.shares.smb.seal import Tampered
from agent.shares.smb.status import NO_MORE_FILES
from agent.shares.smb.times import nanoseconds
from agent.shares.smb.untyped import LibOpen

MOST_ENTRIES = 1_000_000
"""No store of images comes near; a server that goes on after that is broken, or hostile."""

FOLDER_ATTRIBUTE = 0x10

_ENTRY = struct.Struct("<I4x8x8xQ8xQQII")
"""Offset of the next, last write, end of file, allocation, attributes, bytes of the name."""


def list_entries(link: Link, handle: LibOpen) -> list[Entry]:
    """Return what is in an open folder, sorted by name, without `.` and `..`.

    Raises:
        Tampered: The answer is none, or does not end.
    """
    entries: dict[str, Entry] = {}
    while len(entries) <= MOST_ENTRIES:
        before = len(entries)
        try:
            page = _ask(link, handle)
        except SMBResponseException as err:
            if err.status == NO_MORE_FILES:
                found = (one for name, one in entries.items() if name not in {".", ".."})
                return sorted(found, key=lambda entry: entry.name)
            raise
        entries.update((entry.name, entry) for entry in parse_entries(page))
        if len(entries) == before:
            raise Tampered("a list of files that repeats itself")
    raise Tampered(f"a folder of more than {MOST_ENTRIES} files")


def parse_entries(page: bytes) -> Iterator[Entry]:
    """Read one answer.

    Raises:
        Tampered: An entry or its name does not lie in it.
    """
    at = 0
    while True:
        if at + _ENTRY.size > len(page):
            raise Tampered("a list of files that ends inside of an entry")
        following, written, size, allocated, attributes, length = _ENTRY.unpack_from(page, at)
        name = page[at + _ENTRY.size : at + _ENTRY.size + length]
        if len(name) != length or length % 2:
            raise Tampered("a list of files that ends inside of a name")
        is_folder = bool(attributes & FOLDER_ATTRIBUTE)
        yield Entry(
            name.decode("utf-16-le", "replace"),
            is_folder,
            0 if is_folder else size,
            0 if is_folder else allocated,
            nanoseconds(written),
        )
        if following == 0:
            return
        if following < _ENTRY.size:
            raise Tampered("a list of files whose entries overlap")
        at += following


def _ask(link: Link, handle: LibOpen) -> bytes:
    request = SMB2QueryDirectoryRequest()
    request["file_information_class"] = FileInformationClass.FILE_DIRECTORY_INFORMATION
    request["file_id"] = handle.file_id
    request["output_buffer_length"] = METADATA_BYTES
    request["buffer"] = "*".encode("utf-16-le")
    response = SMB2QueryDirectoryResponse()
    response.unpack(link.ask(request)["data"].get_value())
    return bytes(response["buffer"].get_value())
