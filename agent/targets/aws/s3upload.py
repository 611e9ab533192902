"""VmdkUpload: one VMDK on its way into a bucket, and what becomes of it; an `ArchiveDisk`."""

from typing import Protocol

from agent.targets.archiveobject import ArchiveObject, Bucketed, Stored
from agent.targets.aws.bucket import state_of
from agent.targets.aws.control import AwsControl
from agent.targets.base import Artifact, DiskSpec, IntentLog
from agent.targets.permissions import OBJECT_ONLY
from agent.targets.tags import Tagger
from imaging.convert.archive import ArchiveFormat
from imaging.convert.archives import VmdkArchive
from protocol.ops import AwsS3

UPLOAD, OBJECT = "aws.upload", "aws.object"


class Imported(Bucketed, Protocol):
    """What such an object needs of its target."""

    ref: AwsS3
    control: AwsControl

    async def make(self, name: str, key: str, spec: DiskSpec, intents: IntentLog) -> Artifact:
        """Return what the job asks for, made of the object now or by an earlier attempt."""
        ...

    async def drop_object(self, name: str, key: str, tagger: Tagger) -> str | None:
        """Delete the object."""
        ...


class VmdkUpload(ArchiveObject[Imported]):
    """One object being written."""

    kind = OBJECT

    @property
    def format(self) -> ArchiveFormat:
        """See `ArchiveDisk`."""
        return VmdkArchive()

    async def _stored(self) -> Stored | None:
        return await state_of(self._target.control, self._target.ref.bucket, self._key)

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
