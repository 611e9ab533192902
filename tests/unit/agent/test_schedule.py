"""What may start: keys, predecessors, last moments."""

from typing import Any

import msgspec
import pytest

from agent.journal.jobs import Job
from agent.schedule import Candidate, Verdict, judge_start
from agent.trust import Clocks, Trust
from protocol.clock import SignedClock
from protocol.jobs import State
from protocol.messages import Revocation
from tests.support import protocol_world as w

NOW = w.T0 + w.HOUR_MS


def _job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "digest": b"d" * 32, "id": b"i" * 16, "epoch": 1, "seq": 1, "kid": w.COMMAND.kid,
        "op": "upload", "workflow": None, "state": State.ACCEPTED, "exp": NOW + 1000,
        "start_by": None, "accepted": NOW, "started": None, "attempt": 0, "checkpoint_attempt": 0,
        "origin": b"i" * 16, "retried": False, "no_return": False, "code": "",
    }  # fmt: skip
    return Job(**{**fields, **changes})


def _trust(*, fresh: bool = True, revoked: bool = False, **changes: Any) -> Trust:
    rows = list(w.manifest().keys)
    if revoked:
        revocation = Revocation(since=w.T0, running="finish")
        rows[0] = msgspec.structs.replace(rows[0], revoked=revocation)
    clock = w.fresh_clock(NOW) if fresh else SignedClock(floor=changes.pop("floor", 0))
    clocks = Clocks(boot=lambda: 0.0, wall=lambda: 0.0, mono=lambda: 0.0)
    return Trust(
        w.ring(w.manifest(keys=tuple(rows))), clock, clocks, changes.pop("accept_unproven", False)
    )


@pytest.mark.parametrize(
    ("job", "predecessors", "trust", "expected"),
    [
        ({}, (), {}, Verdict.START),
        ({}, (State.SUCCEEDED,), {}, Verdict.START),
        ({}, (State.SUCCEEDED, State.RUNNING), {}, Verdict.WAIT),
        ({}, (None,), {}, Verdict.WAIT),
        ({}, (State.SUCCEEDED, State.FAILED), {}, "job.predecessor-failed"),
        ({}, (State.CANCELLED,), {}, "job.predecessor-cancelled"),
        ({}, (State.REFUSED,), {}, "job.predecessor-refused"),
        ({"start_by": NOW - 1}, (None,), {}, "job.start-by"),
        ({"start_by": NOW + 1}, (None,), {}, Verdict.WAIT),
        ({"exp": NOW - 1}, (), {}, "protocol.expired"),
        ({}, (), {"revoked": True}, "protocol.key-revoked"),
        ({"kid": b"k" * 16}, (), {}, "protocol.key-revoked"),
        ({}, (), {"fresh": False}, Verdict.WAIT),
        ({}, (), {"fresh": False, "accept_unproven": True}, Verdict.START),
        ({}, (), {"fresh": False, "floor": NOW + 5000}, "protocol.expired"),
    ],
)
def test_each_rule(
    job: dict[str, Any],
    predecessors: tuple[State | None, ...],
    trust: dict[str, Any],
    expected: str,
) -> None:
    assert judge_start(Candidate(_job(**job), predecessors), _trust(**trust)) == expected
