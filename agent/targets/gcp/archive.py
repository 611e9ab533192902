"""ArchiveUpload: one archive on its way into a bucket, and the image that it becomes; an `ArchiveDisk`."""

from typing import Any, Protocol

from agent.targets.archiveobject import ArchiveObject, Bucketed, Stored
from agent.targets.base import Artifact, DiskSpec, IntentLog
from agent.targets.gcp.gcs import GcsControl
from agent.targets.tags import Tagger
from imaging.convert.archive import ArchiveFormat
from imaging.convert.archives import TarGzArchive
from protocol.ops import GcpImage

OBJECT, IMAGE = "gcp.object", "gcp.image"


class Project(Bucketed, Protocol):
    """What an archive needs of its target."""

    ref: GcpImage
    control: GcsControl

    async def make_image(
        self, name: str, key: str, spec: DiskSpec, intents: IntentLog
    ) -> dict[str, Any]:
        """Return the image of an archive, made now or by an earlier attempt."""
        ...

    async def drop_archive(self, name: str, key: str, tagger: Tagger, intents: IntentLog) -> None:
        """Delete the archive."""
        ...


class ArchiveUpload(ArchiveObject[Project]):
    """One archive being written, and the image that it becomes."""

    kind = OBJECT
    _generation = ""

    @property
    def format(self) -> ArchiveFormat:
        """See `ArchiveDisk`."""
        return TarGzArchive(one_member=self._target.ref.gzip == "one-member")

    async def _stored(self) -> Stored | None:
        found = await self._target.control.state(self._key)
        self._generation = found.id if found else ""
        return found

    def _version(self) -> dict[str, str]:
        return {"generation": self._generation} if self._generation else {}

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
