"""Target `azure-disk`: direct upload to a managed disk, without a storage account of the customer.

Create with `createOption: Upload` -> beginGetAccess(Write) -> pages to the SAS -> footer -> endGetAccess (the service
looks at the footer) -> beginGetAccess(Read) for reading back. Owner tags and state are the disk's tags. There is no
rename of managed disks, so `replace` is refused by name; `new-version` does what people want with it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from agent.errors import AgentError
from agent.retry import Retrier
from agent.secrets import Secret
from agent.targets.azure.arm import ArmDisks
from agent.targets.azure.clouds import CLOUDS
from agent.targets.azure.connections import Connections
from agent.targets.azure.credentials import read_credential
from agent.targets.azure.diskresource import disk_resource
from agent.targets.azure.entra import Principal, TokenSource
from agent.targets.azure.footer import FOOTER_SIZE, footer_for
from agent.targets.base import (
    Artifact,
    Checksum,
    DiskSpec,
    Intent,
    IntentLog,
    Preflight,
)
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
from agent.targets.permissions import AZURE_DISK
from agent.targets.tags import Tagger
from agent.threads import Stop
from imaging.digest import DigestBuilder
from imaging.extent import Extent
from protocol.ops import AzureDisk

KIND = "azure.disk"
ACCESS_S = 24 * 3600
"""SAS life: longer than most uploads, so that renewal is the exception; a renewed one continues the same upload."""
_STATE = "imageport-state"
_UNVERIFIED = "unverified"
"""State of what failed verification."""
_WRITABLE = ("ReadyToUpload", "ActiveUpload")


class SasFromArm:
    """Authorises page requests on a disk by the SAS that ARM grants; asks for another when it is refused."""

    def __init__(self, target: "AzureDiskTarget", name: str, access: str) -> None:
        self._target = target
        self._name = name
        self._access = access
        self._url: Secret | None = None
        self._granting = asyncio.Lock()

    async def request(self) -> tuple[str, dict[str, str]]:
        """Return the SAS URL; whoever comes first asks for it, the others wait for the same one."""
        async with self._granting:
            if self._url is None:
                url = await self._target.disks.grant(
                    self._name, access=self._access, seconds=ACCESS_S
                )
                self._target.check_endpoint(url, "has its bytes")
                self._url = Secret(url)
            return self._url.reveal(), await self._target.proof()

    async def refused(self, error: CredentialRefused) -> None:  # noqa: ARG002 - a new SAS is tried first
        """Forget it, so that the next request asks for another one."""
        self._url = None

    async def end(self) -> None:
        """Revoke the access if one was granted."""
        if self._url is not None:
            self._url = None
            await self._target.disks.revoke(self._name)


class ManagedDisk:
    """One disk being uploaded."""

    def __init__(
        self,
        target: "AzureDiskTarget",
        name: str,
        spec: DiskSpec,
        resource: dict[str, Any],
        *,
        resumed: bool,
    ) -> None:
        self._target = target
        self._name = name
        self._spec = spec
        self._sealed = _state_of(resource) not in _WRITABLE
        self._write = SasFromArm(target, name, "Write")
        self._read = SasFromArm(target, name, "Read")
        self._writer = target.connections.wire(self._write, f"disk {name}")
        self._reader = target.connections.wire(self._read, f"disk {name}")
        self.resumed = resumed

    @property
    def checksum(self) -> Checksum | None:
        """The service's checksum of a write, while it takes one."""
        return self._writer.checksum

    def put(self, offset: int, data: memoryview, checksum: str | None, stop: Stop) -> None:
        """Write pages."""
        if self._sealed:
            msg = f"disk {self._name} no longer takes an upload"
            raise DiskLost(msg, name=self._name)
        self._writer.put(offset, data, checksum, stop)

    async def seal(self, digest: DigestBuilder) -> None:  # noqa: ARG002 - it checks writes only
        """Write the footer and end the upload."""
        if self._sealed:
            return
        size = self._spec.padded_size
        footer = footer_for(size, self._spec.tagger.origin, now_ms=self._target.now_ms())
        await self._writer.put_footer(size, footer)
        await self._target.disks.revoke(self._name)
        self._sealed = True
        resource = await self._target.must(self._name)
        if _state_of(resource) in _WRITABLE:
            msg = f"disk {self._name} is still {_state_of(resource)} after the upload was ended"
            raise DiskLost(msg, name=self._name)

    def allocated(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """Ask for the page ranges."""
        return self._reader.ranges(offset, length)

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Read pages."""
        await self._reader.read(offset, buffer)

    async def reject(self) -> None:
        """Say so in the tags; a disk whose upload has ended cannot be written any more."""
        await self._target.mark(self._name, self._spec, _UNVERIFIED)

    async def finish(self) -> Artifact:
        """End the read access and mark the disk final."""
        await self._read.end()
        resource = await self._target.mark(self._name, self._spec, "final")
        return Artifact(
            KIND,
            self._target.disks.resource_id(self._name),
            {
                "name": self._name,
                "size": self._spec.padded_size,
                "unique_id": _unique_id(resource),
                "state": _state_of(resource),
                "service_checksum": self._writer.checksum_name,
            },
        )

    async def close(self) -> None:
        """End the read access; the upload's stays, a later attempt goes on with it."""
        with contextlib.suppress(AgentError):  # it ends by itself
            await self._read.end()


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

    @property
    def disks(self) -> ArmDisks:
        """The control plane."""
        group = f"/subscriptions/{self._ref.subscription}/resourceGroups/{self._ref.resource_group}"
        cloud = CLOUDS[self._ref.cloud]
        management = (self._ref.management or cloud.management).rstrip("/")
        audience = cloud.management
        session = self.connections.session
        return ArmDisks(session, self.tokens, management, audience, group, self._retrier)

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
        choice = await self._choose(
            spec, known=lambda name: intents.known(self._intent(name)) is not None
        )
        name, intent = choice.name, self._intent(choice.name)
        known = intents.known(intent)
        resource = await self.disks.get(name)
        if (
            known is not None
            and resource is not None
            and self._is_line(resource, name, spec.tagger)
        ):
            _check(resource, known, spec, name)
            return ManagedDisk(self, name, spec, resource, resumed=True)
        if (
            resource is not None
        ):  # of another line of ours, and unfinished or wrong: no bytes to trust
            if _attached(resource):
                msg = f"disk {name} is attached to a machine"
                raise TargetExists(msg, where=name)
            await self._remove(name, resource)
        resource = await self._create(name, spec, intents, intent)
        return ManagedDisk(self, name, spec, resource, resumed=False)

    async def preflight(self, spec: DiskSpec) -> Preflight:
        """Look which name is free, and ask which actions the principal has on the resource group."""
        choice = await self._choose(spec)
        lacking = await self.disks.lacking(AZURE_DISK.all)
        made = f"managed disk {self._ref.resource_group}/{choice.name} ({self._ref.sku}, {self._ref.location})"
        return Preflight(choice.name, (made,), missing=lacking)

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
        """Delete a disk of this line that is attached to nothing."""
        resource = await self.disks.get(intent.name)
        if resource is None:
            return None
        where = f"disk {self._ref.resource_group}/{intent.name}"
        if not self._is_line(resource, intent.name, tagger):
            return f"{where} carries another owner tag"
        if object_id and _unique_id(resource) != object_id:
            return f"{where} is another disk than the one created"
        if _attached(resource):
            return f"{where} is attached to a machine"
        await self._remove(intent.name, resource)
        return None

    async def close(self) -> None:
        """Close the sessions."""
        await self.tokens.close()
        await self.connections.close()

    async def _remove(self, name: str, resource: dict[str, Any]) -> None:
        if _state_of(resource) in ("ActiveUpload", "ActiveSAS"):
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
            return None
        tags = _tags_of(resource)
        ours = tagger.read(tags, self._scope(), name) is not None
        where = f"disk {self._ref.resource_group}/{name}"
        final = _state_of(resource) not in _WRITABLE and tags.get(_STATE) != _UNVERIFIED
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
        await intents.created(intent, _unique_id(made))
        return made

    def _tags(self, name: str, spec: DiskSpec, state: str) -> dict[str, str]:
        return {**self._ref.tags, **spec.tagger.tags(self._scope(), name), _STATE: state}

    def _is_line(self, resource: dict[str, Any], name: str, tagger: Tagger) -> bool:
        return tagger.is_this_line(_tags_of(resource), self._scope(), name)

    def _intent(self, name: str) -> Intent:
        return Intent(KIND, self._scope(), name)

    def _scope(self) -> dict[str, str]:
        account = f"{self._ref.subscription}/{self._ref.resource_group}".lower()
        return {"provider": "azure", "account": account, "region": self._ref.location}


def _check(resource: dict[str, Any], known: str, spec: DiskSpec, name: str) -> None:
    if known and known != _unique_id(resource):
        msg = f"disk {name} is not the one that this job created"
        raise DiskLost(msg, name=name)
    size = resource.get("properties", {}).get("creationData", {}).get("uploadSizeBytes")
    expected = spec.padded_size + FOOTER_SIZE
    if size is not None and size != expected:
        msg = f"disk {name} takes an upload of {size} bytes, this one has {expected}"
        raise SizeDiffers(msg, name=name, found=size, expected=expected)


def _tags_of(resource: dict[str, Any]) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in (resource.get("tags") or {}).items()}


def _state_of(resource: dict[str, Any]) -> str:
    return str(resource.get("properties", {}).get("diskState", ""))


def _attached(resource: dict[str, Any]) -> bool:
    return bool(resource.get("managedBy") or resource.get("managedByExtended"))


def _unique_id(resource: dict[str, Any]) -> str:
    return str(resource.get("properties", {}).get("uniqueId", ""))
