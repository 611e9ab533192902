"""VmdkUpload: one VMDK on its way into a bucket, and what becomes of it; an `ArchiveDisk`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from agent.targets.aws.bucket import state_of
from agent.targets.aws.control import AwsControl
from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog, StoredPart
from agent.targets.errors import ContentDiffers, DiskLost
from agent.targets.multipart import Multipart, encoded_crc, part_size
from agent.targets.permissions import OBJECT_ONLY
from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.convert.archives import VmdkArchive
from protocol.ops import AwsS3

if TYPE_CHECKING:
    from imaging.convert.archive import ArchiveFormat

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


class VmdkUpload:
    """One object being written."""

    def __init__(
        self,
        target: Bucketed,
        name: str,
        spec: DiskSpec,
        intents: IntentLog,
        *,
        upload: str,
        resumed: bool,
    ) -> None:
        self._target = target
        self._name = name
        self._spec = spec
        self._intents = intents
        self._upload = upload
        self._key = target.key(name, spec.tagger)
        self.resumed = resumed
        self.format: ArchiveFormat = VmdkArchive()

    def part_size(self, number: int) -> int:
        """Grow with the object."""
        return part_size(number, self._spec.padded_size)

    @property
    def held(self) -> int | None:
        """Each part's receipt says so."""
        return None

    def put_part(self, number: int, offset: int, data: bytes, stop: Stop) -> str:  # noqa: ARG002
        """Send one part."""
        if not self._upload:
            msg = f"the object {self._key} is complete and takes no more parts"
            raise DiskLost(msg, name=self._key)
        return self._target.multipart.put_part(self._key, self._upload, number, data, stop)

    async def seal(self, parts: Sequence[StoredPart], crc32c: int) -> None:
        """Complete the object; its size and CRC-32C, as S3 has them, have to be ours."""
        target, intent = self._target, self._target.intent(OBJECT, self._name)
        bucket = target.ref.bucket
        await self._intents.record(intent)
        if self._upload:
            try:
                listed = [(part.number, part.tag) for part in parts]
                await target.multipart.complete(self._key, self._upload, listed)
            except DiskLost:
                if await state_of(target.control, bucket, self._key) is None:
                    raise  # not completed by a call whose answer was lost
            self._upload = ""
        state = await state_of(target.control, bucket, self._key)
        if state is None:
            msg = f"the object {self._key} is gone"
            raise DiskLost(msg, name=self._key)
        await self._intents.created(intent, state.etag)
        await self._intents.removed(target.intent(UPLOAD, self._name))
        size = sum(part.size for part in parts)
        if state.size != size or (state.crc32c and state.crc32c != encoded_crc(crc32c)):
            msg = (
                f"{self._key}: S3 holds {state.size} bytes with CRC-32C {state.crc32c or 'unknown'}, sent were"
                f" {size} with {encoded_crc(crc32c)}"
            )
            raise ContentDiffers(msg)

    async def read(self, offset: int, length: int) -> bytes:
        """Read a range."""
        return await self._target.multipart.read(self._key, offset, length, {})

    async def reject(self) -> None:
        """Nothing was made of it; the object's intent names it as left behind."""

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

    async def close(self) -> None:
        """The sessions belong to the target."""
