"""ArchiveUpload: one archive on its way into a bucket, and the image that it becomes; an `ArchiveDisk`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog, StoredPart
from agent.targets.errors import ContentDiffers, DiskLost
from agent.targets.gcp.gcs import GcsControl
from agent.targets.gcp.resumable import Way
from agent.targets.multipart import Multipart, encoded_crc, part_size
from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.convert.archives import TarGzArchive
from protocol.ops import GcpImage

if TYPE_CHECKING:
    from imaging.convert.archive import ArchiveFormat

OBJECT, IMAGE = "gcp.object", "gcp.image"


class Project(Protocol):
    """What an archive needs of its target."""

    ref: GcpImage
    control: GcsControl

    @property
    def multipart(self) -> Multipart:
        """The uploads of the bucket."""
        ...

    def key(self, name: str, tagger: Tagger) -> str:
        """Return the archive's name."""
        ...

    def intent(self, kind: str, name: str) -> Intent:
        """Return the intent of one object of the job."""
        ...

    async def make_image(
        self, name: str, key: str, spec: DiskSpec, intents: IntentLog
    ) -> dict[str, Any]:
        """Return the image of an archive, made now or by an earlier attempt."""
        ...

    async def drop_archive(self, name: str, key: str, tagger: Tagger, intents: IntentLog) -> None:
        """Delete the archive."""
        ...


class ArchiveUpload:
    """One archive being written, and the image that it becomes."""

    def __init__(
        self,
        target: Project,
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
        self._spec = spec
        self._intents = intents
        self._way = way
        self._key = target.key(name, spec.tagger)
        self._generation = ""
        self.resumed = resumed
        self.format: ArchiveFormat = TarGzArchive(one_member=target.ref.gzip == "one-member")

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
            msg = f"the archive {self._key} is complete and takes no more parts"
            raise DiskLost(msg, name=self._key)
        return self._way.put_part(number, offset, data, stop)

    async def seal(self, parts: Sequence[StoredPart], crc32c: int) -> None:
        """Complete the object; its CRC-32C, as the service computed it, has to be ours."""
        target, intent = self._target, self._target.intent(OBJECT, self._name)
        await self._intents.record(intent)
        way = self._way
        if way is not None:
            try:
                await way.complete(parts)
            except DiskLost:
                if await target.control.state(self._key) is None:
                    raise  # not completed by a call whose answer was lost
            self._way = None
        state = await target.control.state(self._key)
        if state is None:
            msg = f"the archive {self._key} is gone"
            raise DiskLost(msg, name=self._key)
        await self._intents.created(intent, state.generation)
        if way is not None:
            await self._intents.removed(target.intent(way.kind, self._name))
        self._generation = state.generation
        if state.crc32c != encoded_crc(crc32c) or state.size != sum(part.size for part in parts):
            msg = (
                f"{self._key}: the service holds {state.size} bytes with CRC-32C {state.crc32c}, sent were"
                f" {sum(part.size for part in parts)} with {encoded_crc(crc32c)}"
            )
            raise ContentDiffers(msg)

    async def read(self, offset: int, length: int) -> bytes:
        """Read a range of this very generation."""
        query = {"generation": self._generation} if self._generation else {}
        return await self._target.multipart.read(self._key, offset, length, query)

    async def reject(self) -> None:
        """No image was made of it; the object's intent names it as left behind."""

    async def finish(self) -> Artifact:
        """Make the image, or find the one that an earlier attempt made; then delete the archive."""
        target = self._target
        image = await target.make_image(self._name, self._key, self._spec, self._intents)
        properties: dict[str, str | int | bool] = {
            "name": self._name,
            "size": self._spec.padded_size,
            "project": target.ref.project,
            "archive": f"gs://{target.ref.bucket}/{self._key}",
            "archive_kept": target.ref.keep_archive,
            "service_checksum": "crc32c",
            "image_id": str(image.get("id", "")),
        }
        if not target.ref.keep_archive:
            await target.drop_archive(self._name, self._key, self._spec.tagger, self._intents)
        path = f"projects/{target.ref.project}/global/images/{self._name}"
        return Artifact(IMAGE, path, properties)

    async def close(self) -> None:
        """The sessions belong to the target."""
