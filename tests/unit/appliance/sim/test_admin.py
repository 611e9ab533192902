"""The controls answer callers on this machine only."""

import json

import pytest

from appliance.sim.admin import AdminPlane
from appliance.sim.azure import AzureSim
from appliance.sim.call import Refusal
from tests.support.simcalls import call


@pytest.fixture
def plane() -> AdminPlane:
    return AdminPlane(AzureSim(), {("POST", "own"): lambda _call, wanted: wanted})


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
async def test_this_machine_is_answered(plane: AdminPlane, client: str) -> None:
    reply = await plane.answer(call("GET", "/sim/stats", client=client))
    assert json.loads(reply.body)["schema"] == "sim-stats/1"


@pytest.mark.parametrize("client", ["10.0.0.5", "192.0.2.1", "2001:db8::1", ""])
async def test_other_machines_are_refused(plane: AdminPlane, client: str) -> None:
    with pytest.raises(Refusal) as caught:
        await plane.answer(call("POST", "/sim/own", client=client))
    assert (caught.value.status, caught.value.code) == (403, "LoopbackOnly")
