"""DiskPlane: the data side of a managed disk behind its SAS: page writes, page ranges, reads; nothing else.

Addressed as on the real service by host (`md-impexp-x.any.name/folder/abcd`) or, for machines where such names do
not resolve, by path (`/md-impexp-x/folder/abcd`). What azcopy avoids on such hosts is refused here: create, delete,
conditional headers, whole-blob MD5, properties and metadata.
"""

from appliance.sim.azure import pageblob, storage
from appliance.sim.azure.access import permission_mismatch
from appliance.sim.azure.conditions import CONDITION_HEADERS, invalid_header
from appliance.sim.azure.sas import Resource, SasVerifier, refuse_authentication
from appliance.sim.azure.state import DiskRecord
from appliance.sim.azure.tokens import DISK, TokenPlane
from appliance.sim.azure.vault import PageBlob, Vault
from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.stats import Stats

PREFIX = "md-"

_OPERATIONS = {
    ("GET", ""): "get",
    ("HEAD", ""): "head",
    ("GET", "pagelist"): "get-page-ranges",
}


class DiskPlane:
    """The page operations on all disks that have an open access."""

    def __init__(self, vault: Vault, voided: set[str], stats: Stats, tokens: TokenPlane) -> None:
        self._vault = vault
        self._voided = voided
        self._stats = stats
        self._tokens = tokens
        self.known: set[str] = set()

    def operation(self, call: Call) -> str:
        """Name the operation: disk.*."""
        comp = call.query.get("comp", "")
        if call.method == "PUT" and comp == "page":
            return f"disk.{pageblob.write_operation(call)}"
        return f"disk.{_OPERATIONS.get((call.method, comp), 'unknown')}"

    async def answer(self, call: Call) -> Reply:
        """Authorize and do."""
        key, disk = self._find(call)
        granted = self._verify(call, disk)
        operation = self.operation(call)
        blob = self._vault.disks[key]
        _check_allowed(call, operation)
        if operation in ("disk.put-page", "disk.clear-page"):
            if "w" not in granted:
                raise permission_mismatch()
            return storage.finish(call, await pageblob.put_page(call, blob, self._stats))
        if "r" not in granted:
            raise permission_mismatch()
        return storage.finish(call, self._read(call, blob, operation))

    def _read(self, call: Call, blob: PageBlob, operation: str) -> Reply:
        if operation == "disk.get":
            return pageblob.get(call, blob, self._stats)
        if operation == "disk.get-page-ranges":
            return pageblob.page_ranges(call, blob)
        return pageblob.head(call, blob)

    def _find(self, call: Call) -> tuple[str, DiskRecord]:
        label, folder, leaf = _address(call)
        for key, disk in self._vault.state.disks.items():
            if disk.label == label and disk.folder == folder and leaf == "abcd":
                return key, disk
        raise Refusal(404, "ResourceNotFound", "The specified resource does not exist.")

    def _verify(self, call: Call, disk: DiskRecord) -> str:
        if disk.more.get("dataAccessAuthMode") == "AzureActiveDirectory":
            self._tokens.check(call, DISK)
        elif call.header("Authorization"):
            raise refuse_authentication("A disk takes the SAS alone, no Authorization header.")
        if "sig" not in call.query or "si" not in call.query:
            raise refuse_authentication("A disk is reached by the SAS of beginGetAccess only.")
        verifier = SasVerifier(disk.label, self._vault.state.identity.key, self._voided)
        try:
            return verifier.verify(call, Resource("blob", disk.folder, "abcd"), disk.policies)
        finally:
            self.known |= verifier.known

    def refuse(self, call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into XML."""
        return storage.refuse(call, refusal)


def addressed(call: Call) -> bool:
    """Say whether a request goes to a disk."""
    return call.host.startswith(PREFIX) or call.path.startswith(f"/{PREFIX}")


def _address(call: Call) -> tuple[str, str, str]:
    """Return (label, folder, leaf)."""
    by_host = call.host.startswith(PREFIX)
    parts = call.path.split("/")[1:]
    if by_host:
        parts.insert(0, call.host.partition(".")[0].partition(":")[0])
    label, folder, leaf = (*parts, "", "", "")[:3]
    return label, folder, leaf if len(parts) == 3 else ""


def _check_allowed(call: Call, operation: str) -> None:
    if operation == "disk.unknown":
        raise Refusal(
            409,
            "OperationNotAllowedOnManagedDisk",
            f"{call.method} {call.query.get('comp', '')} is not allowed on the blob of a managed disk.",
        )
    for name in (*CONDITION_HEADERS, "x-ms-blob-content-md5"):
        if call.header(name):
            raise invalid_header(
                name, call.header(name), "not supported on the blob of a managed disk"
            )
