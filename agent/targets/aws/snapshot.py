"""Target `aws-snapshot`: a disk block by block into an EBS snapshot, then an AMI by the job's strategy.

StartSnapshot (repeatable by its token) -> blocks that are not zero, each with its SHA-256 -> CompleteSnapshot with the
checksum over all of them -> blocks read back -> strategy. No bucket, no import role, no conversion at AWS' side.
Snapshots have no unique names: the tag `Name`, the owner tags and the AMI's name say whose it is. An AMI cannot be
renamed, so `replace` is refused by name; `new-version` does what people want with it.
"""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import aiohttp

from agent.retry import Retrier
from agent.targets.aws.building import Building, wait_for
from agent.targets.aws.control import AwsControl
from agent.targets.aws.discarding import Discarder
from agent.targets.aws.ebs import BLOCK, UNSEEN_S, EbsWire, linear_checksum, volume_gib
from agent.targets.aws.inventory import (
    FINAL,
    SNAPSHOT,
    STATE,
    UNVERIFIED,
    WRITING,
    Inventory,
    Resource,
    Scope,
    id_of,
    specification,
    tags_of,
)
from agent.targets.aws.probing import lacking
from agent.targets.aws.sigv4 import Signer
from agent.targets.aws.strategies import SNAPSHOT_ONLY, finish, look_for, strategy_of
from agent.targets.base import (
    Artifact,
    Checksum,
    DiskSpec,
    Intent,
    IntentLog,
    Preflight,
)
from agent.targets.errors import ContentDiffers, DiskLost, SizeDiffers, TargetRefused
from agent.targets.http.sender import Sender
from agent.targets.http.settings import HttpSettings, make_session
from agent.targets.limits import RULES
from agent.targets.naming import Choice, choose_name, nothing_known
from agent.targets.permissions import aws_role
from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.digest import DigestBuilder
from imaging.extent import Extent
from protocol.ops import AwsSnapshot

TIMEOUT_MIN = (RULES["aws-snapshot"].unfinished_s or 0) // 60
"""The longest that AWS keeps an unfinished snapshot after its last block: a job may be resumed for three days."""
_READERS = 16


class SnapshotDisk:
    """One snapshot being written."""

    def __init__(
        self, building: Building, wire: EbsWire, resource: Resource, *, resumed: bool
    ) -> None:
        self._building = building
        self._wire = wire
        self._sealed = resource.get("State") == "completed"
        self.resumed = resumed

    @property
    def checksum(self) -> Checksum | None:
        """The SHA-256 that the pump computed anyway: a put is one digest block."""
        return lambda _data, digests: b64encode(digests).decode()

    def put(self, offset: int, data: memoryview, checksum: str | None, stop: Stop) -> None:
        """Write one block."""
        if self._sealed:
            msg = f"{self._building.snapshot} is completed and takes no more blocks"
            raise DiskLost(msg, name=self._building.snapshot)
        digest = checksum or b64encode(hashlib.sha256(data).digest()).decode()
        self._wire.put(offset // BLOCK, data, digest, stop)

    async def seal(self, digest: DigestBuilder) -> None:
        """Complete the snapshot: the service compares its digests of all blocks with ours."""
        if self._sealed:
            return
        count, checksum = await self._building.control.blocking(lambda: linear_checksum(digest))
        control, snapshot = self._building.control, self._building.snapshot
        try:
            await control.call(
                "ebs",
                "complete_snapshot",
                SnapshotId=snapshot,
                ChangedBlocksCount=count,
                Checksum=checksum,
                ChecksumAlgorithm="SHA256",
                ChecksumAggregationMethod="LINEAR",
                needs=("Status",),
            )
        except TargetRefused as err:  # nothing else can be wrong with this call
            msg = f"{snapshot}: the service does not hold the {count} blocks that were sent: {err}"
            raise ContentDiffers(msg, **err.fields) from err

        async def completed() -> bool | None:
            found = await self._building.inventory.get(SNAPSHOT, snapshot)
            if found is None:
                msg = f"{snapshot} ended in an error instead of being completed"
                raise DiskLost(msg, name=snapshot)
            return True if found.get("State") == "completed" else None

        await wait_for(completed)
        self._sealed = True

    def allocated(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """List the blocks."""
        return self._wire.extents(offset, length)

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Read blocks."""
        await self._wire.read(offset, buffer)

    async def reject(self) -> None:
        """Say so in the tags; a completed snapshot cannot be changed, and no AMI is made of it."""
        await self._building.inventory.tag([self._building.snapshot], {STATE: UNVERIFIED})

    async def finish(self) -> Artifact:
        """Make the AMI, or leave it at the snapshot."""
        building = self._building
        await building.inventory.tag([building.snapshot], {STATE: FINAL})
        return await finish(building, service_checksum="sha256-linear")

    async def close(self) -> None:
        """The sessions belong to the target."""


class AwsSnapshotTarget:
    """One account and region, for one job."""

    kind: ClassVar[str] = "aws-snapshot"
    limits = RULES["aws-snapshot"].transfer

    def __init__(
        self,
        ref: AwsSnapshot,
        control: AwsControl,
        *,
        http: HttpSettings,
        retrier: Retrier,
        now_ms: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """Use one account; no request is sent before `open`.

        Raises:
            StrategyRefused: It does not fit.
        """
        strategy_of(ref)
        self._ref = ref
        self._http = http
        self._retrier = retrier
        self._now_ms = now_ms
        self._clock = clock
        self._control = control
        self._inventory = Inventory(self._control)
        self._sender = Sender(http)
        self._signer = Signer(ref.region, "ebs")
        self._session: aiohttp.ClientSession | None = None

    async def open(self, spec: DiskSpec, intents: IntentLog) -> SnapshotDisk:
        """Start the snapshot, or find this line's own."""
        scope = await self._scope()
        choice = await self._choose(
            spec, scope, known=lambda name: intents.known(Intent(SNAPSHOT, scope, name)) is not None
        )
        name = choice.name
        intent = Intent(SNAPSHOT, scope, name)
        known = intents.known(intent)
        resource = await self._inventory.get(SNAPSHOT, known) if known else None
        if resource is not None:
            _check(resource, intent, spec)
            return await self._disk(spec, intents, intent, resource, resumed=True)
        if known is None:
            await self._drop_unfinished(name, scope, spec.tagger)
        resource = await self._start(spec, intents, intent, before=known or "")
        return await self._disk(spec, intents, intent, resource, resumed=False)

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Look which name is free, and try by dry runs what EC2 offers one for."""
        scope = await self._scope()
        choice = await self._choose(spec, scope)
        strategy = strategy_of(self._ref)
        role = aws_role(strategy.name if strategy else SNAPSHOT_ONLY)
        missing, unprobed = await lacking(self._control, role, self._ref)
        gib = volume_gib(spec.padded_size)
        made = [f"EBS snapshot {choice.name} of {gib} GiB in {self._ref.region}"]
        made += strategy.objects(choice.name) if strategy else []
        return Preflight(choice.name, tuple(made), missing, unprobed)

    async def covers(self, intent: Intent) -> bool:
        """See `DiskTarget`."""
        return intent.scope == await self._scope()

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """Delete one object of this line that nothing uses."""
        return await Discarder(self._control, self._inventory, tagger).discard(intent, object_id)

    async def close(self) -> None:
        """Close the sessions."""
        self._sender.close()
        if self._session is not None:
            await self._session.close()
        await self._control.close()

    # --- looking ------------------------------------------------------------------------------------------

    async def _scope(self) -> Scope:
        account = await self._control.account()
        return {"provider": "aws", "account": account, "region": self._ref.region}

    async def _choose(
        self, spec: DiskSpec, scope: Scope, known: Callable[[str], bool] = nothing_known
    ) -> Choice:
        """Return the name that the disk gets."""
        return await choose_name(
            self._ref.name,
            spec.if_exists,
            known=known,
            look=lambda name: look_for(self._inventory, name, scope, spec.tagger),
            can_replace=False,
        )

    async def _drop_unfinished(self, name: str, scope: Scope, tagger: Tagger) -> None:
        """Delete what another line of ours left unfinished under this name: there are no bytes to trust in it."""
        for snapshot in await self._inventory.named(SNAPSHOT, name):
            tags = tags_of(snapshot)
            if tagger.read(tags, scope, name) is not None and tags.get(STATE) != FINAL:
                await self._control.call(
                    "ec2", "delete_snapshot", SnapshotId=id_of(SNAPSHOT, snapshot)
                )

    # --- making -------------------------------------------------------------------------------------------

    async def _start(
        self, spec: DiskSpec, intents: IntentLog, intent: Intent, *, before: str
    ) -> Resource:
        """Start a snapshot; the same line starts the same one, unless `before` is gone."""
        ref = self._ref
        await intents.record(intent)
        token = hashlib.sha256(f"{spec.tagger.origin}/{intent.name}/{before}".encode()).hexdigest()
        owner = spec.tagger.tags(intent.scope, intent.name)
        tags = {**ref.tags, "Name": intent.name, **owner, STATE: WRITING}
        request: dict[str, Any] = {
            "VolumeSize": volume_gib(spec.padded_size),
            "ClientToken": token,
            "Description": f"imageport {intent.name}",
            "Timeout": TIMEOUT_MIN,
            "Tags": specification("snapshot", tags)["Tags"],
        }
        if ref.encrypted or ref.kms_key:
            request["Encrypted"] = True
        if ref.kms_key:
            request["KmsKeyArn"] = ref.kms_key
        made = await self._control.call(
            "ebs", "start_snapshot", needs=("SnapshotId", "StartTime"), **request
        )
        await intents.created(intent, str(made["SnapshotId"]))
        return {**made, "State": "pending"}

    async def _disk(
        self,
        spec: DiskSpec,
        intents: IntentLog,
        intent: Intent,
        resource: Resource,
        *,
        resumed: bool,
    ) -> SnapshotDisk:
        snapshot = str(resource["SnapshotId"])
        building = Building(
            self._control,
            self._inventory,
            self._ref,
            intent.scope,
            intent.name,
            snapshot,
            spec,
            intents,
        )
        age_s = self._now_ms() / 1000 - resource["StartTime"].timestamp()
        wire = EbsWire(
            self._control,
            self._reading(),
            self._sender,
            self._signer,
            await self._control.endpoint_of("ebs"),
            snapshot,
            self._now_ms,
            self._clock,
            self._clock() + max(0.0, UNSEEN_S - max(0.0, age_s)),
            self._retrier,
        )
        return SnapshotDisk(building, wire, resource, resumed=resumed)

    def _reading(self) -> aiohttp.ClientSession:
        """The session for reading back; made on first use, on the job's loop."""
        if self._session is None:
            self._session = make_session(self._http, connections=_READERS)
        return self._session


def _check(resource: Resource, intent: Intent, spec: DiskSpec) -> None:
    where = str(resource["SnapshotId"])
    if not spec.tagger.is_this_line(tags_of(resource), intent.scope, intent.name):
        msg = f"{where} is not the snapshot that this job started"
        raise DiskLost(msg, name=where)
    expected = volume_gib(spec.padded_size)
    if resource.get("VolumeSize") != expected:
        msg = f"{where} is of {resource.get('VolumeSize')} GiB, the disk needs {expected}"
        raise SizeDiffers(msg, name=where, found=resource.get("VolumeSize"), expected=expected)
