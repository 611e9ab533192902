"""ArchiveObject: an archive on its way into a bucket, whatever the bucket: the part of `ArchiveDisk` that they share.

Bytes go by a `Way`; the service's own size and CRC-32C of the finished object have to be ours. What becomes of the
object is its target's.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog, StoredPart
from agent.targets.errors import ContentDiffers, DiskLost
from agent.targets.multipart import Multipart, encoded_crc, part_size
from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.convert.archive import ArchiveFormat


class Way(Protocol):
    """How the bytes of an archive get into the bucket."""

    kind: str
    """Of the intent that names it."""

    @property
    def held(self) -> int | None:
        """See `ArchiveDisk`."""
        ...

    def put_part(self, number: int, offset: int, data: bytes, stop: Stop) -> str:
        """See `ArchiveDisk`."""
        ...

    async def complete(self, parts: Sequence[StoredPart]) -> None:
        """Make the object. May be called again; raises DiskLost if there is nothing to complete any more."""
        ...


@dataclass(slots=True)
class InParts:
    """A multipart upload: parts in any order, several at a time."""

    multipart: Multipart
    key: str
    upload: str
    kind: str

    @property
    def held(self) -> int | None:
        """Each part's receipt says so."""
        return None

    def put_part(self, number: int, offset: int, data: bytes, stop: Stop) -> str:  # noqa: ARG002
        """Send one part."""
        return self.multipart.put_part(self.key, self.upload, number, data, stop)

    async def complete(self, parts: Sequence[StoredPart]) -> None:
        """Name the parts in order."""
        listed = [(part.number, part.tag) for part in parts]
        await self.multipart.complete(self.key, self.upload, listed)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a service says of an object.

    Attributes:
        size: Bytes.
        id: What tells it from a later one of the same name.
        crc32c: As the service writes it; "" where it keeps none of the whole.
        metadata: Names in lower case.
    """

    size: int
    id: str
    crc32c: str
    metadata: dict[str, str]


class Bucketed(Protocol):
    """What an archive needs of its target."""

    @property
    def multipart(self) -> Multipart:
        """The uploads of the bucket, and ranged reads."""
        ...

    def key(self, name: str, tagger: Tagger) -> str:
        """Return the object's name in the bucket."""
        ...

    def intent(self, kind: str, name: str) -> Intent:
        """Return the intent of one object of the job."""
        ...


B = TypeVar("B", bound=Bucketed)


class ArchiveObject(ABC, Generic[B]):
    """One archive being written."""

    kind: ClassVar[str]
    """Of the object's intent."""

    def __init__(
        self,
        target: B,
        name: str,
        spec: DiskSpec,
        intents: IntentLog,
        *,
        way: Way | None,
        resumed: bool,
    ) -> None:
        """Send by a way; None: the archive is complete."""
        self._target = target
        self._name = name
        self._key = target.key(name, spec.tagger)
        self._spec = spec
        self._intents = intents
        self._way = way
        self.resumed = resumed

    @property
    @abstractmethod
    def format(self) -> ArchiveFormat:
        """See `ArchiveDisk`."""

    @abstractmethod
    async def _stored(self) -> Stored | None:
        """Return what the service says of the object, None if there is none."""

    def part_size(self, number: int) -> int:
        """Grow with the archive."""
        return part_size(number, self._spec.padded_size)

    @property
    def held(self) -> int | None:
        """See `ArchiveDisk`."""
        return None if self._way is None else self._way.held

    def put_part(self, number: int, offset: int, data: bytes, stop: Stop) -> str:
        """Send one part."""
        if self._way is None:
            msg = f"{self._key} is complete and takes no more parts"
            raise DiskLost(msg, name=self._key)
        return self._way.put_part(number, offset, data, stop)

    async def seal(self, parts: Sequence[StoredPart], crc32c: int) -> None:
        """Complete the object; its size and CRC-32C, as the service has them, have to be ours."""
        way, intent = self._way, self._target.intent(self.kind, self._name)
        await self._intents.record(intent)
        if way is not None:
            try:
                await way.complete(parts)
            except DiskLost:
                if await self._stored() is None:
                    raise  # not completed by a call whose answer was lost
            self._way = None
        found = await self._stored()
        if found is None:
            msg = f"{self._key} is gone"
            raise DiskLost(msg, name=self._key)
        await self._intents.created(intent, found.id)
        if way is not None:
            await self._intents.removed(self._target.intent(way.kind, self._name))
        size, crc = sum(part.size for part in parts), encoded_crc(crc32c)
        if found.size != size or (found.crc32c and found.crc32c != crc):
            msg = (
                f"{self._key}: the service holds {found.size} bytes with CRC-32C {found.crc32c or 'unknown'},"
                f" sent were {size} with {crc}"
            )
            raise ContentDiffers(msg)

    def _version(self) -> dict[str, str]:
        """Return the query that names this very object, where a service has such a thing."""
        return {}

    async def read(self, offset: int, length: int) -> bytes:
        """Read a range of this very object."""
        return await self._target.multipart.read(self._key, offset, length, self._version())

    async def reject(self) -> None:
        """Nothing was made of it; the object's intent names it as left behind."""

    @abstractmethod
    async def finish(self) -> Artifact:
        """Make of it what the job asks for, or find what an earlier attempt made."""

    async def close(self) -> None:
        """The sessions belong to the target."""
