"""VmdkUpload: one VMDK on its way into a bucket, and what becomes of it; an `ArchiveDisk`."""

from typing import Protocol

from agent.targets.archiveobject import ArchiveObject, Stored, Way
from agent.targets.aws.bucket import state_of
from agent.targets.aws.control import AwsControl
from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog
from agent.targets.multipart import Multipart
from agent.targets.permissions import OBJECT_ONLY
from agent.targets.tags import Tagger
from imaging.convert.archives import VmdkArchive
from protocol.ops import AwsS3

UPLOAD, OBJECT = "aws.upload", "aws.object"


class Bucketed(Protocol):
    """What an upload needs of its target."""

    ref: AwsS3
    control: AwsControl

    @property
    def multipart(self) -> Multipart:
        """The uploads of the bucket."""
        ...

    def key(self, name: str, tagger: Tagger) -> str:
        """Return the object's key."""
        ...

    def intent(self, kind: str, name: str) -> Intent:
        """Return the intent of one object of the job."""
        ...

    async def make(self, name: str, key: str, spec: DiskSpec, intents: IntentLog) -> Artifact:
        """Return what the job asks for, made of the object now or by an earlier attempt."""
        ...

    async def drop_object(self, name: str, key: str, tagger: Tagger) -> str | None:
        """Delete the object."""
        ...


class VmdkUpload(ArchiveObject):
    """One object being written."""

    def __init__(
        self,
        target: Bucketed,
        name: str,
        spec: DiskSpec,
        intents: IntentLog,
        *,
        way: Way | None,
        resumed: bool,
    ) -> None:
        super().__init__(target.key(name, spec.tagger), spec, intents, way=way, resumed=resumed)
        self._target = target
        self._name = name
        self.format = VmdkArchive()

    def _intent(self, kind: str = OBJECT) -> Intent:
        return self._target.intent(kind, self._name)

    async def _stored(self) -> Stored | None:
        return await state_of(self._target.control, self._target.ref.bucket, self._key)

    async def read(self, offset: int, length: int) -> bytes:
        """Read a range."""
        return await self._target.multipart.read(self._key, offset, length, {})

    async def finish(self) -> Artifact:
        """Make of it what the job asks for, then delete it unless it is the result, or to be kept."""
        target, ref = self._target, self._target.ref
        if ref.strategy == OBJECT_ONLY:
            return Artifact(
                OBJECT,
                f"s3://{ref.bucket}/{self._key}",
                {
                    "name": self._name,
                    "size": self._spec.padded_size,
                    "region": ref.region,
                    "strategy": ref.strategy,
                    "service_checksum": "crc32c",
                },
            )
        made = await target.make(self._name, self._key, self._spec, self._intents)
        if not ref.keep_object:
            await target.drop_object(self._name, self._key, self._spec.tagger)
            await self._intents.removed(target.intent(OBJECT, self._name))
        kept: dict[str, str | int | bool] = {
            "object_kept": ref.keep_object,
            "service_checksum": "crc32c",
        }
        return Artifact(made.kind, made.object_id, {**made.properties, **kept})
