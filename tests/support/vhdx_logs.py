"""VHDX logs for tests, built by hand from [MS-VHDX] 2.3."""

import struct
from dataclasses import dataclass, field

import google_crc32c

from tests.support.disks import LOG_OFFSET, MiB, Vhdx, pattern, vhdx_header

GUID = bytes(range(50, 66))
DATA = 4 * MiB  # file offset of block 0 of `IMAGE`
SECTOR = 4096


@dataclass
class Entry:
    """One log entry to be written.

    Attributes:
        changes: File offset -> 4096 bytes, or the length of a zeroed range.
    """

    sequence: int
    changes: dict[int, bytes | int] = field(default_factory=dict)
    tail: int = 0
    guid: bytes = GUID
    flushed: int = 5 * MiB
    last: int = 5 * MiB

    def build(self) -> bytes:
        """Return the entry's bytes, checksum included."""
        descriptors, sectors = b"", b""
        for offset, change in self.changes.items():
            if isinstance(change, int):
                head = struct.pack("<4sIQ", b"zero", 0, change)
            else:
                head = b"desc" + change[-4:] + change[:8]
                low, high = struct.pack("<I", self.sequence & 0xFFFFFFFF), self.sequence >> 32
                sectors += b"data" + struct.pack("<I", high) + change[8:-4] + low
            descriptors += head + struct.pack("<QQ", offset, self.sequence)
        size = -(-(64 + len(descriptors)) // SECTOR) * SECTOR
        head = struct.pack(
            "<4sIIIQII16sQQ",
            *(b"loge", 0, size + len(sectors), self.tail, self.sequence, len(self.changes), 0),
            *(self.guid, self.flushed, self.last),
        )
        entry = (head + descriptors).ljust(size, b"\0") + sectors
        return entry[:4] + struct.pack("<I", google_crc32c.value(entry)) + entry[8:]


def image(log: dict[int, bytes], *, log_version: int = 0, guid: bytes = GUID) -> bytes:
    """A disk of one block whose log holds `log`: position -> bytes, wrapped round the ring."""
    ring = bytearray(MiB)
    for position, data in log.items():
        first = min(len(data), MiB - position)
        ring[position : position + first] = data[:first]
        ring[: len(data) - first] = data[first:]
    header = bytearray(vhdx_header(2, log_guid=guid))
    header[64:66] = struct.pack("<H", log_version)
    header[4:8] = bytes(4)
    header[4:8] = struct.pack("<I", google_crc32c.value(bytes(header)))
    headers = (vhdx_header(1), bytes(header))
    return Vhdx(MiB, {0: pattern(MiB)}, headers=headers, parts={LOG_OFFSET: bytes(ring)}).build()
