"""The Azure simulator's own controls, beside those that every simulator has (`appliance.sim.admin`).

| request            | body                              | does                                          |
|--------------------|-----------------------------------|-----------------------------------------------|
| POST /sim/token    | {"audience": URL, "lifetime": s}  | a bearer token                                |
| POST /sim/flip     | {"blob"/"disk": key, "offset": n} | flip one stored bit                           |
| POST /sim/attach   | {"disk": key, "machine": name}    | attach a finished disk, "" detaches           |
"""

from typing import Any

from appliance.sim.admin import Handler
from appliance.sim.azure.disks import Disks
from appliance.sim.azure.tokens import MANAGEMENT, TokenPlane
from appliance.sim.azure.vault import Vault
from appliance.sim.call import Call


def azure_controls(
    vault: Vault, disks: Disks, tokens: TokenPlane
) -> dict[tuple[str, str], Handler]:
    """Return the handlers."""

    def token(call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        lifetime = float(wanted.get("lifetime", 3600))
        audience = str(wanted.get("audience", MANAGEMENT))
        made = tokens.issue(audience, now=call.now, lifetime=lifetime)
        return {"access_token": made, "expires_in": lifetime, "token_type": "Bearer"}

    def flip(_call: Call, wanted: dict[str, Any]) -> None:
        shelf = vault.disks if "disk" in wanted else vault.blobs
        shelf[str(wanted.get("disk") or wanted["blob"]).lower()].file.flip(int(wanted["offset"]))

    def attach(_call: Call, wanted: dict[str, Any]) -> None:
        group, _, name = str(wanted["disk"]).partition("/")
        disks.attach(disks.get(group, name), str(wanted["machine"]))

    return {
        ("POST", "token"): token,
        ("POST", "flip"): flip,
        ("POST", "attach"): attach,
    }
