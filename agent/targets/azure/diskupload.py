"""ManagedDisk: one disk being uploaded through the SAS that ARM grants; a `TargetDisk`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from agent.errors import AgentError
from agent.secrets import Secret
from agent.targets.azure.arm import ArmDisks
from agent.targets.azure.connections import Connections
from agent.targets.azure.diskresource import (
    UNVERIFIED,
    WRITABLE,
    state_of,
)
from agent.targets.azure.footer import footer_for
from agent.targets.base import Artifact, Checksum, DiskSpec, IntentLog
from agent.targets.errors import CredentialRefused, DiskLost
from agent.threads import Stop
from imaging.digest import DigestBuilder
from imaging.extent import Extent

ACCESS_S = 24 * 3600
"""SAS life: longer than most uploads, so that renewal is the exception; a renewed one continues the same upload."""


class Group(Protocol):
    """What an upload needs of its target."""

    connections: Connections

    @property
    def disks(self) -> ArmDisks:
        """The control plane."""
        ...

    def now_ms(self) -> int:
        """Return signed time."""
        ...

    async def proof(self) -> dict[str, str]:
        """Return what a page request needs beside its SAS."""
        ...

    def check_endpoint(self, url: str, what: str) -> None:
        """Raise EndpointForbidden unless the site's policy allows a host."""
        ...

    async def mark(self, name: str, spec: DiskSpec, state: str) -> dict[str, Any]:
        """Set owner tags and state, and return the resource."""
        ...

    async def must(self, name: str) -> dict[str, Any]:
        """Return a disk that has to be there."""
        ...

    async def conclude(
        self, name: str, spec: DiskSpec, intents: IntentLog, checksum: str
    ) -> Artifact:
        """Make of the proven disk what the job asks for."""
        ...


class SasFromArm:
    """Authorises page requests on a disk by the SAS that ARM grants; asks for another when it is refused."""

    def __init__(self, target: Group, name: str, access: str) -> None:
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
        target: Group,
        name: str,
        spec: DiskSpec,
        intents: IntentLog,
        resource: dict[str, Any],
        *,
        resumed: bool,
    ) -> None:
        """Take a disk, or {} where the job has made something of it already."""
        self._target = target
        self._intents = intents
        self._name = name
        self._spec = spec
        self._sealed = state_of(resource) not in WRITABLE
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
        if state_of(resource) in WRITABLE:
            msg = f"disk {self._name} is still {state_of(resource)} after the upload was ended"
            raise DiskLost(msg, name=self._name)

    def allocated(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """Ask for the page ranges."""
        return self._reader.ranges(offset, length)

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Read pages."""
        await self._reader.read(offset, buffer)

    async def reject(self) -> None:
        """Say so in the tags; a disk whose upload has ended cannot be written any more."""
        await self._target.mark(self._name, self._spec, UNVERIFIED)

    async def finish(self) -> Artifact:
        """End the read access and make of the disk what the job asks for."""
        await self._read.end()
        checksum = self._writer.checksum_name
        return await self._target.conclude(self._name, self._spec, self._intents, checksum)

    async def close(self) -> None:
        """End the read access; the upload's stays, a later attempt goes on with it."""
        with contextlib.suppress(AgentError):  # it ends by itself
            await self._read.end()
