"""DiskTarget: the plug-in seam for a cloud that holds disks, and what the upload stage hands to it.

One file a target. Everything is a coroutine but `put`, which carries the bytes and blocks a worker thread of the pump
(docs/adr/0007). A target never reads the share, never hashes, never retries beyond one call: the pump does that and
decides by error class (Retryable, NeedsOperator, Permanent).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.convert.archive import ArchiveFormat
from imaging.digest import DigestBuilder
from imaging.extent import Extent

Checksum = Callable[[memoryview, bytes], str]
"""(bytes of one put, SHA-256 of each of its digest blocks) -> what the service checks the put with."""


@dataclass(frozen=True, slots=True)
class TargetLimits:
    """What one kind of target takes; sizes in bytes.

    Attributes:
        chunk: Most bytes of one `put`.
        alignment: Offset and length of every `put` are multiples of this.
        granularity: The disk's size is rounded up to a multiple of this (padding reads as zeros).
        min_size / max_size: Bounds of the padded size.
        inflight_start / inflight_max: Puts in flight at the beginning and at most.
        least_put: Bytes of one `put` on the thinnest link, a multiple of `alignment`; `chunk` where it takes no other.
    """

    chunk: int
    alignment: int
    granularity: int
    min_size: int
    max_size: int
    inflight_start: int
    inflight_max: int
    least_put: int = 0


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """The disk to make.

    Attributes:
        virtual_size: Bytes of the source disk; the digest's root is over these.
        padded_size: Bytes of the target disk, `virtual_size` rounded up to the target's granularity.
        if_exists: fail | resume | replace | new-version (protocol.ops.IfExists).
        tagger: Makes and reads the owner tags of this line of jobs.
    """

    virtual_size: int
    padded_size: int
    if_exists: str
    tagger: Tagger


@dataclass(frozen=True, slots=True)
class Intent:
    """One object that a target is about to create, written to the journal before the create call.

    Attributes:
        kind: Object kind in the provider's words ("azure.disk", "azure.page-blob", "local.file").
        scope: Where, flat; always `provider`, `account` and `region`, which the owner tag's mac binds.
        name: Deterministic object name.
    """

    kind: str
    scope: dict[str, str]
    name: str


class IntentLog(Protocol):
    """Write-ahead record of created objects; every call returns only when the journal is durable."""

    async def record(self, intent: Intent) -> None:
        """Write that `intent` is about to be created. The same intent again is no change."""
        ...

    async def created(self, intent: Intent, object_id: str) -> None:
        """Write the provider's stable id of the created object."""
        ...

    async def removed(self, intent: Intent) -> None:
        """Write that the object is gone again (we deleted it, or it never was)."""
        ...

    def known(self, intent: Intent) -> str | None:
        """Return the object id recorded for an intent of this job, "" if recorded without one, None if unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a finished upload made.

    Attributes:
        kind: As in Intent.
        object_id: The provider's stable id (ARM resource id, blob URL without query).
        properties: Facts for the result (size, tier, generation, checksums that the service verified), no secret.
    """

    kind: str
    object_id: str
    properties: dict[str, str | int | bool]


class TargetDisk(Protocol):
    """One disk being written. `put` (threads) and `read` (loop) may run many at a time; the rest one at a time."""

    resumed: bool
    """True when earlier receipts of this job may be trusted: it is the very object that they were written to."""

    @property
    def checksum(self) -> Checksum | None:
        """What the service checks each put with (called in a worker thread); None: nothing, or off.

        May become None when the service turns out not to take it.
        """
        ...

    def put(self, offset: int, data: memoryview, checksum: str | None, stop: Stop) -> None:
        """Write `data` at `offset`; returns only when the service acknowledged it. Idempotent. Blocking, from threads.

        `offset` and `len(data)` obey TargetLimits. The buffer is not looked at after the call has returned or raised.
        Once `stop` is set, it raises within a second (Cancelled, or what the broken connection made of it).
        """
        ...

    async def seal(self, digest: DigestBuilder) -> None:
        """End the writing (footer, state change, flush), so that the disk can be read. May be called again.

        `digest` holds the digest of every block of the source: what a service that checks the whole disk is told.
        """
        ...

    def allocated(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """Describe what the service says it holds in the window, for reading back; unwritten ranges are HOLE."""
        ...

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from the sealed disk (for the read-back verification)."""
        ...

    async def reject(self) -> None:
        """Mark the sealed disk, which failed verification: it must not look finished to anybody. May be called again.

        Deletes nothing: it is evidence, the result names it, and the line's next attempt replaces it.
        """
        ...

    async def finish(self) -> Artifact:
        """Put the verified disk in its place (swap it in for what it replaces) and mark it final.

        Called only behind the job's point of no return; may be called again after a crash.
        """
        ...

    async def close(self) -> None:
        """Release connections and read access; never deletes."""
        ...


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One acknowledged part of an archive.

    Attributes:
        number: From 1, ascending; numbers may be left out.
        size: Bytes.
        tag: What the service gave for it.
    """

    number: int
    size: int
    tag: str


@runtime_checkable
class ArchiveDisk(Protocol):
    """One disk being written as an archive, from its beginning to its end, in parts that may be sent at once."""

    resumed: bool
    """True when parts that this job acknowledged earlier are still there."""

    @property
    def format(self) -> ArchiveFormat:
        """What the archive is."""
        ...

    def part_size(self, number: int) -> int:
        """Return the least bytes of a part; only the last one may have fewer."""
        ...

    @property
    def held(self) -> int | None:
        """Bytes of the archive's beginning that the service holds, if it counts; else receipts say which parts."""
        ...

    def put_part(self, number: int, offset: int, data: bytes, stop: Stop) -> str:
        """Send one part, which begins at `offset` of the archive; return what the service gave for it.

        As `TargetDisk.put`: idempotent, from threads.
        """
        ...

    async def seal(self, parts: Sequence[StoredPart], crc32c: int) -> None:
        """Make the archive of its parts, ascending; raises if the service has another CRC-32C. May be called again."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Return a range of the sealed archive."""
        ...

    async def reject(self) -> None:
        """As `TargetDisk.reject`."""
        ...

    async def finish(self) -> Artifact:
        """As `TargetDisk.finish`."""
        ...

    async def close(self) -> None:
        """As `TargetDisk.close`."""
        ...


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a target would do with a disk, found out without creating anything.

    Attributes:
        name: Which name the disk would get.
        objects: What would be created, in words for people, in order; "temporary" where it goes again.
        missing: Permissions that the credential lacks, by the cloud's names.
        unprobed: Permissions that the cloud offers no harmless way to ask for.
    """

    name: str
    objects: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unprobed: tuple[str, ...] = ()


class DiskTarget(Protocol):
    """One kind of target, connected with one credential for one job."""

    kind: ClassVar[str]
    limits: TargetLimits

    async def open(self, spec: DiskSpec, intents: IntentLog) -> TargetDisk | ArchiveDisk:
        """Create the disk, or find the one that this job's intents name, ready for `put`.

        Raises:
            Permanent `target.exists` when an object of that name is there and `if_exists` is fail;
            `target.size-differs`, `target.not-ours`, ... each with its own code.
        """
        ...

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Say what `open` to `finish` would do; creates, writes and deletes nothing.

        Raises:
            As `open`, for what would stop the job at once.
        """
        ...

    async def covers(self, intent: Intent) -> bool:
        """Whether an object of some job is where this target writes, so that its `discard` can be asked."""
        ...

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """Delete one object that this line of jobs created; None when it is gone (or never was).

        Deletes only what carries this line's own owner tag, has the stable id `object_id` (if the provider gave
        one) and is attached to nothing; else returns why it is left, in words for people. May be called twice.
        """
        ...

    async def close(self) -> None:
        """Close sessions and forget credentials."""
        ...
