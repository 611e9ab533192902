"""Vault: the records of the AWS simulator and the files behind its snapshots and parts; keeps State saved."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from appliance.sim import records
from appliance.sim.aws.state import FILE_NAME, Snapshot, State
from appliance.sim.store import PageFile

BLOCK = 512 * 1024
GIB = 1 << 30


class SnapshotData:
    """The bytes of one snapshot, and the SHA-256 that each block was put with."""

    def __init__(self, file: PageFile) -> None:
        self.file = file
        self._digests: dict[int, bytes] = {}

    def put(self, index: int, chunks: list[bytes], digest: bytes) -> None:
        """Store one block."""
        self.file.write(index * BLOCK, chunks)
        self._digests[index] = digest

    def note(self, index: int, digest: bytes) -> None:
        """Keep the digest of a block that is acknowledged and not stored."""
        self.file.mark(index * BLOCK, BLOCK)
        self._digests[index] = digest

    def digest(self, index: int) -> bytes:
        """Return what a block was put with; read again where a restart forgot it."""
        known = self._digests.get(index)
        if known is None:
            known = hashlib.sha256(self.file.read(index * BLOCK, BLOCK)).digest()
            self._digests[index] = known
        return known

    def blocks(self, start: int = 0) -> list[int]:
        """Return the indexes of the blocks that hold data, from `start` on."""
        first = start * BLOCK
        found = self.file.pages.within(first, max(0, self.file.size - first))
        return [
            at // BLOCK for offset, length in found for at in range(offset, offset + length, BLOCK)
        ]


class Vault:
    """Everything of one simulator, kept in one directory."""

    def __init__(self, directory: Path, fresh: Callable[[], State]) -> None:
        self.directory = directory
        self.state = records.load(directory / FILE_NAME, State, fresh)
        self._data: dict[str, SnapshotData] = {}

    def data(self, snapshot: Snapshot) -> SnapshotData:
        """Return the bytes of a snapshot."""
        found = self._data.get(snapshot.id)
        if found is None:
            size = snapshot.volume_gib * GIB
            exists = (self.directory / f"{snapshot.file}.data").exists()
            file = PageFile(self.directory, snapshot.file, size, create=not exists)
            found = self._data[snapshot.id] = SnapshotData(file)
        return found

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        """Delete a snapshot; images that share its file keep it."""
        del self.state.snapshots[snapshot.id]
        data = self._data.pop(snapshot.id, None)
        shared = any(other.file == snapshot.file for other in self.state.snapshots.values())
        if data is not None and not shared:
            data.file.delete()
        self.save()

    def new_file(self) -> str:
        """Name a new file."""
        name = f"{self.state.next_file:06d}"
        self.state.next_file += 1
        return name

    def new_id(self, prefix: str) -> str:
        """Make an id as EC2's look: 17 hex digits behind the prefix."""
        number = self.state.next_id
        self.state.next_id += 1
        digest = hashlib.sha256(f"{self.state.identity.token_secret}/{prefix}/{number}".encode())
        return f"{prefix}-{digest.hexdigest()[:17]}"

    def save(self) -> None:
        """Write the records down."""
        records.save(self.directory / FILE_NAME, self.state)

    def close(self) -> None:
        """Close every file."""
        self.save()
        for data in self._data.values():
            data.file.close()
