"""PageBlobs: the page blobs of the simulator as objects with an ETag, each over one sparse file; keeps State saved."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from appliance.sim import records
from appliance.sim.azure.state import FILE_NAME, BlobRecord, State
from appliance.sim.store import PageFile


class PageBlob:
    """One page blob: its record and its bytes."""

    def __init__(self, record: BlobRecord, file: PageFile) -> None:
        self.record = record
        self.file = file

    @property
    def size(self) -> int:
        """Bytes, a multiple of 512."""
        return self.record.size

    @property
    def etag(self) -> str:
        """A value that differs after every change, the same again after a restart."""
        ticks = int(self.record.created * 10_000_000) + self.record.changes + self.file.writes
        return f'"0x8D{ticks & 0xFFFFFFFFFFFFF:013X}"'

    def touch(self, now: float) -> None:
        """Note a change that was not a page write."""
        self.record.changes += 1
        self.record.modified = now

    def resize(self, size: int, now: float) -> None:
        """Cut or lengthen the blob."""
        self.file.resize(size)
        self.record.size = size
        self.touch(now)


class Vault:
    """All records and page files of one simulator, kept in one directory."""

    def __init__(self, directory: Path, fresh: Callable[[], State]) -> None:
        self.directory = directory
        self.state = records.load(directory / FILE_NAME, State, fresh)
        self.blobs = {key: self._reopen(record) for key, record in self.state.blobs.items()}
        self.disks = {key: self._reopen(disk.blob) for key, disk in self.state.disks.items()}
        self.versions = {
            key: self._reopen(one.blob)
            for key, one in self.state.galleries.items()
            if one.blob is not None
        }

    def _reopen(self, record: BlobRecord) -> PageBlob:
        return PageBlob(record, PageFile(self.directory, record.file, record.size, create=False))

    def new_blob(self, size: int, now: float) -> PageBlob:
        """Make an empty page blob; the caller files it under a name and saves."""
        name = f"{self.state.next_file:06d}"
        self.state.next_file += 1
        record = BlobRecord(file=name, size=size, created=now, modified=now)
        return PageBlob(record, PageFile(self.directory, name, size, create=True))

    def put_blob(self, key: str, blob: PageBlob) -> None:
        """File a blob under `container/name`, in place of one that was there."""
        replaced = self.blobs.get(key)
        self.blobs[key] = blob
        self.state.blobs[key] = blob.record
        self.save()
        if replaced is not None:
            replaced.file.delete()

    def drop_blob(self, key: str) -> None:
        """Delete a blob that is filed."""
        blob = self.blobs.pop(key)
        del self.state.blobs[key]
        self.save()
        blob.file.delete()

    def drop_disk(self, key: str) -> None:
        """Delete a disk that is filed."""
        blob = self.disks.pop(key)
        del self.state.disks[key]
        self.save()
        blob.file.delete()

    def save(self) -> None:
        """Write the records down."""
        records.save(self.directory / FILE_NAME, self.state)

    def close(self) -> None:
        """Close every file."""
        self.save()
        for blob in (*self.blobs.values(), *self.disks.values(), *self.versions.values()):
            blob.file.close()


def fingerprint(text: str, length: int = 12) -> str:
    """Return a short lower-case name made from `text` (labels of disk hosts)."""
    alphabet = "0123456789bcdfghjklmnpqrstvwxz"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    letters = []
    for _ in range(length):
        number, rest = divmod(number, len(alphabet))
        letters.append(alphabet[rest])
    return "".join(letters)
