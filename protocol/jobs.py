"""Jobs: states and the one table of legal transitions; what an event of a job says. Pure (PROTOCOL 5).

| state | meaning |
|---|---|
| accepted | consumed its seq, durable in the inbox, no slot yet |
| waiting | waits for a predecessor |
| running | fsynced before the first effect |
| cancelling | a cancel reached it while running |
| succeeded, failed, cancelled, refused | final |
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from protocol.errors import IllegalTransition
from protocol.ids import U63, Millis, NameText
from protocol.messages import Layout


class State(StrEnum):
    """Where a job is."""

    ACCEPTED = "accepted"
    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class JobEvent(StrEnum):
    """What may happen to a job."""

    WAIT = "wait"
    START = "start"
    RESUME = "resume"
    CANCEL = "cancel"
    REFUSE = "refuse"
    SUCCEED = "succeed"
    FAIL = "fail"
    STOPPED = "stopped"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.REFUSED})

TRANSITIONS: dict[tuple[State, JobEvent], State] = {
    (State.ACCEPTED, JobEvent.WAIT): State.WAITING,
    (State.ACCEPTED, JobEvent.START): State.RUNNING,
    (State.ACCEPTED, JobEvent.CANCEL): State.CANCELLED,
    (State.ACCEPTED, JobEvent.REFUSE): State.REFUSED,
    (State.WAITING, JobEvent.START): State.RUNNING,
    (State.WAITING, JobEvent.CANCEL): State.CANCELLED,
    (State.WAITING, JobEvent.REFUSE): State.REFUSED,
    (State.RUNNING, JobEvent.RESUME): State.RUNNING,
    (State.RUNNING, JobEvent.CANCEL): State.CANCELLING,
    (State.RUNNING, JobEvent.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, JobEvent.FAIL): State.FAILED,
    (State.CANCELLING, JobEvent.CANCEL): State.CANCELLING,
    (State.CANCELLING, JobEvent.RESUME): State.CANCELLING,
    (State.CANCELLING, JobEvent.STOPPED): State.CANCELLED,
    # past its stage's marked point of no return the job's own end stands
    (State.CANCELLING, JobEvent.SUCCEED): State.SUCCEEDED,
    (State.CANCELLING, JobEvent.FAIL): State.FAILED,
}


def advance(state: State, event: JobEvent) -> State:
    """Return the state after `event`.

    Raises:
        IllegalTransition: The table has no such row.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError as err:
        msg = f"a job that is {state.value} cannot {event.value}"
        raise IllegalTransition(msg, state=state.value, event=event.value) from err


class Progress(Layout, frozen=True, kw_only=True):
    """How far a job is. Bytes are bytes of data (holes do not count); rates are bytes a second.

    `attempt` grows when a job is resumed; within one attempt and step `done` never falls.
    """

    attempt: U63
    step: NameText
    done: U63
    total: U63
    rate: U63 = 0
    mean_rate: U63 = 0
    eta_ms: U63 | None = None
    retries: U63 = 0
    slow: NameText | None = None


class EventBody(Layout, frozen=True, kw_only=True):
    """What an event says: a state, perhaps progress, perhaps a line for people."""

    at: Millis
    state: State
    op: NameText
    progress: Progress | None = None
    message: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    code: NameText | None = None


def merge_progress(old: Progress | None, new: Progress) -> Progress:
    """Return the newer of two reports of one job: a late frame never moves progress back.

    Steps of one attempt follow each other, so another step is always news; inside a step `done` decides.
    """
    if old is None or new.attempt > old.attempt:
        return new
    if new.attempt < old.attempt:
        return old
    if new.step != old.step or new.done >= old.done:
        return new
    return old
