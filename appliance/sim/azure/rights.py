"""What a caller of ARM may do: the action of each operation, and the list of them that Azure gives (RBAC). Pure."""

import re

from appliance.sim.call import Refusal

_COMPUTE = "Microsoft.Compute"
ACTIONS = {
    "arm.disk-get": f"{_COMPUTE}/disks/read",
    "arm.disk-list": f"{_COMPUTE}/disks/read",
    "arm.disk-put": f"{_COMPUTE}/disks/write",
    "arm.disk-patch": f"{_COMPUTE}/disks/write",
    "arm.disk-delete": f"{_COMPUTE}/disks/delete",
    "arm.begin-access": f"{_COMPUTE}/disks/beginGetAccess/action",
    "arm.end-access": f"{_COMPUTE}/disks/endGetAccess/action",
    "arm.snapshot-get": f"{_COMPUTE}/snapshots/read",
    "arm.snapshot-list": f"{_COMPUTE}/snapshots/read",
    "arm.snapshot-put": f"{_COMPUTE}/snapshots/write",
    "arm.snapshot-patch": f"{_COMPUTE}/snapshots/write",
    "arm.snapshot-delete": f"{_COMPUTE}/snapshots/delete",
    "arm.snapshot-begin-access": f"{_COMPUTE}/snapshots/beginGetAccess/action",
    "arm.snapshot-end-access": f"{_COMPUTE}/snapshots/endGetAccess/action",
    "arm.gallery-get": f"{_COMPUTE}/galleries/read",
    "arm.gallery-put": f"{_COMPUTE}/galleries/write",
    "arm.gallery-delete": f"{_COMPUTE}/galleries/delete",
    "arm.image-get": f"{_COMPUTE}/galleries/images/read",
    "arm.image-put": f"{_COMPUTE}/galleries/images/write",
    "arm.image-delete": f"{_COMPUTE}/galleries/images/delete",
    "arm.version-get": f"{_COMPUTE}/galleries/images/versions/read",
    "arm.version-put": f"{_COMPUTE}/galleries/images/versions/write",
    "arm.version-delete": f"{_COMPUTE}/galleries/images/versions/delete",
    "arm.caps-poll": f"{_COMPUTE}/locations/capsOperations/read",
    "arm.poll": f"{_COMPUTE}/locations/diskOperations/read",
}
PERMISSIONS = re.compile(
    r"/subscriptions/([^/]+)/resourcegroups/([^/]+)/providers/microsoft\.authorization/permissions",
    re.IGNORECASE,
)


def require(operation: str, granted: list[str] | None, *, client: str, scope: str) -> None:
    """Raise 403 unless the caller may do what is asked; what has no action is left to the routes."""
    action = ACTIONS.get(operation)
    if action is None or granted is None or action in granted:
        return
    message = (
        f"The client '{client}' does not have authorization to perform action '{action}' over scope"
        f" '{scope}' or the scope is invalid."
    )
    raise Refusal(403, "AuthorizationFailed", message)


def listed(granted: list[str] | None) -> dict[str, object]:
    """Return the answer of "Permissions - List For Resource Group"."""
    actions = ["*"] if granted is None else granted
    one = {"actions": actions, "notActions": [], "dataActions": [], "notDataActions": []}
    return {"value": [one]}
