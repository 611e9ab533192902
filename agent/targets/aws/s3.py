"""Target `aws-s3`: a disk as stream-optimized VMDK into a bucket, then by VM Import a snapshot, then an AMI.

For accounts that have no way to EBS direct, and for those who want the image as a file. Multipart upload, each part
with its CRC-32C -> complete, S3's CRC-32C of the object compared with ours -> read back -> ImportSnapshot -> strategy
as for `aws-snapshot` -> the object is deleted. What is proven is the object; what VM Import makes of it is AWS' word.
"""

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from agent.retry import Retrier
from agent.targets.archiveobject import InParts
from agent.targets.aws.bucket import JOINED, META, S3Bucket, delete, keys_in, state_of
from agent.targets.aws.building import Building
from agent.targets.aws.control import AwsControl
from agent.targets.aws.discarding import Discarder
from agent.targets.aws.importsnapshot import TASK, discard_task, import_snapshot
from agent.targets.aws.inventory import IMAGE, SNAPSHOT, Inventory, Scope
from agent.targets.aws.probing import lacking
from agent.targets.aws.s3upload import OBJECT, UPLOAD, VmdkUpload
from agent.targets.aws.sigv4 import Signer
from agent.targets.aws.strategies import SNAPSHOT_ONLY, finish, look_for, strategy_of
from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog, Preflight
from agent.targets.errors import DiskLost
from agent.targets.http.sender import Sender
from agent.targets.http.settings import HttpSettings, make_session
from agent.targets.limits import RULES
from agent.targets.multipart import Multipart
from agent.targets.naming import Choice, Found, choose_name, nothing_known
from agent.targets.permissions import OBJECT_ONLY, aws_s3_role
from agent.targets.tags import Tagger
from protocol.ops import AwsS3

if TYPE_CHECKING:
    import aiohttp

_SESSIONS = 16
_LINE = 16
"""Letters of the line's id in a key."""


class AwsS3Target:
    """One bucket, for one job."""

    kind: ClassVar[str] = "aws-s3"
    limits = RULES["aws-s3"].transfer

    def __init__(
        self,
        ref: AwsS3,
        control: AwsControl,
        *,
        http: HttpSettings,
        retrier: Retrier,
        now_ms: Callable[[], int],
    ) -> None:
        """Use one account; no request is sent before `open`.

        Raises:
            StrategyRefused: It does not fit.
        """
        if ref.strategy != OBJECT_ONLY:
            strategy_of(ref)
        self.ref = ref
        self.retrier = retrier
        self._http = http
        self._now_ms = now_ms
        self.control = control
        self._inventory = Inventory(self.control)
        self._sender = Sender(http)
        self._session: aiohttp.ClientSession | None = None
        self._multipart: Multipart | None = None
        self._account = ""

    async def open(self, spec: DiskSpec, intents: IntentLog) -> VmdkUpload:
        """Begin the object, or go on with this line's own."""
        await self._connect()
        choice = await self._choose(
            spec,
            known=lambda name: any(
                intents.known(self.intent(kind, name)) is not None
                for kind in (UPLOAD, OBJECT, SNAPSHOT, IMAGE)
            ),
        )
        name, key = choice.name, self.key(choice.name, spec.tagger)
        upload = await self._known_upload(name, key, intents)
        if upload or await self._is_complete(name, key, intents):
            way = InParts(self.multipart, key, upload, UPLOAD) if upload else None
            return VmdkUpload(self, name, spec, intents, way=way, resumed=True)
        intent = self.intent(UPLOAD, name)
        await intents.record(intent)
        owner = spec.tagger.tags(self.intent(OBJECT, name).scope, name)
        headers = {
            **JOINED,
            **{f"{META}{tag.lower()}": value for tag, value in owner.items()},
            "Content-Type": "application/x-vmdk",
        }

        async def begin() -> str:
            await self._abort_all(key)  # also one whose answer was lost, just now
            return await self.multipart.begin(key, headers)

        upload = await self.retrier.call(begin)
        await intents.created(intent, upload)
        way = InParts(self.multipart, key, upload, UPLOAD)
        return VmdkUpload(self, name, spec, intents, way=way, resumed=False)

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Look which name is free, and try by dry runs what EC2 offers one for."""
        await self._connect()
        choice = await self._choose(spec)
        only = self.ref.strategy == OBJECT_ONLY
        strategy = None if only else strategy_of(self.ref)
        kept = "" if only or self.ref.keep_object else " (temporary)"
        made = [f"object s3://{self.ref.bucket}/{self._key_start(choice.name)}JOB.vmdk{kept}"]
        if not only:
            made.append(f"EBS snapshot {choice.name} in {self.ref.region}, by VM Import")
            made += strategy.objects(choice.name) if strategy else []
        role = aws_s3_role(OBJECT_ONLY if only else strategy.name if strategy else SNAPSHOT_ONLY)
        missing, unprobed = await lacking(self.control, role, self.ref)
        asked = ("s3:ListBucket",)  # to get here
        left = tuple(one for one in unprobed if one not in asked)
        return Preflight(choice.name, tuple(made), missing, left)

    async def covers(self, intent: Intent) -> bool:
        """See `DiskTarget`."""
        await self._connect()
        return intent == self.intent(intent.kind, intent.name)

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """Delete one object of this line that nothing uses."""
        await self._connect()
        key = self.key(intent.name, tagger)
        if intent.kind == UPLOAD:
            await self._abort_all(key)
            return None
        if intent.kind == OBJECT:
            return await self.drop_object(intent.name, key, tagger)
        if intent.kind == TASK:
            return await discard_task(self.control, intent, object_id, tagger)
        return await Discarder(self.control, self._inventory, tagger).discard(intent, object_id)

    async def close(self) -> None:
        """Close the sessions."""
        self._sender.close()
        if self._session is not None:
            await self._session.close()
        await self.control.close()

    # --- what an upload needs -----------------------------------------------------------------------------

    @property
    def multipart(self) -> Multipart:
        """The uploads of the bucket."""
        if self._multipart is None:
            raise DiskLost("the target is not connected")
        return self._multipart

    def key(self, name: str, tagger: Tagger) -> str:
        """Return the object's key: a line of jobs never touches another line's."""
        return f"{self._key_start(name)}{tagger.origin[:_LINE]}.vmdk"

    def _key_start(self, name: str) -> str:
        """Return what all keys of a name begin with; AMI names may hold what is awkward in an address."""
        return f"{self.ref.prefix}{re.sub('[^A-Za-z0-9._-]+', '-', name)}-"

    def intent(self, kind: str, name: str) -> Intent:
        """Return the intent of one object of the job."""
        region = self.ref.bucket if kind in (UPLOAD, OBJECT) else self.ref.region
        scope = {"provider": "aws", "account": self._account, "region": region}
        return Intent(kind, scope, name)

    async def drop_object(self, name: str, key: str, tagger: Tagger) -> str | None:
        """Delete the object if it is this line's; None when it is gone, else why it is left."""
        state = await state_of(self.control, self.ref.bucket, key)
        if state is None:
            return None
        if not tagger.is_this_line(state.metadata, self.intent(OBJECT, name).scope, name):
            return f"object s3://{self.ref.bucket}/{key} carries another owner tag"
        await delete(self.control, self.ref.bucket, key)
        return None

    async def make(self, name: str, key: str, spec: DiskSpec, intents: IntentLog) -> Artifact:
        """Make of the proven object what the job asks for."""
        scope: Scope = self.intent(TASK, name).scope
        token = hashlib.sha256(f"{spec.tagger.origin}/{key}".encode()).hexdigest()[:60]
        snapshot = await import_snapshot(
            self.control, self.ref, key, name, scope, token=token, spec=spec, intents=intents
        )
        building = Building(
            self.control, self._inventory, self.ref, scope, name, snapshot, spec, intents
        )
        return await finish(building, imported_from=f"s3://{self.ref.bucket}/{key}")

    # --- opening ------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Learn account and endpoint; the first calls of a job prove credential and bucket."""
        if self._multipart is not None:
            return
        self._account = await self.control.account()
        await keys_in(self.control, self.ref.bucket, self.ref.prefix, most=1)
        endpoint = await self.control.endpoint_of("s3")
        signer = Signer(self.ref.region, "s3")
        bucket = S3Bucket(self.control, endpoint, self.ref.bucket, signer, self._now_ms)
        self._session = make_session(self._http, connections=_SESSIONS)
        self._multipart = Multipart(bucket, self._session, self._sender)

    async def _choose(self, spec: DiskSpec, known: Callable[[str], bool] = nothing_known) -> Choice:
        """Return the name that the disk gets."""
        return await choose_name(
            self.ref.name,
            spec.if_exists,
            known=known,
            look=lambda name: self._look(name, spec.tagger),
            can_replace=False,
        )

    async def _look(self, name: str, tagger: Tagger) -> Found | None:
        if self.ref.strategy != OBJECT_ONLY:
            return await look_for(self._inventory, name, self.intent(TASK, name).scope, tagger)
        start = self._key_start(name)
        for key in await keys_in(self.control, self.ref.bucket, start):
            line = key.removeprefix(start).removesuffix(".vmdk")
            if len(line) != _LINE or set(line) - set("0123456789abcdef"):
                continue  # another name that begins so
            state = await state_of(self.control, self.ref.bucket, key)
            if state is not None:
                scope = self.intent(OBJECT, name).scope
                ours = tagger.read(state.metadata, scope, name) is not None
                return Found(ours, final=True, where=f"object s3://{self.ref.bucket}/{key}")
        return None

    async def _known_upload(self, name: str, key: str, intents: IntentLog) -> str:
        """Return the id of the upload that an earlier attempt began, if the service still has it."""
        known = intents.known(self.intent(UPLOAD, name))
        if not known:
            return ""
        try:
            await self.retrier.call(lambda: self.multipart.parts(key, known))
        except DiskLost:
            return ""
        return known

    async def _is_complete(self, name: str, key: str, intents: IntentLog) -> bool:
        """Whether an earlier attempt completed the object, or even made the snapshot of it."""
        made = intents.known(self.intent(SNAPSHOT, name))
        if made and await self._inventory.get(SNAPSHOT, made) is not None:
            return True
        if intents.known(self.intent(OBJECT, name)) is None:
            return False
        return await state_of(self.control, self.ref.bucket, key) is not None

    async def _abort_all(self, key: str) -> None:
        """Give up every upload of this key, which is this line's alone."""
        for found, upload in await self.retrier.call(lambda: self.multipart.uploads(key)):
            if found == key:
                await self._give_up(key, upload)

    async def _give_up(self, key: str, upload: str) -> None:
        try:
            await self.retrier.call(lambda: self.multipart.abort(key, upload))
        except DiskLost:
            return
