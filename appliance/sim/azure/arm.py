"""ArmPlane: the part of Azure Resource Manager that managed disks need, driven by azure-mgmt-compute."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from appliance.sim.azure import galleries, rights
from appliance.sim.azure.armrequest import (
    read_access,
    read_disk,
    read_group,
    read_snapshot,
    read_tags,
)
from appliance.sim.azure.disks import Disks
from appliance.sim.azure.footer import FOOTER_SIZE
from appliance.sim.azure.galleries import Galleries
from appliance.sim.azure.lro import Operation, Operations
from appliance.sim.azure.state import DiskRecord
from appliance.sim.azure.tokens import MANAGEMENT, TokenPlane
from appliance.sim.azure.vault import Vault
from appliance.sim.call import Call, Refusal, Reply

_GROUP = re.compile(r"/subscriptions/([^/]+)/resourcegroups/([^/]+)", re.IGNORECASE)
_DISKS = re.compile(
    r"/subscriptions/([^/]+)(?:/resourcegroups/([^/]+))?/providers/microsoft\.compute/(disks|snapshots)"
    r"(?:/([^/]+)(?:/(begingetaccess|endgetaccess))?)?",
    re.IGNORECASE,
)
_OPERATION = re.compile(
    r"/subscriptions/([^/]+)/providers/microsoft\.compute/locations/([^/]+)/(diskoperations|capsoperations)/([^/]+)",
    re.IGNORECASE,
)
_API_VERSION = re.compile(r"20\d\d-\d\d-\d\d(?:-preview)?", re.ASCII)
_GIB = 1 << 30


class ArmPlane:
    """Disks, resource groups and the operations on them."""

    def __init__(
        self,
        vault: Vault,
        disks: Disks,
        tokens: TokenPlane,
        operations: Operations,
        retry_after: int,
    ) -> None:
        self.galleries = Galleries(vault, disks, self.require_group)
        self._vault = vault
        self._disks = disks
        self._tokens = tokens
        self._operations = operations
        self._retry_after = retry_after
        self.base_url = ""

    def operation(self, call: Call) -> str:
        """Name the operation: arm.*."""
        path = unquote(call.path)
        if _OPERATION.fullmatch(path):
            return "arm.poll" if "diskoperations" in path.lower() else "arm.caps-poll"
        if _GROUP.fullmatch(path):
            return f"arm.group-{call.method.lower()}"
        if gallery := galleries.operation(call.method, path):
            return gallery
        found = _DISKS.fullmatch(path)
        if found is None:
            return "arm.unknown"
        what = found[3].lower().removesuffix("s")
        if found[5]:
            verb = "begin-access" if found[5].lower() == "begingetaccess" else "end-access"
            return f"arm.{verb}" if what == "disk" else f"arm.{what}-{verb}"
        return f"arm.{what}-{call.method.lower()}" if found[4] else f"arm.{what}-list"

    async def answer(self, call: Call) -> Reply:
        """Authorize, end what is due, and do."""
        self._tokens.check(call, MANAGEMENT)
        if not _API_VERSION.fullmatch(call.query.get("api-version", "")):
            raise Refusal(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required.",
            )
        self._operations.settle(call.now)
        state = self._vault.state
        client = state.identity.client_id
        rights.require(self.operation(call), state.granted, client=client, scope=call.path)
        path = unquote(call.path)
        subscription = path.split("/")[2] if path.count("/") > 1 else ""
        if subscription != self._vault.state.identity.subscription:
            raise Refusal(
                404,
                "SubscriptionNotFound",
                f"The subscription '{subscription}' could not be found.",
            )
        return await self._route(call, path)

    async def _route(self, call: Call, path: str) -> Reply:
        polled = _OPERATION.fullmatch(path)
        if polled and call.method == "GET":
            return self._poll(call, self._operations.get(polled[4]))
        group = _GROUP.fullmatch(path)
        if group:
            return await self._group(call, group[2])
        if rights.PERMISSIONS.fullmatch(path) and call.method == "GET":
            return _json(200, rights.listed(self._vault.state.granted))
        if galleries.operation(call.method, path):
            return await self.galleries.answer(call, path, self._accepted)
        found = _DISKS.fullmatch(path)
        if found is None:
            raise Refusal(404, "InvalidResourceType", f"{call.method} {path} is not simulated.")
        _, place, kind, name, action = found.groups(default="")
        if not place and (name or call.method != "GET"):
            raise _wrong_method(call)
        if place:
            self.require_group(place)
        if not name and call.method == "GET":
            return self._list(place, kind.lower())
        if not name:
            raise _wrong_method(call)
        return await self._disk(call, place, kind.lower(), name, action.lower())

    async def _group(self, call: Call, name: str) -> Reply:
        if call.method not in ("GET", "PUT"):
            raise _wrong_method(call)
        if call.method == "PUT":
            self._vault.state.groups[name.lower()] = read_group(await _body(call))
            self._vault.save()
        self.require_group(name)
        location = self._vault.state.groups[name.lower()]
        subscription = self._vault.state.identity.subscription
        body = {
            "id": f"/subscriptions/{subscription}/resourceGroups/{name}",
            "name": name,
            "location": location,
            "properties": {"provisioningState": "Succeeded"},
        }
        return _json(200, body)

    def require_group(self, name: str) -> None:
        """Raise 404 unless a resource group exists."""
        if name.lower() not in self._vault.state.groups:
            raise Refusal(
                404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found."
            )

    def _list(self, group: str, kind: str) -> Reply:
        found = [
            self._shape(disk)
            for disk in self._disks.all(kind)
            if not group or disk.group.lower() == group.lower()
        ]
        return _json(200, {"value": found})

    async def _disk(self, call: Call, group: str, kind: str, name: str, action: str) -> Reply:
        if action:
            return await self._access(call, self._disks.get(group, name, kind), action)
        match call.method:
            case "GET":
                return _json(200, self._shape(self._disks.get(group, name, kind)))
            case "PUT":
                return await self._create(call, group, kind, name)
            case "PATCH":
                return await self._patch(call, self._disks.get(group, name, kind))
            case "DELETE":
                return self._delete(call, group, kind, name)
        raise _wrong_method(call)

    async def _create(self, call: Call, group: str, kind: str, name: str) -> Reply:
        body = await _body(call)
        if kind == "snapshots":
            disk = self._disks.snapshot(group, name, read_snapshot(body), call.now)
        else:
            disk = self._disks.create(group, name, read_disk(body), call.now)

        def work() -> dict[str, Any]:
            self._disks.provisioned(disk)
            return self._shape(disk)

        reply = self._accepted(call, work, disk.location)
        reply.headers["Content-Type"] = "application/json; charset=utf-8"
        reply.body = msgspec.json.encode(self._shape(disk))
        return reply

    async def _patch(self, call: Call, disk: DiskRecord) -> Reply:
        self._disks.tag(disk, read_tags(await _body(call)))
        return _json(200, self._shape(disk))

    def _delete(self, call: Call, group: str, kind: str, name: str) -> Reply:
        disk = self._disks.find(group, name, kind)
        if disk is None:
            return Reply(204)
        self._disks.check_deletable(disk)
        self.galleries.check_unused(disk)

        def work() -> None:
            if self._disks.find(group, name, kind) is disk:
                self._disks.check_deletable(disk)
                self._disks.delete(disk)

        return self._accepted(call, work, disk.location)

    async def _access(self, call: Call, disk: DiskRecord, action: str) -> Reply:
        if call.method != "POST":
            raise _wrong_method(call)
        if action == "endgetaccess":
            return self._accepted(call, lambda: self._disks.revoke(disk), disk.location)
        access, seconds = read_access(await _body(call))
        url = self._disks.grant(disk, access, seconds, call.now)
        return self._accepted(call, lambda: {"accessSAS": url}, disk.location)

    def _accepted(
        self, call: Call, work: Callable[[], Any], location: str, kind: str = "DiskOperations"
    ) -> Reply:
        operation = self._operations.start(work, call.now)
        subscription = self._vault.state.identity.subscription
        url = (
            f"{self.base_url}/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}"
            f"/{kind}/{operation.number}?p=imageport&api-version={call.query['api-version']}"
        )
        return Reply(
            202, self._wait() | {"Azure-AsyncOperation": url, "Location": f"{url}&monitor=true"}
        )

    def _wait(self) -> dict[str, str]:
        return {"Retry-After": str(self._retry_after)}

    def _poll(self, call: Call, operation: Operation) -> Reply:
        """Answer a poll of Location (`monitor=true`: the result itself) or of Azure-AsyncOperation (a status)."""
        monitor = call.query.get("monitor") == "true"
        if operation.status == "InProgress":
            return (
                Reply(202, self._wait())
                if monitor
                else _json(200, _status(operation), self._wait())
            )
        if not monitor:
            return _json(200, _status(operation))
        if operation.failure is not None:
            raise operation.failure
        return Reply(200) if operation.result is None else _json(200, operation.result)

    def _shape(self, disk: DiskRecord) -> dict[str, Any]:
        """Return a disk as the REST model has it."""
        size = disk.blob.size - FOOTER_SIZE
        subscription = self._vault.state.identity.subscription
        path = f"/subscriptions/{subscription}/resourceGroups/{disk.group}/providers/Microsoft.Compute/{disk.kind}"
        made_by: dict[str, Any] = {"createOption": "Upload", "uploadSizeBytes": disk.blob.size}
        if disk.kind == "snapshots":
            made_by = {"createOption": "Copy", "sourceResourceId": disk.source}
        properties = {
            "creationData": made_by,
            "diskSizeGB": -(-size // _GIB),
            "diskSizeBytes": size,
            "diskState": disk.state,
            "provisioningState": disk.provisioning,
            "uniqueId": disk.unique_id,
            "timeCreated": datetime.fromtimestamp(disk.created, UTC).isoformat(),
            "networkAccessPolicy": "AllowAll",
            "publicNetworkAccess": "Enabled",
            "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
        }
        if disk.os_type:
            properties["osType"] = disk.os_type
        if disk.generation:
            properties["hyperVGeneration"] = disk.generation
        properties |= disk.more
        shape = {
            "id": f"{path}/{disk.name}",
            "name": disk.name,
            "type": f"Microsoft.Compute/{disk.kind}",
            "location": disk.location,
            "sku": {"name": disk.sku, "tier": disk.sku.partition("_")[0]},
            "tags": disk.tags,
            "properties": properties,
        }
        return shape | ({"zones": disk.zones} if disk.zones else {}) | _managed(disk)

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into ARM's JSON."""
        body = {"error": {"code": refusal.code, "message": refusal.message}}
        return _json(refusal.status, body, refusal.headers)


async def _body(call: Call) -> bytes:
    return b"".join(await call.body.read())


def _wrong_method(call: Call) -> Refusal:
    return Refusal(405, "MethodNotAllowed", f"{call.method} is not simulated here.")


def _managed(disk: DiskRecord) -> dict[str, str]:
    return {"managedBy": disk.managed_by} if disk.managed_by else {}


def _status(operation: Operation) -> dict[str, Any]:
    body: dict[str, Any] = {"name": operation.number, "status": operation.status}
    if operation.failure is not None:
        body["error"] = {"code": operation.failure.code, "message": operation.failure.message}
    elif operation.result is not None:
        body["properties"] = {"output": operation.result}
    return body


def _json(status: int, body: object, headers: dict[str, str] | None = None) -> Reply:
    content = {"Content-Type": "application/json; charset=utf-8"}
    return Reply(status, content | (headers or {}), msgspec.json.encode(body))
