"""The controls answer callers on this machine only."""

import json
from pathlib import Path

import pytest

from appliance.sim.azure.admin import AdminPlane
from appliance.sim.azure.disks import Disks
from appliance.sim.azure.state import State, new_identity
from appliance.sim.azure.tokens import TokenPlane
from appliance.sim.azure.vault import Vault
from appliance.sim.call import Refusal
from appliance.sim.faults import FaultPlan
from appliance.sim.stats import Stats
from tests.support.simcalls import call


@pytest.fixture
def plane(tmp_path: Path) -> AdminPlane:
    identity = new_identity("acc")
    vault = Vault(tmp_path, lambda: State(identity=identity))
    return AdminPlane(
        vault,
        Disks(vault, lambda disk: disk.name),
        TokenPlane(identity),
        stats=Stats(),
        plan=FaultPlan,
        set_faults=lambda plan: None,
        expire_sas=lambda: None,
    )


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
async def test_this_machine_is_answered(plane: AdminPlane, client: str) -> None:
    reply = await plane.answer(call("GET", "/sim/stats", client=client))
    assert json.loads(reply.body)["schema"] == "sim-stats/1"


@pytest.mark.parametrize("client", ["10.0.0.5", "192.0.2.1", "2001:db8::1", ""])
async def test_other_machines_are_refused(plane: AdminPlane, client: str) -> None:
    with pytest.raises(Refusal) as caught:
        await plane.answer(call("POST", "/sim/token", client=client))
    assert (caught.value.status, caught.value.code) == (403, "LoopbackOnly")
