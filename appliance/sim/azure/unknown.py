"""UnknownPlane: answers everything that no other plane of the simulator is for, by name."""

from appliance.sim.azure import storage
from appliance.sim.call import Call, Refusal, Reply


class UnknownPlane:
    """Says that the address is wrong."""

    def operation(self, _call: Call) -> str:
        """Name the operation."""
        return "unknown"

    async def answer(self, call: Call) -> Reply:
        """Refuse."""
        raise Refusal(400, "InvalidUri", f"Nothing of the simulator is at {call.host}{call.path}.")

    def refuse(self, call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into XML."""
        return storage.refuse(call, refusal)
