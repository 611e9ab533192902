"""Target `azure-disk`: direct upload to a managed disk, without a storage account of the customer.

Create with `createOption: Upload` -> beginGetAccess(Write) -> pages to the SAS -> footer -> endGetAccess (the service
looks at the footer) -> beginGetAccess(Read) for reading back -> what the job asks for (`results`). Owner tags and state
are the resources' tags. There is no rename of managed disks, so `replace` is refused by name; `new-version` does what
people want with it.
"""

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from agent.errors import AgentError
from agent.retry import Retrier
from agent.secrets import Secret
from agent.targets.azure.arm import ArmDisks
from agent.targets.azure.clouds import CLOUDS
from agent.targets.azure.connections import Connections
from agent.targets.azure.credentials import read_credential
from agent.targets.azure.diskresource import (
    FINAL,
    KIND,
    STATE,
    UNVERIFIED,
    WRITABLE,
    attached,
    disk_resource,
    state_of,
    tags_of,
    unique_id,
)
from agent.targets.azure.diskupload import ManagedDisk
from agent.targets.azure.entra import Principal, TokenSource
from agent.targets.azure.footer import FOOTER_SIZE
from agent.targets.azure.gallery import DEFINITION, VERSION, VersionOfImage, discard
from agent.targets.azure.results import (
    SNAPSHOT,
    DiskItself,
    Result,
    ResultMissing,
    SnapshotOfDisk,
)
from agent.targets.base import Artifact, DiskSpec, Intent, IntentLog, Preflight
from agent.targets.errors import (
    CredentialRefused,
    DiskLost,
    EndpointForbidden,
    SizeDiffers,
    TargetExists,
)
from agent.targets.http.settings import HttpSettings
from agent.targets.limits import RULES
from agent.targets.naming import Choice, Found, choose_name, nothing_known
from agent.targets.permissions import azure_role
from agent.targets.tags import Tagger
from protocol.ops import AzureDisk


class AzureDiskTarget:
    """One resource group, for one job."""

    kind: ClassVar[str] = "azure-disk"
    limits = RULES["azure-disk"].transfer

    def __init__(
        self,
        ref: AzureDisk,
        secret: dict[str, Secret],
        *,
        http: HttpSettings,
        retrier: Retrier,
        allowed: Callable[[str], bool],
        now_ms: Callable[[], int],
        checksums: bool = True,
        token_file: str | None = None,
    ) -> None:
        """Use one service principal; no request is sent before `open`.

        `allowed` says whether the site's policy lets us send disk bytes to a URL: ARM names the host of the SAS.

        Raises:
            CredentialRefused: The secret holds no Entra identity.
            EndpointForbidden: The site's policy does not allow the cloud's endpoints.
        """
        credential = read_credential(secret)
        if not isinstance(credential, Principal):
            raise CredentialRefused(
                "a managed disk needs an Entra identity: expected tenant_id + client_id + client_secret, certificate or"
                " workload_identity, or managed_identity"
            )
        self._ref = ref
        self._retrier = retrier
        self._allowed = allowed
        self.now_ms = now_ms
        self.check_endpoint(ref.management or CLOUDS[ref.cloud].management, "is managed")
        self.check_endpoint(ref.authority or CLOUDS[ref.cloud].authority, "gives its tokens")
        cloud = CLOUDS[ref.cloud]
        self.disk_scope = f"{cloud.disk_audience}.default"
        self.tokens = TokenSource(
            credential, http, ref.authority or cloud.authority, token_file=token_file
        )
        self.connections = Connections(http, checksums)
        self._result = self._make_result()

    @property
    def disks(self) -> ArmDisks:
        """The control plane."""
        return self._arm()

    def _arm(self) -> ArmDisks:
        group = f"/subscriptions/{self._ref.subscription}/resourceGroups/{self._ref.resource_group}"
        cloud = CLOUDS[self._ref.cloud]
        management = (self._ref.management or cloud.management).rstrip("/")
        audience = cloud.management
        session = self.connections.session
        return ArmDisks(session, self.tokens, management, audience, group, self._retrier)

    def _make_result(self) -> Result:
        ref = self._ref
        if (ref.result == "image-version") != (ref.gallery is not None):
            raise ResultMissing("result image-version and [target.gallery] belong together")
        if ref.result == "snapshot":
            return SnapshotOfDisk(ref, self._arm, self._scope())
        if ref.gallery is not None:
            return VersionOfImage(ref, ref.gallery, self._arm, self._scope())
        return DiskItself(self._arm)

    async def proof(self) -> dict[str, str]:
        """Return what a page request needs beside its SAS: the principal's token, if the disk wants it."""
        if not self._ref.entra_upload:
            return {}
        return {"Authorization": f"Bearer {await self.tokens.token(self.disk_scope)}"}

    def check_endpoint(self, url: str, what: str) -> None:
        """Raise EndpointForbidden unless the site's policy allows a host: where the disk `what` ("is managed")."""
        if not self._allowed(url):
            msg = f"the disk {what} on {urlsplit(url).hostname}, which [policy] endpoints do not allow"
            raise EndpointForbidden(msg)

    async def open(self, spec: DiskSpec, intents: IntentLog) -> ManagedDisk:
        """Create the disk, or find this line's own."""
        await self._result.prepare(spec, intents)
        choice = await self._choose(
            spec,
            known=lambda name: (
                intents.known(self._intent(name)) is not None or self._result.known(name, intents)
            ),
        )
        name, intent = choice.name, self._intent(choice.name)
        if await self._result.is_made(name, spec, intents):
            return ManagedDisk(self, name, spec, intents, {}, resumed=True)
        known = intents.known(intent)
        resource = await self.disks.get(name)
        if (
            known is not None
            and resource is not None
            and self._is_line(resource, name, spec.tagger)
        ):
            _check(resource, known, spec, name)
            return ManagedDisk(self, name, spec, intents, resource, resumed=True)
        if (
            resource is not None
        ):  # of another line of ours, and unfinished or wrong: no bytes to trust
            if attached(resource):
                msg = f"disk {name} is attached to a machine"
                raise TargetExists(msg, where=name)
            await self._remove(name, resource)
        resource = await self._create(name, spec, intents, intent)
        return ManagedDisk(self, name, spec, intents, resource, resumed=False)

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Look which name is free, and ask which actions the principal has on the resource group."""
        await self._result.prepare(spec, None)
        choice = await self._choose(spec)
        ref = self._ref
        lacking = await self.disks.lacking(azure_role(ref.result).all)
        stays = "" if ref.result == "disk" or ref.keep_disk else ", temporary"
        made = f"managed disk {ref.resource_group}/{choice.name} ({ref.sku}, {ref.location}{stays})"
        return Preflight(choice.name, (made, *self._result.objects(choice.name)), missing=lacking)

    async def conclude(
        self, name: str, spec: DiskSpec, intents: IntentLog, checksum: str
    ) -> Artifact:
        """Mark the proven disk final; make of it what the job asks for, then delete it unless it is to be kept.

        May be called again after a crash: what is made already is found.
        """
        made = await self._result.make(name, spec, intents)
        facts: dict[str, str | int | bool] = {
            "name": name,
            "size": spec.padded_size,
            "service_checksum": checksum,
            **made.properties,
        }
        if made.kind == KIND:
            resource = await self.mark(name, spec, FINAL)
            facts |= {"unique_id": unique_id(resource), "state": state_of(resource)}
        else:
            facts["disk_kept"] = self._ref.keep_disk
            await self._put_away(name, spec, intents)
        return Artifact(made.kind, made.object_id, facts)

    async def _put_away(self, name: str, spec: DiskSpec, intents: IntentLog) -> None:
        """Delete the disk that something was made of, or mark it final if it is to be kept."""
        disk = await self.disks.get(name)
        if disk is None or not self._is_line(disk, name, spec.tagger):
            return
        if self._ref.keep_disk:
            await self.mark(name, spec, FINAL)
        else:
            await self._remove(name, disk)
            await intents.removed(self._intent(name))

    async def mark(self, name: str, spec: DiskSpec, state: str) -> dict[str, Any]:
        """Set owner tags and state, and return the resource."""
        await self.disks.set_tags(name, self._tags(name, spec, state))
        return await self.must(name)

    async def must(self, name: str) -> dict[str, Any]:
        """Return a disk that has to be there."""
        resource = await self.disks.get(name)
        if resource is None:
            msg = f"disk {name} is gone"
            raise DiskLost(msg, name=name)
        return resource

    async def covers(self, intent: Intent) -> bool:
        """See `DiskTarget`."""
        return intent.scope == self._scope()

    async def discard(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        """Delete a disk of this line that is attached to nothing, or what was made of it."""
        if intent.kind == SNAPSHOT:
            snapshots = SnapshotOfDisk(self._ref, self._arm, self._scope())
            return await snapshots.discard(intent, object_id, tagger)
        if intent.kind in (DEFINITION, VERSION):
            return await discard(self._arm(), intent, tagger)
        return await self._discard_disk(intent, object_id, tagger)

    async def _discard_disk(self, intent: Intent, object_id: str, tagger: Tagger) -> str | None:
        resource = await self.disks.get(intent.name)
        if resource is None:
            return None
        where = f"disk {self._ref.resource_group}/{intent.name}"
        if not self._is_line(resource, intent.name, tagger):
            return f"{where} carries another owner tag"
        if object_id and unique_id(resource) != object_id:
            return f"{where} is another disk than the one created"
        if attached(resource):
            return f"{where} is attached to a machine"
        await self._remove(intent.name, resource)
        return None

    async def close(self) -> None:
        """Close the sessions."""
        await self.tokens.close()
        await self.connections.close()

    async def _remove(self, name: str, resource: dict[str, Any]) -> None:
        if state_of(resource) in ("ActiveUpload", "ActiveSAS"):
            with contextlib.suppress(
                AgentError
            ):  # an upload without a footer ends with an error, and ends
                await self.disks.revoke(name)
        await self.disks.delete(name)

    async def _choose(self, spec: DiskSpec, known: Callable[[str], bool] = nothing_known) -> Choice:
        """Return the name that the disk gets."""
        return await choose_name(
            self._ref.disk,
            spec.if_exists,
            known=known,
            look=lambda name: self._look(name, spec.tagger),
            can_replace=False,
        )

    async def _look(self, name: str, tagger: Tagger) -> Found | None:
        resource = await self.disks.get(name)
        if resource is None:
            return await self._result.look(name, tagger)
        tags = tags_of(resource)
        ours = tagger.read(tags, self._scope(), name) is not None
        where = f"disk {self._ref.resource_group}/{name}"
        final = state_of(resource) not in WRITABLE and tags.get(STATE) != UNVERIFIED
        return Found(ours, final, where)

    async def _create(
        self, name: str, spec: DiskSpec, intents: IntentLog, intent: Intent
    ) -> dict[str, Any]:
        await intents.record(intent)
        resource = disk_resource(
            self._ref, spec.padded_size + FOOTER_SIZE, self._tags(name, spec, "writing")
        )
        await self.disks.create(name, resource)
        made = await self.must(name)
        await intents.created(intent, unique_id(made))
        return made

    def _tags(self, name: str, spec: DiskSpec, state: str) -> dict[str, str]:
        return {**self._ref.tags, **spec.tagger.tags(self._scope(), name), STATE: state}

    def _is_line(self, resource: dict[str, Any], name: str, tagger: Tagger) -> bool:
        return tagger.is_this_line(tags_of(resource), self._scope(), name)

    def _intent(self, name: str) -> Intent:
        return Intent(KIND, self._scope(), name)

    def _scope(self) -> dict[str, str]:
        account = f"{self._ref.subscription}/{self._ref.resource_group}".lower()
        return {"provider": "azure", "account": account, "region": self._ref.location}


def _check(resource: dict[str, Any], known: str, spec: DiskSpec, name: str) -> None:
    if known and known != unique_id(resource):
        msg = f"disk {name} is not the one that this job created"
        raise DiskLost(msg, name=name)
    size = resource.get("properties", {}).get("creationData", {}).get("uploadSizeBytes")
    expected = spec.padded_size + FOOTER_SIZE
    if size is not None and size != expected:
        msg = f"disk {name} takes an upload of {size} bytes, this one has {expected}"
        raise SizeDiffers(msg, name=name, found=size, expected=expected)
