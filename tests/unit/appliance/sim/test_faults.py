"""A fault plan strikes the requests that it names, by count, by dice, up to its limit; throttling counts a second."""

import pytest

from appliance.sim.faults import Fault, FaultEngine, FaultPlan, Throttle

PLAN = """
seed = 7
[throttle]
mib_per_second = 60
[[fault]]
op = "disk.*"
method = "PUT"
path = "abcd$"
nth = [2]
action = "status"
status = 500
code = "OperationTimedOut"
retry_after = 3
"""


def _struck(engine: FaultEngine, count: int, **where: str) -> list[int]:
    spot = {"op": "disk.put-page", "method": "PUT", "path": "/md-x/y/abcd"} | where
    return [number for number in range(1, count + 1) if list(engine.faults(**spot))]


def test_toml_becomes_a_plan() -> None:
    plan = FaultPlan.from_toml(PLAN)
    assert plan.throttle.mib_per_second == 60
    assert plan.fault[0] == Fault(
        action="status",
        op="disk.*",
        method="PUT",
        path="abcd$",
        nth=[2],
        status=500,
        code="OperationTimedOut",
        retry_after=3,
    )


@pytest.mark.parametrize(
    "text",
    [
        "what",
        "unknown = 1",
        '[[fault]]\naction = "explode"',
        '[[fault]]\naction = "delay"\nsecs = 1',
        '[[fault]]\naction = "delay"\npath = "("',
    ],
    ids=["no-toml", "unknown-key", "unknown-action", "unknown-fault-key", "bad-regex"],
)
def test_wrong_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        FaultPlan.from_toml(text)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(action="delay"), [1, 2, 3, 4, 5, 6]),
        (Fault(action="delay", nth=[2, 5]), [2, 5]),
        (Fault(action="delay", every=3), [3, 6]),
        (Fault(action="delay", limit=2), [1, 2]),
        (Fault(action="delay", probability=0.0), []),
        (Fault(action="delay", op="blob.*"), []),
        (Fault(action="delay", method="GET"), []),
        (Fault(action="delay", path="^/other"), []),
    ],
    ids=["always", "nth", "every", "limit", "never", "other-op", "other-method", "other-path"],
)
def test_fault_strikes(fault: Fault, expected: list[int]) -> None:
    assert _struck(FaultEngine(FaultPlan(fault=[fault])), 6) == expected


def test_only_matching_requests_are_counted() -> None:
    engine = FaultEngine(FaultPlan(fault=[Fault(action="delay", op="disk.*", nth=[2])]))
    assert _struck(engine, 3, op="arm.poll") == []
    assert _struck(engine, 3) == [2]


def test_same_seed_gives_the_same_faults() -> None:
    plan = FaultPlan(seed=5, fault=[Fault(action="delay", probability=0.3)])
    first, again = _struck(FaultEngine(plan), 200), _struck(FaultEngine(plan), 200)
    assert first == again
    assert 20 < len(first) < 120


def test_throttle_takes_so_many_requests_in_a_second() -> None:
    engine = FaultEngine(FaultPlan(throttle=Throttle(requests_per_second=2)))
    at = [0.0, 0.1, 0.2, 1.05, 1.15]
    told = [engine.throttled(op="disk.put-page", length=1, now=now) for now in at]
    assert told == [False, False, True, False, False]


def test_throttle_takes_so_many_bytes_in_a_second_but_always_one_request() -> None:
    engine = FaultEngine(FaultPlan(throttle=Throttle(mib_per_second=1)))
    told = [
        engine.throttled(op="blob.put-page", length=4 << 20, now=now) for now in (0.0, 0.5, 1.1)
    ]
    assert told == [False, True, False]


def test_throttle_leaves_other_operations_alone() -> None:
    engine = FaultEngine(FaultPlan(throttle=Throttle(requests_per_second=1)))
    assert not any(engine.throttled(op="arm.poll", length=0, now=0.0) for _ in range(5))
