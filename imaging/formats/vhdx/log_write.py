"""Write to the log of a VHDX ([MS-VHDX] 2.3), so that changes of metadata happen whole or not at all.

Two slots, the halves of the log, are written in turn, and every entry stands for itself: its tail is its own place, and
its number is two more than the one before, so that no two entries ever make a sequence. The one with the highest number
is the active one (2.3.3). So a new entry never overwrites the one that still counts, and a torn one leaves that one in
force. Before an entry is written, all that the one before it changed must be durable in its place.
"""

import struct
import uuid
from collections.abc import Mapping

import google_crc32c

from imaging.device import ResizableDevice
from imaging.formats.vhdx.headers import Headers
from imaging.formats.vhdx.layout import NO_GUID
from imaging.formats.vhdx.log import require_known_log
from imaging.units import KiB, MiB, round_up

PAGE = 4 * KiB
"""What a data sector of the log holds, and the unit of its changes."""

_ENTRY = struct.Struct("<4sIIIQII16sQQ")
_DESCRIPTOR = struct.Struct("<4s4s8sQQ")


class LogWriter:
    """Changes pages of a VHDX's metadata through its log; by one thread.

    Every method may raise what the file raises. After that only the next opening may use the log: how much of an
    entry, or of the pages that it changes, is durable is not known then.
    """

    def __init__(self, file: ResizableDevice, headers: Headers) -> None:
        """Write nothing yet; the log holds nothing that counts.

        Raises:
            UnsupportedImage: Its log is one that is not replayed.
        """
        require_known_log(headers.current)
        self._file = file
        self._headers = headers
        self._half = headers.current.log_length // 2 // PAGE * PAGE
        self._guid = NO_GUID
        self._sequence = 1
        self.capacity = max(1, (self._half - PAGE) // (PAGE + _DESCRIPTOR.size))
        """Pages that one entry takes."""

    @property
    def is_active(self) -> bool:
        """Whether the log has to be replayed, should the file be left as it is."""
        return self._guid != NO_GUID

    def commit(self, pages: Mapping[int, bytes]) -> None:
        """Change pages, durably when this returns; what was written to the file before is durable before them.

        More pages than `capacity` are several entries: after a power loss only the first of them may be changed.

        Args:
            pages: File offset, a multiple of 4096, -> 4096 bytes.
        """
        offsets = sorted(pages)
        for start in range(0, len(offsets), self.capacity):
            part = {offset: pages[offset] for offset in offsets[start : start + self.capacity]}
            self._file.flush()
            self._write_entry(part)
            self._file.flush()
            if self._headers.current.log_guid != self._guid:
                self._headers.put(log_guid=self._guid)
            for offset, page in part.items():
                self._file.write(offset, page)

    def close(self) -> None:
        """Leave the log with nothing to replay, once all changes are durable in their places."""
        if self.is_active:
            self._file.flush()
            self._headers.put(log_guid=NO_GUID)
            self._guid = NO_GUID

    def _write_entry(self, pages: Mapping[int, bytes]) -> None:
        if not self.is_active:
            self._guid = uuid.uuid4().bytes_le
        position = self._half * (self._sequence // 2 % 2)
        entry = build_entry(
            pages,
            sequence=self._sequence,
            position=position,
            log_guid=self._guid,
            file_size=self._file.size // MiB * MiB,
        )
        self._file.write(self._headers.current.log_offset + position, entry)
        self._sequence += 2


def build_entry(
    pages: Mapping[int, bytes], *, sequence: int, position: int, log_guid: bytes, file_size: int
) -> bytes:
    """Build a log entry that is its own tail (2.3.1), with one data descriptor for each page.

    Args:
        pages: File offset -> 4096 bytes.
        sequence: The entry's number, above 0.
        position: Where it goes, from the log's first byte on.
        log_guid: The same as in the header.
        file_size: Both file offsets of the entry (2.3.1.1): a multiple of 1 MiB, durable before the entry is written.
    """
    head = round_up(_ENTRY.size + len(pages) * _DESCRIPTOR.size, PAGE)
    low, high = (
        (sequence & 0xFFFF_FFFF).to_bytes(4, "little"),
        (sequence >> 32).to_bytes(4, "little"),
    )
    descriptors, sectors = bytearray(), bytearray()
    for offset, page in pages.items():
        descriptors += _DESCRIPTOR.pack(b"desc", page[-4:], page[:8], offset, sequence)
        sectors += b"data" + high + page[8:-4] + low
    length = head + len(sectors)
    start = _ENTRY.pack(
        b"loge", 0, length, position, sequence, len(pages), 0, log_guid, file_size, file_size
    )
    entry = (start + descriptors).ljust(head, b"\0") + sectors
    return entry[:4] + int(google_crc32c.value(entry)).to_bytes(4, "little") + entry[8:]
