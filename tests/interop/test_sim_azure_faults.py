"""Injected faults do on the wire what they are called, and the controls are for this machine only."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from appliance.sim.azure import AzureSim
from appliance.sim.faults import Fault, FaultPlan, Throttle

pytestmark = pytest.mark.fault

MIB = 1 << 20
SIZE = 32 * MIB
PAGE = b"page" * 128
CUT = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)


@pytest.fixture
async def sim() -> AsyncIterator[AzureSim]:
    async with AzureSim() as sim:
        yield sim


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


class Disk:
    """A managed disk being uploaded over raw HTTP."""

    def __init__(self, sim: AzureSim, http: aiohttp.ClientSession) -> None:
        self.url = sim.upload_disk("golden", SIZE)
        self._sim, self._http = sim, http

    async def put(self, offset: int = 0) -> tuple[int, dict[str, str]]:
        """Write one page; return status and headers."""
        headers = {"x-ms-page-write": "update", "x-ms-range": f"bytes={offset}-{offset + 511}"}
        url = URL(f"{self.url}&comp=page", encoded=True)
        async with self._http.put(url, data=PAGE, headers=headers) as answer:
            await answer.read()
            return answer.status, dict(answer.headers)

    async def get(self, offset: int = 0) -> bytes:
        """Read one page."""
        headers = {"x-ms-range": f"bytes={offset}-{offset + 511}"}
        async with self._http.get(URL(self.url, encoded=True), headers=headers) as answer:
            return await answer.read()

    def stored(self) -> tuple[bytes, int]:
        """Return the first page as stored, and how many bytes are known as written."""
        file = self._sim.disk_blob("golden").file
        return file.read(0, 512), file.pages.total()


@pytest.fixture
async def disk(sim: AzureSim, http: aiohttp.ClientSession) -> Disk:
    return Disk(sim, http)


def _plan(action: Any, **more: Any) -> FaultPlan:
    return FaultPlan(fault=[Fault(action=action, op="disk.put-page", limit=1, **more)])


async def test_status_comes_with_code_and_retry_after(sim: AzureSim, disk: Disk) -> None:
    sim.set_faults(_plan("status", status=500, code="OperationTimedOut", retry_after=7))
    status, headers = await disk.put()
    assert (status, headers["x-ms-error-code"]) == (500, "OperationTimedOut")
    assert headers["Retry-After"] == "7"
    assert disk.stored() == (bytes(512), 0)
    assert (await disk.put())[0] == 201
    assert sim.stats.refusals == {"disk.put-page OperationTimedOut": 1}


@pytest.mark.parametrize(
    ("action", "stored"),
    [("drop-before-body", 0), ("drop-after-body", 0), ("drop-after-write", 512)],
)
async def test_dropped_connection(sim: AzureSim, disk: Disk, action: Any, stored: int) -> None:
    # aiohttp sends a PUT a second time by itself after a cut, so both must be cut.
    sim.set_faults(FaultPlan(fault=[Fault(action=action, op="disk.put-page")]))
    with pytest.raises(CUT):
        await disk.put()
    assert disk.stored()[1] == stored
    assert sim.stats.faults == {action: 2}
    sim.set_faults(FaultPlan())
    assert (await disk.put())[0] == 201


@pytest.mark.parametrize("action", ["lose-write", "flip-stored"])
async def test_damaged_write_is_acknowledged(sim: AzureSim, disk: Disk, action: str) -> None:
    sim.set_faults(_plan(action))
    assert (await disk.put())[0] == 201
    found, written = disk.stored()
    assert found != PAGE
    assert written == 512
    assert await disk.get() == found


async def test_truncated_answer_breaks_off(sim: AzureSim, disk: Disk) -> None:
    await disk.put()
    sim.set_faults(FaultPlan(fault=[Fault(action="truncate", op="disk.get", limit=1)]))
    with pytest.raises(aiohttp.ClientPayloadError):
        await disk.get()
    assert await disk.get() == PAGE


async def test_corrupted_answer_differs_by_one_bit(sim: AzureSim, disk: Disk) -> None:
    await disk.put()
    sim.set_faults(FaultPlan(fault=[Fault(action="corrupt", op="disk.get", limit=1)]))
    found = await disk.get()
    assert sum((a ^ b).bit_count() for a, b in zip(found, PAGE, strict=True)) == 1
    assert disk.stored()[0] == PAGE


async def test_wrong_etag_is_not_the_stored_one(sim: AzureSim, disk: Disk) -> None:
    sim.set_faults(_plan("wrong-etag"))
    _, headers = await disk.put()
    assert headers["Etag"] != sim.disk_blob("golden").etag


async def test_delay_lets_others_pass(sim: AzureSim, disk: Disk) -> None:
    sim.set_faults(_plan("delay", seconds=0.01))
    assert (await disk.put())[0] == 201
    assert sim.stats.faults == {"delay": 1}


async def test_expired_sas_is_dead_and_a_new_grant_works(sim: AzureSim, disk: Disk) -> None:
    await disk.put()
    sim.set_faults(_plan("expire-sas"))
    status, headers = await disk.put()
    assert (status, headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
    record = sim.disks.get(sim.resource_group, "golden")
    disk.url = sim.disks.grant(record, "Write", 60, sim.clock())
    assert (await disk.put())[0] == 201


async def test_grant_that_was_never_used_expires_too(sim: AzureSim, disk: Disk) -> None:
    sim.expire()
    assert (await disk.put())[0] == 403


async def test_throttled_requests_are_told_to_wait(sim: AzureSim, disk: Disk) -> None:
    sim.set_faults(FaultPlan(throttle=Throttle(requests_per_second=1, retry_after=1)))
    assert (await disk.put())[0] == 201
    status, headers = await disk.put()
    assert (status, headers["x-ms-error-code"], headers["Retry-After"]) == (503, "ServerBusy", "1")


async def _control(
    http: aiohttp.ClientSession, method: str, url: str, **body: Any
) -> tuple[int, Any]:
    async with http.request(method, url, json=body or None) as answer:
        return answer.status, await answer.json()


async def test_controls_set_faults_and_show_counters(
    sim: AzureSim, disk: Disk, http: aiohttp.ClientSession
) -> None:
    plan = {
        "fault": [{"action": "status", "op": "disk.*", "status": 429, "code": "TooManyRequests"}]
    }
    assert (await _control(http, "POST", f"{sim.url}/sim/faults", **plan))[0] == 200
    assert (await disk.put())[0] == 429
    assert (await _control(http, "GET", f"{sim.url}/sim/faults"))[1]["fault"][0]["status"] == 429
    await _control(http, "DELETE", f"{sim.url}/sim/faults")
    await _control(http, "DELETE", f"{sim.url}/sim/stats")
    assert (await disk.put())[0] == 201
    _, counters = await _control(http, "GET", f"{sim.url}/sim/stats")
    assert counters["requests"]["disk.put-page"] == 1
    assert (counters["bytes_received"], counters["bytes_stored"]) == (512, 512)


async def test_controls_flip_attach_expire_and_issue(
    sim: AzureSim, disk: Disk, http: aiohttp.ClientSession
) -> None:
    await disk.put()
    await _control(http, "POST", f"{sim.url}/sim/flip", disk="imageport/golden", offset=3)
    assert disk.stored()[0] != PAGE
    status, token = await _control(http, "POST", f"{sim.url}/sim/token")
    assert status == 200
    path = f"/subscriptions/{sim.subscription}/providers/Microsoft.Compute/disks?api-version=2024-03-02"
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    async with http.get(sim.url + path, headers=bearer) as answer:
        assert [found["name"] for found in (await answer.json())["value"]] == ["golden"]
    await _control(http, "POST", f"{sim.url}/sim/expire")
    assert (await disk.put())[0] == 403
    refused = await _control(
        http, "POST", f"{sim.url}/sim/attach", disk="imageport/golden", machine="vm"
    )
    assert (refused[0], refused[1]["error"]["code"]) == (409, "OperationNotAllowed")


@pytest.mark.parametrize(
    ("method", "name", "body", "status"),
    [
        ("POST", "faults", {"fault": [{"action": "explode"}]}, 400),
        ("POST", "flip", {"disk": "imageport/none", "offset": 1}, 400),
        ("GET", "nothing", {}, 404),
    ],
    ids=["bad-plan", "no-disk", "no-control"],
)
async def test_wrong_control_is_refused(
    sim: AzureSim,
    http: aiohttp.ClientSession,
    method: str,
    name: str,
    body: dict[str, Any],
    status: int,
) -> None:
    assert (await _control(http, method, f"{sim.url}/sim/{name}", **body))[0] == status
