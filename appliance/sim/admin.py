"""AdminPlane: `/sim/*` of every simulator, for tests and rehearsals; loopback only, never faulted.

| request            | body                              | does                     |
|--------------------|-----------------------------------|--------------------------|
| GET /sim/stats     |                                   | counters                 |
| DELETE /sim/stats  |                                   | set them to zero         |
| GET /sim/faults    |                                   | the plan at work         |
| POST /sim/faults   | plan as JSON                      | replace it               |
| DELETE /sim/faults |                                   | no faults                |
| POST /sim/expire   |                                   | every temporary credential known so far is expired |
Each simulator adds its own.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.faults import FaultPlan

if TYPE_CHECKING:
    from appliance.sim.base import Simulator

PREFIX = "/sim/"

Handler = Callable[[Call, dict[str, Any]], object]


class AdminPlane:
    """The controls of one simulator."""

    def __init__(self, sim: "Simulator", more: Mapping[tuple[str, str], Handler]) -> None:
        """Control `sim`; `more` are handlers of its own by (method, name)."""
        self._handlers: dict[tuple[str, str], Handler] = {
            ("GET", "stats"): lambda _call, _wanted: sim.stats.as_json(),
            ("DELETE", "stats"): lambda _call, _wanted: sim.stats.reset(),
            ("GET", "faults"): lambda _call, _wanted: sim.plan,
            ("POST", "faults"): lambda _call, wanted: sim.set_faults(FaultPlan.from_values(wanted)),
            ("DELETE", "faults"): lambda _call, _wanted: sim.set_faults(FaultPlan()),
            ("POST", "expire"): lambda _call, _wanted: sim.expire(),
            **more,
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

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into JSON."""
        return _json(refusal.status, {"error": {"code": refusal.code, "message": refusal.message}})


def _json(status: int, body: object) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, msgspec.json.encode(body))
