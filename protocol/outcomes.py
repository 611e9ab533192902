"""What becomes of a job when something other than its own work decides: cancel, revoked key, epoch, crash, old age.

Pure rules over (state, facts); each answer is applied in the transaction that it belongs to. The table of legal
transitions is `protocol.jobs`; the order state is `protocol.inbox`. PROTOCOL 4 and 5.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from protocol.inbox import EPOCH_RAISED
from protocol.jobs import FINAL, JobEvent, State
from protocol.messages import Epoch, FinalMark, Result

MAX_IDLE_ATTEMPTS = 3
"""Attempts that ended with the process and left no new checkpoint; the next one would only do it again."""
CRASH_LOOP = "job.crash-loop"
KEY_REVOKED = "protocol.key-revoked"

Found: TypeAlias = Literal["unstarted", "running", "final", "unknown"]


@dataclass(frozen=True, slots=True)
class Step:
    """Apply `event` to the job (`protocol.jobs.advance`); `code` goes into its result if the new state is final."""

    event: JobEvent
    code: str = ""


@dataclass(frozen=True, slots=True)
class CancelFound:
    """What a cancel found, and what it does to its target: `step` is None if there is nothing to do."""

    found: Found
    step: Step | None


def cancel_target(state: State | None, *, same_digest: bool) -> CancelFound:
    """Judge a cancel in its acceptance transaction.

    The cancel's own result is `succeeded` with an output that names `found`; the target's own result is the outcome.

    Args:
        state: The target's state, None if its id is not in the journal.
        same_digest: Whether the journal's digest of that id is the one that the cancel names.
    """
    if state is None or not same_digest:
        return CancelFound("unknown", None)
    if state in FINAL:
        return CancelFound("final", None)
    if state in {State.ACCEPTED, State.WAITING}:
        return CancelFound("unstarted", Step(JobEvent.CANCEL, "job.cancelled"))
    return CancelFound("running", Step(JobEvent.CANCEL, "job.cancelled"))


def resume(*, attempt: int, checkpoint_attempt: int) -> Step:
    """Judge a job that was running when the process ended.

    Args:
        attempt: Number of the attempt that ended with the process; the first is 1.
        checkpoint_attempt: Attempt that stored the newest checkpoint, 0 if none did.

    Returns:
        RESUME (as attempt + 1), or FAIL when three attempts in a row got nowhere.
    """
    if attempt - checkpoint_attempt >= MAX_IDLE_ATTEMPTS:
        return Step(JobEvent.FAIL, CRASH_LOOP)
    return Step(JobEvent.RESUME)


def on_revoked(state: State, *, running: Literal["stop", "finish"]) -> Step | None:
    """Judge one job whose command key was revoked; looked at on acceptance, start and resume.

    Unstarted jobs are refused; running ones are stopped (as by a cancel, with this code) or may finish.
    """
    if state in {State.ACCEPTED, State.WAITING}:
        return Step(JobEvent.REFUSE, KEY_REVOKED)
    if state is State.RUNNING and running == "stop":
        return Step(JobEvent.CANCEL, KEY_REVOKED)
    return None


@dataclass(frozen=True, slots=True)
class Close:
    """The signer knows how this command ended: take its word, drop the job's intents, number no result."""

    mark: FinalMark


def on_epoch(order: Epoch, jobs: Iterable[tuple[bytes, bytes, State]]) -> dict[bytes, Step | Close]:
    """Return what an epoch order does to each job of the journal, by id; jobs that are not named go on as they are.

    Args:
        order: The epoch order that was taken.
        jobs: (id, digest, state) of every job that is not final.
    """
    marks = {(mark.id, mark.digest): mark for mark in order.final}
    what: dict[bytes, Step | Close] = {}
    for job, digest, state in jobs:
        mark = marks.get((job, digest))
        if mark is not None:
            what[job] = Close(mark)
        elif state in {State.ACCEPTED, State.WAITING}:
            what[job] = Step(JobEvent.REFUSE, EPOCH_RAISED)
    return what


def same_outcome(first: Result, second: Result) -> bool:
    """Whether two results of one command say the same; the journal's life and the number in it may differ."""
    return _outcome(first) == _outcome(second)


def _outcome(result: Result) -> tuple[object, ...]:
    return (
        result.id,
        result.digest,
        result.op,
        result.status,
        result.code,
        result.outputs,
        result.root,
        result.report_digest,
    )
