"""What a cancel, a crash, a revoked key and an epoch do to jobs."""

import itertools
from typing import Any

import msgspec
import pytest

from protocol.inbox import EPOCH_RAISED
from protocol.jobs import FINAL, TRANSITIONS, JobEvent, State
from protocol.messages import Epoch, FinalMark
from protocol.outcomes import (
    CRASH_LOOP,
    KEY_REVOKED,
    CancelFound,
    Close,
    Step,
    cancel_target,
    on_epoch,
    on_revoked,
    resume,
    same_outcome,
)
from tests.support import protocol_world as w


@pytest.mark.parametrize("state", State, ids=str)
def test_a_cancel_names_what_it_found_and_its_step_is_legal(state: State) -> None:
    found = cancel_target(state, same_digest=True)
    if state in FINAL:
        assert found == CancelFound("final", None)
    else:
        assert found.found == ("unstarted" if state in {"accepted", "waiting"} else "running")
        assert found.step is not None
        assert (state, found.step.event) in TRANSITIONS


def test_a_cancel_of_an_unknown_or_other_command_does_nothing() -> None:
    assert cancel_target(None, same_digest=False) == CancelFound("unknown", None)
    assert cancel_target(State.RUNNING, same_digest=False) == CancelFound("unknown", None)


def test_three_attempts_without_a_checkpoint_are_a_crash_loop() -> None:
    assert resume(attempt=2, checkpoint_attempt=0) == Step(JobEvent.RESUME)
    assert resume(attempt=3, checkpoint_attempt=0) == Step(JobEvent.FAIL, CRASH_LOOP)


def test_a_checkpoint_forgives_the_attempts_before_it() -> None:
    assert resume(attempt=5, checkpoint_attempt=3).event is JobEvent.RESUME
    assert resume(attempt=6, checkpoint_attempt=3).event is JobEvent.FAIL


@pytest.mark.parametrize(("state", "running"), list(itertools.product(State, ("stop", "finish"))))
def test_a_revoked_key_ends_what_was_not_started(state: State, running: Any) -> None:
    step = on_revoked(state, running=running)
    if state in {State.ACCEPTED, State.WAITING}:
        assert step == Step(JobEvent.REFUSE, KEY_REVOKED)
    elif state is State.RUNNING and running == "stop":
        assert step == Step(JobEvent.CANCEL, KEY_REVOKED)
    else:
        assert step is None


def test_an_epoch_closes_what_it_names_refuses_what_waits_and_leaves_what_runs() -> None:
    mark = FinalMark(id=b"1" * 16, digest=b"1" * 32, status="failed")
    order = Epoch(
        v=1, tenant="t", appliance="a", from_=1, to=2, have=0, head=bytes(32), final=(mark,)
    )
    jobs = [
        (b"1" * 16, b"1" * 32, State.RUNNING),
        (b"2" * 16, b"2" * 32, State.WAITING),
        (b"3" * 16, b"3" * 32, State.RUNNING),
        (b"4" * 16, b"4" * 32, State.CANCELLING),
    ]
    assert on_epoch(order, jobs) == {
        b"1" * 16: Close(mark),
        b"2" * 16: Step(JobEvent.REFUSE, EPOCH_RAISED),
    }


def test_a_final_mark_of_another_digest_closes_nothing() -> None:
    mark = FinalMark(id=b"1" * 16, digest=b"x" * 32, status="failed")
    order = Epoch(
        v=1, tenant="t", appliance="a", from_=1, to=2, have=0, head=bytes(32), final=(mark,)
    )
    assert on_epoch(order, [(b"1" * 16, b"1" * 32, State.RUNNING)]) == {}


RESULT = w.result()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"journal": b"K" * 16, "n": 1}, True),
        ({"status": "failed"}, False),
        ({"code": "job.failed"}, False),
        ({"outputs": ()}, False),
        ({"root": "sha256:" + "0" * 64}, False),
        ({"report_digest": b"r" * 32}, False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else "-".join(value),
)
def test_two_results_are_the_same_outcome_in_another_life_only(
    changes: dict[str, Any], same: bool
) -> None:
    assert same_outcome(RESULT, msgspec.structs.replace(RESULT, **changes)) is same
