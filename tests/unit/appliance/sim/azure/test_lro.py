"""Operations end by the clock, once, and keep their failure."""

import pytest

from appliance.sim.azure.lro import Operations
from appliance.sim.call import Refusal


def test_work_runs_once_when_it_is_due() -> None:
    runs: list[int] = []
    operations = Operations(2.0)
    operation = operations.start(lambda: runs.append(1), 10.0)
    operations.settle(11.9)
    assert (operation.status, runs) == ("InProgress", [])
    operations.settle(12.0)
    operations.settle(13.0)
    assert (operation.status, runs) == ("Succeeded", [1])


def test_refused_work_is_a_failed_operation() -> None:
    def work() -> None:
        raise Refusal(400, "InvalidVhd", "no cookie")

    operations = Operations(0.0)
    operation = operations.start(work, 1.0)
    operations.settle(1.0)
    assert operation.status == "Failed"
    assert operation.failure is not None
    assert operation.failure.code == "InvalidVhd"


def test_unknown_operation_is_not_found() -> None:
    with pytest.raises(Refusal) as caught:
        Operations(0.0).get("nine")
    assert caught.value.status == 404
