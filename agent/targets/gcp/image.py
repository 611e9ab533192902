"""Target `gcp-image`: a disk as tar.gz into a bucket, in parallel parts, then a Compute Engine image of it.

Begin a multipart upload -> parts, each with its CRC-32C -> complete, compare the service's CRC-32C of the object with
ours -> read back -> images.insert -> the archive is deleted. Owner tags are the object's metadata and the image's
labels. Images cannot be renamed, so `replace` is refused by name; `new-version` does what people want with it.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import aiohttp

from agent.retry import Retrier
from agent.secrets import Secret
from agent.targets.archiveobject import InParts, Way
from agent.targets.base import (
    DiskSpec,
    Intent,
    IntentLog,
    Preflight,
    TargetLimits,
)
from agent.targets.errors import DiskLost, EndpointForbidden, TargetExists
from agent.targets.gcp.archive import IMAGE, OBJECT, ArchiveUpload
from agent.targets.gcp.compute import PUBLIC_COMPUTE, ComputeImages
from agent.targets.gcp.gcs import PUBLIC_STORAGE, GcsBucket, GcsControl
from agent.targets.gcp.resumable import (
    SESSION,
    UPLOAD,
    InOrder,
    begin_session,
    end_session,
)
from agent.targets.gcp.tokens import TokenSource, check_secret
from agent.targets.http.sender import Sender
from agent.targets.http.settings import HttpSettings, make_session
from agent.targets.limits import RULES
from agent.targets.multipart import Multipart
from agent.targets.naming import Choice, Found, choose_name, nothing_known
from agent.targets.permissions import gcp_role
from agent.targets.tags import Tagger
from imaging.units import GiB
from protocol.ops import GcpImage

FOLDER = "imageport"
_STATE = "imageport-state"
_GZIP = "application/gzip"
_SESSIONS = 16


class GcpImageTarget:
    """One project and bucket, for one job."""

    kind: ClassVar[str] = "gcp-image"
    limits: TargetLimits = RULES["gcp-image"].transfer

    def __init__(
        self,
        ref: GcpImage,
        secret: dict[str, Secret],
        *,
        http: HttpSettings,
        retrier: Retrier,
        allowed: Callable[[str], bool],
        now_ms: Callable[[], int],
        clock: Callable[[], float],
        files: dict[str, str],
    ) -> None:
        """Use one credential; no request is sent before `open`.

        Raises:
            CredentialRefused: The secret is none of the sets.
            EndpointForbidden: The site's policy does not allow the endpoints.
        """
        check_secret(secret)
        if ref.upload == "resumable":  # one chunk after the other
            self.limits = replace(type(self).limits, inflight_start=1, inflight_max=InOrder.MOST)
        for public in (PUBLIC_STORAGE, PUBLIC_COMPUTE):
            if not allowed(ref.endpoint or public):
                msg = f"requests would go to {ref.endpoint or public}, which [policy] endpoints do not allow"
                raise EndpointForbidden(msg)
        self.ref = ref
        self._http = http
        self._retrier = retrier
        tokens = TokenSource(secret, http, files, allowed, now_ms, clock)
        endpoint = (ref.endpoint or PUBLIC_STORAGE).rstrip("/")
        self._bucket = GcsBucket(endpoint, ref.bucket, tokens)
        self.control = GcsControl(self._bucket, ref.project)
        self._sender = Sender(http)
        self._session: aiohttp.ClientSession | None = None
        self._multipart: Multipart | None = None

    # --- parts --------------------------------------------------------------------------------------------

    @property
    def multipart(self) -> Multipart:
        """The uploads of the bucket."""
        if self._multipart is None:
            self._multipart = Multipart(self._bucket, self._opened(), self._sender)
        return self._multipart

    @property
    def images(self) -> ComputeImages:
        """The images of the project."""
        endpoint = (self.ref.endpoint or PUBLIC_COMPUTE).rstrip("/")
        return ComputeImages(
            self._opened(), self.control, endpoint, self.ref.project, self._retrier
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = make_session(self._http, connections=_SESSIONS)
        return self._session

    def key(self, name: str, tagger: Tagger) -> str:
        """Return the archive's name: a line of jobs never touches another line's."""
        return f"{FOLDER}/{name}-{tagger.origin[:16]}.tar.gz"

    def intent(self, kind: str, name: str) -> Intent:
        """Return the intent of one object of the job."""
        region = "global" if kind == IMAGE else self.ref.bucket
        scope = {"provider": "gcp", "account": self.ref.project, "region": region}
        return Intent(kind, scope, name)

    # --- opening ------------------------------------------------------------------------------------------

    async def open(self, spec: DiskSpec, intents: IntentLog) -> ArchiveUpload:
        """Begin the archive, or go on with this line's own."""
        await self._retrier.call(self.control.location)
        choice = await self._choose(
            spec,
            known=lambda name: any(
                intents.known(self.intent(kind, name)) is not None
                for kind in (UPLOAD, SESSION, OBJECT, IMAGE)
            ),
        )
        name, key = choice.name, self.key(choice.name, spec.tagger)
        way = await self._known_way(name, key, intents)
        if way is not None or await self._is_complete(name, key, intents):
            return ArchiveUpload(self, name, spec, intents, way=way, resumed=True)
        way = await self._begin(name, key, spec, intents)
        return ArchiveUpload(self, name, spec, intents, way=way, resumed=False)

    async def _known_way(self, name: str, key: str, intents: IntentLog) -> Way | None:
        """Return the upload that an earlier attempt began, if the service still has it."""
        upload = intents.known(self.intent(UPLOAD, name))
        if upload:
            with contextlib.suppress(DiskLost):
                await self._retrier.call(lambda: self.multipart.parts(key, upload))
                return InParts(self.multipart, key, upload, UPLOAD)
        session = intents.known(self.intent(SESSION, name))
        if session:
            way = InOrder(self._bucket, self._sender, key, session)
            if await self._retrier.call(way.resume):
                return way
        return None

    async def _is_complete(self, name: str, key: str, intents: IntentLog) -> bool:
        """Whether an earlier attempt completed the archive, or even made the image of it."""
        if intents.known(self.intent(IMAGE, name)) and await self.images.get(name) is not None:
            return True
        if intents.known(self.intent(OBJECT, name)) is None:
            return False
        return await self._retrier.call(lambda: self.control.state(key)) is not None

    async def _begin(self, name: str, key: str, spec: DiskSpec, intents: IntentLog) -> Way:
        in_order = self.ref.upload == "resumable"
        intent = self.intent(SESSION if in_order else UPLOAD, name)
        await intents.record(intent)
        tags = {**spec.tagger.tags(self.intent(OBJECT, name).scope, name), _STATE: "writing"}

        async def begin() -> str:
            if in_order:
                return await begin_session(
                    self._bucket,
                    self._opened(),
                    self.control.pool,
                    key,
                    metadata=tags,
                    content_type=_GZIP,
                )
            await self._abort_all(key)  # also one whose answer was lost, just now
            headers = {f"x-goog-meta-{tag}": value for tag, value in tags.items()}
            return await self.multipart.begin(key, {**headers, "Content-Type": _GZIP})

        upload = await self._retrier.call(begin)
        await intents.created(intent, upload)
        if in_order:
            return InOrder(self._bucket, self._sender, key, upload)
        return InParts(self.multipart, key, upload, UPLOAD)

    async def _choose(self, spec: DiskSpec, known: Callable[[str], bool] = nothing_known) -> Choice:
        """Return the name that the disk gets."""
        return await choose_name(
            self.ref.image,
            spec.if_exists,
            known=known,
            look=lambda name: self._look(name, spec.tagger),
            can_replace=False,
        )

    async def _look(self, name: str, tagger: Tagger) -> Found | None:
        image = await self.images.get(name)
        if image is None:
            return None
        ours = tagger.read(_labels(image), self.intent(IMAGE, name).scope, name) is not None
        return Found(ours, final=True, where=f"image {self.ref.project}/{name}")

    # --- the image ----------------------------------------------------------------------------------------

    async def make_image(
        self, name: str, key: str, spec: DiskSpec, intents: IntentLog
    ) -> dict[str, Any]:
        """Return the image of an archive, made now or by an earlier attempt."""
        intent = self.intent(IMAGE, name)
        await intents.record(intent)
        image = await self.images.get(name)
        if image is None:
            with contextlib.suppress(TargetExists):  # by a call whose answer was lost
                await self.images.insert(self._resource(name, key, spec))
            image = await self.images.get(name)
        if image is None or not spec.tagger.is_this_line(_labels(image), intent.scope, name):
            msg = f"image {self.ref.project}/{name} is not the one that this job made"
            raise DiskLost(msg, name=name)
        await intents.created(intent, str(image.get("id", "")))
        return image

    def _resource(self, name: str, key: str, spec: DiskSpec) -> dict[str, Any]:
        ref, intent = self.ref, self.intent(IMAGE, name)
        labels = {**ref.labels, **spec.tagger.tags(intent.scope, name), _STATE: "final"}
        resource: dict[str, Any] = {
            "name": name,
            "description": "imported by imageport",
            "architecture": ref.architecture,
            "labels": labels,
            "rawDisk": {"source": f"{self._bucket.url}/{key}"},
            "guestOsFeatures": [{"type": feature} for feature in features_of(ref)],
        }
        if ref.licenses:
            resource["licenses"] = list(ref.licenses)
        if ref.family:
            resource["family"] = ref.family
        if ref.storage_location:
            resource["storageLocations"] = [ref.storage_location]
        if ref.kms_key:
            resource["imageEncryptionKey"] = {"kmsKeyName": ref.kms_key}
        return resource

    async def drop_archive(self, name: str, key: str, tagger: Tagger, intents: IntentLog) -> None:
        """Delete the archive: the image does not need it."""
        await self._delete_object(name, key, intents.known(self.intent(OBJECT, name)) or "", tagger)
        await intents.removed(self.intent(OBJECT, name))

    # --- deleting -----------------------------------------------------------------------------------------

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Look which name is free, and ask project and bucket for the permissions."""
        await self._retrier.call(self.control.location)
        choice = await self._choose(spec)
        wanted = gcp_role(self.ref.upload).all
        stored = [one for one in wanted if one.startswith("storage.")]
        project = [one for one in wanted if not one.startswith("storage.")]
        granted = {
            *await self._retrier.call(lambda: self.control.permissions(stored)),
            *await self.images.permissions(project),
        }
        kept = "" if self.ref.keep_archive else " (temporary)"
        made = (
            f"archive gs://{self.ref.bucket}/{FOLDER}/{choice.name}-JOB.tar.gz{kept}",
            f"image {self.ref.project}/{choice.name} of {spec.padded_size // GiB} GiB",
        )
        missing = tuple(one for one in wanted if one not in granted)
        return Preflight(choice.name, made, missing)

    async def covers(self, intent: Intent) -> bool:
        """See `DiskTarget`."""
        return intent == self.intent(intent.kind, intent.name)

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """Delete one object of this line."""
        key = self.key(intent.name, tagger)
        if intent.kind == UPLOAD:
            await self._abort_all(key)
            return None
        if intent.kind == SESSION:
            if (
                object_id
            ):  # one whose answer was lost ends by itself, after a week, and is not seen before
                await self._retrier.call(lambda: self._end(key, object_id))
            return None
        if intent.kind == OBJECT:
            return await self._delete_object(intent.name, key, object_id, tagger)
        image = await self.images.get(intent.name)
        if image is None or (object_id and str(image.get("id", "")) != object_id):
            return None
        if not tagger.is_this_line(_labels(image), intent.scope, intent.name):
            return f"image {self.ref.project}/{intent.name} carries other labels"
        await self.images.delete(intent.name)
        return None

    async def _end(self, key: str, upload: str) -> None:
        await end_session(self._bucket, self._opened(), key, upload, self.control.pool)

    async def _abort_all(self, key: str) -> None:
        """Give up every upload of this key, which is this line's alone."""
        for found, upload in await self._retrier.call(lambda: self.multipart.uploads(key)):
            if found == key:
                await self._give_up(key, upload)

    async def _give_up(self, key: str, upload: str) -> None:
        try:
            await self._retrier.call(lambda: self.multipart.abort(key, upload))
        except DiskLost:
            return

    async def _delete_object(
        self, name: str, key: str, generation: str, tagger: Tagger
    ) -> str | None:
        state = await self._retrier.call(lambda: self.control.state(key))
        if state is None:
            return None
        where = f"object gs://{self.ref.bucket}/{key}"
        if not tagger.is_this_line(state.metadata, self.intent(OBJECT, name).scope, name):
            return f"{where} carries another owner tag"
        if generation and generation != state.id:
            return f"{where} is another object than the one created"
        await self._retrier.call(lambda: self.control.delete(key, state.id))
        return None

    async def close(self) -> None:
        """Close the sessions."""
        self._sender.close()
        if self._session is not None:
            await self._session.close()
        self.control.close()


def features_of(ref: GcpImage) -> list[str]:
    """Return the guest OS features that the image announces."""
    wanted = ["VIRTIO_SCSI_MULTIQUEUE"]
    if ref.os_type == "Windows":
        wanted += ["WINDOWS", "MULTI_IP_SUBNET"]
    if ref.firmware == "uefi":
        wanted.append("UEFI_COMPATIBLE")
    if ref.gvnic:
        wanted.append("GVNIC")
    return list(dict.fromkeys([*wanted, *ref.features]))


def _labels(image: dict[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in (image.get("labels") or {}).items()}
