"""AdminPlane: `/sim/*` of the Azure simulator, for tests and rehearsals; loopback only, never faulted.

| request              | body                             | does                                          |
|----------------------|----------------------------------|-----------------------------------------------|
| GET /sim/stats       |                                  | counters                                      |
| DELETE /sim/stats    |                                  | set them to zero                              |
| GET /sim/faults      |                                  | the plan at work                              |
| POST /sim/faults     | plan as JSON                     | replace it                                    |
| DELETE /sim/faults   |                                  | no faults                                     |
| POST /sim/token      | {"audience": URL, "lifetime": s} | a bearer token                                |
| POST /sim/expire-sas |                                  | every SAS known so far is expired             |
| POST /sim/flip       | {"blob"/"disk": key, "offset": n}| flip one stored bit                           |
| POST /sim/attach     | {"disk": key, "machine": name}   | attach a finished disk, "" detaches           |
"""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import msgspec

from appliance.sim.azure.disks import Disks
from appliance.sim.azure.tokens import MANAGEMENT, TokenPlane
from appliance.sim.azure.vault import Vault
from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.faults import FaultPlan
from appliance.sim.stats import Stats

PREFIX = "/sim/"


class AdminPlane:
    """The simulator's own controls."""

    def __init__(
        self,
        vault: Vault,
        disks: Disks,
        tokens: TokenPlane,
        *,
        stats: Stats,
        plan: Callable[[], FaultPlan],
        set_faults: Callable[[FaultPlan], None],
        expire_sas: Callable[[], None],
    ) -> None:
        self._vault = vault
        self._disks = disks
        self._tokens = tokens
        self._stats = stats
        self._plan = plan
        self._set_faults = set_faults
        self._expire_sas = expire_sas
        self._handlers: dict[tuple[str, str], Callable[[Call, dict[str, Any]], object]] = {
            ("GET", "stats"): lambda _call, _wanted: self._stats.as_json(),
            ("DELETE", "stats"): lambda _call, _wanted: self._stats.reset(),
            ("GET", "faults"): lambda _call, _wanted: self._plan(),
            ("POST", "faults"): self._post_faults,
            ("DELETE", "faults"): lambda _call, _wanted: self._set_faults(FaultPlan()),
            ("POST", "token"): self._post_token,
            ("POST", "expire-sas"): lambda _call, _wanted: self._expire_sas(),
            ("POST", "flip"): self._post_flip,
            ("POST", "attach"): self._post_attach,
        }

    def operation(self, call: Call) -> str:
        """Name the operation: sim.*."""
        return f"sim.{call.path.removeprefix(PREFIX)}"

    async def answer(self, call: Call) -> Reply:
        """Do it, for callers on this machine."""
        if not call.client or not ip_address(call.client).is_loopback:
            raise Refusal(
                403, "LoopbackOnly", "The simulator's controls answer on this machine only."
            )
        handler = self._handlers.get((call.method, call.path.removeprefix(PREFIX)))
        if handler is None:
            raise Refusal(404, "NotFound", f"No such control: {call.method} {call.path}.")
        raw = b"".join(await call.body.read()) if call.method == "POST" else b""
        try:
            done = handler(call, msgspec.json.decode(raw or b"{}", type=dict[str, Any]))
        except (ValueError, KeyError) as err:
            raise Refusal(400, "InvalidRequest", f"{type(err).__name__}: {err}") from err
        return _json(200, {} if done is None else done)

    def _post_faults(self, _call: Call, wanted: dict[str, Any]) -> None:
        self._set_faults(FaultPlan.from_values(wanted))

    def _post_token(self, call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
        lifetime = float(wanted.get("lifetime", 3600))
        audience = str(wanted.get("audience", MANAGEMENT))
        token = self._tokens.issue(audience, now=call.now, lifetime=lifetime)
        return {"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}

    def _post_flip(self, _call: Call, wanted: dict[str, Any]) -> None:
        shelf = self._vault.disks if "disk" in wanted else self._vault.blobs
        shelf[str(wanted.get("disk") or wanted["blob"]).lower()].file.flip(int(wanted["offset"]))

    def _post_attach(self, _call: Call, wanted: dict[str, Any]) -> None:
        group, _, name = str(wanted["disk"]).partition("/")
        self._disks.attach(self._disks.get(group, name), str(wanted["machine"]))

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into JSON."""
        return _json(refusal.status, {"error": {"code": refusal.code, "message": refusal.message}})


def _json(status: int, body: object) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, msgspec.json.encode(body))
