"""Replay the log of a VHDX that was not closed ([MS-VHDX] 2.3), in memory; the file is not changed.

The log is a ring of 4 KiB sectors. An entry is a header, descriptors and data sectors:

| offset | size | field of the entry header |
|---|---|---|
| 0 | 4 | signature `loge` |
| 4 | 4 | checksum: CRC-32C of the entry with this field zero |
| 8 | 4 | entry length, a multiple of 4096 |
| 12 | 4 | tail: where in the log the oldest entry still needed begins |
| 16 | 8 | sequence number |
| 24 | 4 | descriptor count |
| 32 | 16 | log GUID |
| 48 | 8 | flushed file offset: the file is at least this long |
| 56 | 8 | last file offset: the file becomes this long |
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c

from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage, Truncated, UnsupportedImage
from imaging.formats.signatures import MAX_VIRTUAL_SIZE
from imaging.formats.vhdx.layout import Header
from imaging.overlay import OverlayDevice
from imaging.units import KiB, MiB, TiB

_SECTOR = 4 * KiB
_MAX_LOG = 64 * MiB
"""It is read at once, because on a share every read is a round trip. Known writers make 1 MiB."""
_MAX_FILE = MAX_VIRTUAL_SIZE + 1 * TiB
"""The largest disk with its tables and bitmaps: nobody's log makes a longer file of this one."""
_MAX_DESCRIPTORS = 16384
"""Of one replay. A log of 1 MiB holds 255 changed sectors."""

_HEADER = struct.Struct("<4sIIIQII16sQQ")
_DESCRIPTOR = struct.Struct("<4s4s8sQQ")  # signature, trailing, leading or zero length, offset, seq


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A sound entry; `position` counts from the log's first byte."""

    position: int
    length: int
    tail: int
    sequence: int
    descriptors: int
    flushed_file_offset: int
    last_file_offset: int


def replay_log(file: BlockDevice, header: Header) -> OverlayDevice:
    """Return `file` as it is after the log that `header` names was replayed.

    Raises:
        InvalidImage: The log holds no sound sequence, or a change that cannot be.
        Truncated: The file is shorter than it was when the log was written.
        UnsupportedImage: The log is of another version, or larger than any known writer's.
    """
    require_known_log(header)
    log = _Log(file, header)
    sequence = active_sequence(log.entries(), header.log_length)
    if not sequence:
        raise InvalidImage(
            f"the VHDX log at file offset {header.log_offset} must be replayed but holds no"
            " complete sequence of entries",
            offset=header.log_offset,
        )
    last = sequence[-1]
    if last.flushed_file_offset > file.size:
        raise Truncated(
            f"the VHDX log was written when the file had {last.flushed_file_offset} bytes, now it"
            f" has {file.size}",
            offset=file.size,
            file_size=file.size,
        )
    if last.last_file_offset > _MAX_FILE:
        raise InvalidImage(
            f"the VHDX log makes the file {last.last_file_offset} bytes long, expected at most {_MAX_FILE}",
            offset=header.log_offset + last.position + 56,
        )
    if sum(entry.descriptors for entry in sequence) > _MAX_DESCRIPTORS:
        raise UnsupportedImage(
            f"the VHDX log holds more than {_MAX_DESCRIPTORS} changes", offset=header.log_offset
        )
    overlay = OverlayDevice(file, size=last.last_file_offset)
    for entry in sequence:
        log.apply(entry, overlay)
    return overlay


def require_known_log(header: Header) -> None:
    """Refuse a log that is not replayed, and so must not be written either.

    Raises:
        UnsupportedImage: It is of another version, or larger than any known writer's.
    """
    if header.log_version != 0:
        raise UnsupportedImage(
            f"the VHDX log has version {header.log_version}, expected 0", offset=header.log_offset
        )
    if header.log_length > _MAX_LOG:
        raise UnsupportedImage(
            f"the VHDX log has {header.log_length} bytes, at most {_MAX_LOG} are replayed",
            offset=header.log_offset,
        )


def active_sequence(entries: dict[int, LogEntry], ring: int) -> list[LogEntry]:
    """Choose the entries to replay, oldest first (2.3.3).

    A sequence is entries that follow each other round the ring with numbers that rise by one. It is
    valid if its last entry's tail is one of its entries; the one with the highest last number counts.

    Args:
        entries: Sound entries by position.
        ring: Bytes of the log.

    Returns:
        The entries from the tail on; empty if no sequence is valid.
    """
    following: dict[int, LogEntry] = {}
    for entry in entries.values():
        after = entries.get((entry.position + entry.length) % ring)
        if after is not None and after.sequence == entry.sequence + 1:
            following[entry.position] = after
    heads = entries.keys() - {entry.position for entry in following.values()}
    best: list[LogEntry] = []
    for head in heads:
        sequence = [entries[head]]
        while (after := following.get(sequence[-1].position)) is not None:
            sequence.append(after)
        positions = [entry.position for entry in sequence]
        tail = sequence[-1].tail
        if tail in positions and (not best or sequence[-1].sequence > best[-1].sequence):
            best = sequence[positions.index(tail) :]
    return best


class _Log:
    """The ring of one VHDX, in memory while it is replayed."""

    def __init__(self, file: BlockDevice, header: Header) -> None:
        self._ring = read_bytes(file, header.log_offset, header.log_length)
        self._offset = header.log_offset
        self._length = header.log_length
        self._guid = header.log_guid

    def entries(self) -> dict[int, LogEntry]:
        """Find every sound entry. An entry cannot begin inside another, so the work is linear."""
        found = (self._entry_at(position) for position in range(0, self._length, _SECTOR))
        return {entry.position: entry for entry in found if entry is not None}

    def apply(self, entry: LogEntry, overlay: OverlayDevice) -> None:
        """Make the changes of one entry."""
        data_position = entry.position + _descriptor_sectors(entry.descriptors) * _SECTOR
        for signature, trailing, leading, offset, _ in self._descriptors(entry):
            length = _SECTOR if signature == b"desc" else int.from_bytes(leading, "little")
            if offset % _SECTOR or length % _SECTOR or offset + length > overlay.size:
                raise InvalidImage(
                    f"VHDX log entry {entry.sequence} changes {length} bytes at file offset"
                    f" {offset}, expected multiples of {_SECTOR} in a file of {overlay.size} bytes",
                    offset=self._offset + entry.position,
                )
            if signature == b"zero":
                overlay.zero(offset, length)
            else:
                sector = self._sector(data_position)
                overlay.write(offset, leading + sector[8:-4] + trailing)
                data_position += _SECTOR

    def _sector(self, position: int) -> bytes:
        start = position % self._length
        return self._ring[start : start + _SECTOR]

    def _entry_at(self, position: int) -> LogEntry | None:
        """Return the entry that begins at `position`, None if no sound one does."""
        head = self._sector(position)
        signature, _, length, tail, sequence, count, _, guid, flushed, last = _HEADER.unpack_from(
            head
        )
        if signature != b"loge" or guid != self._guid or sequence == 0:
            return None
        if length % _SECTOR or not 0 < length <= self._length or tail >= self._length:
            return None
        entry = LogEntry(position, length, tail, sequence, count, flushed, last)
        return entry if self._has_parts(entry) and self._has_checksum(entry) else None

    def _has_parts(self, entry: LogEntry) -> bool:
        """Tell whether all descriptors and data sectors are there and carry the entry's number."""
        sectors = _descriptor_sectors(entry.descriptors)
        if sectors * _SECTOR > entry.length:
            return False
        for signature, _, _, _, sequence in self._descriptors(entry):
            if signature not in (b"zero", b"desc") or sequence != entry.sequence:
                return False
            sectors += signature == b"desc"
        if sectors * _SECTOR != entry.length:
            return False
        first = _descriptor_sectors(entry.descriptors)
        return all(
            _is_data_sector(self._sector(entry.position + index * _SECTOR), entry.sequence)
            for index in range(first, sectors)
        )

    def _has_checksum(self, entry: LogEntry) -> bool:
        head = self._sector(entry.position)
        computed = google_crc32c.value(head[:4] + bytes(4) + head[8:])
        for start in range(_SECTOR, entry.length, _SECTOR):
            computed = google_crc32c.extend(computed, self._sector(entry.position + start))
        return int.from_bytes(head[4:8], "little") == int(computed)

    def _descriptors(self, entry: LogEntry) -> Iterator[tuple[bytes, bytes, bytes, int, int]]:
        sector = self._sector(entry.position)
        for number in range(entry.descriptors):
            at = _HEADER.size + number * _DESCRIPTOR.size
            if at % _SECTOR == 0:
                sector = self._sector(entry.position + at)
            yield _DESCRIPTOR.unpack_from(sector, at % _SECTOR)


def _descriptor_sectors(count: int) -> int:
    return -(-(_HEADER.size + count * _DESCRIPTOR.size) // _SECTOR)


def _is_data_sector(sector: bytes, sequence: int) -> bool:
    """Tell whether a data sector is whole: both halves of the number, at its start and end (2.3.1.4)."""
    high, low = sector[4:8], sector[-4:]
    number = int.from_bytes(low + high, "little")
    return sector.startswith(b"data") and number == sequence
