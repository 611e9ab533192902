"""The transactions that begin and end a job's attempt, on the writer's connection.

The row is read again inside every transaction: a cancel, an epoch or a revoked key may have come first.
"""

import sqlite3
from dataclasses import dataclass, replace

from agent.journal import jobs, results
from agent.journal.jobs import Job
from agent.journal.results import Author, Ending
from agent.journal.state import store_state
from agent.schedule import command_of
from protocol.inbox import InboxState
from protocol.jobs import JobEvent, State
from protocol.messages import Command
from protocol.outcomes import Step, resume

_UNSTARTED = {State.ACCEPTED, State.WAITING}
_STARTED = {State.RUNNING, State.CANCELLING}


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that may begin now: its row and its command."""

    job: Job
    command: Command


def start(conn: sqlite3.Connection, digest: bytes, *, now: int) -> Begun | None:
    """Begin attempt 1; None if the job is not waiting any more."""
    job = jobs.get(conn, digest)
    if job is None or job.state not in _UNSTARTED:
        return None
    return Begun(jobs.begin(conn, job, now=now), command_of(conn, job))


def go_on(conn: sqlite3.Connection, digest: bytes) -> Begun | Step | None:
    """Begin the next attempt of a job that a process left behind; a Step ends its crash loop; None: it is over."""
    job = jobs.get(conn, digest)
    if job is None or job.state not in _STARTED:
        return None
    step = resume(attempt=job.attempt, checkpoint_attempt=job.checkpoint_attempt)
    if step.event is not JobEvent.RESUME:
        return step
    return Begun(jobs.resume(conn, job), command_of(conn, job))


def stop(conn: sqlite3.Connection, digest: bytes, *, code: str) -> Job | None:
    """Move a running job to cancelling for a reason of our own (a revoked key); None if it is not running."""
    job = jobs.get(conn, digest)
    if job is None or job.state is not State.RUNNING or job.no_return:
        return None
    return jobs.move(conn, job, JobEvent.CANCEL, code=code)


def end(
    conn: sqlite3.Connection,
    state: InboxState,
    digest: bytes,
    event: JobEvent,
    *,
    ending: Ending,
    author: Author,
    now: int,
) -> tuple[Job, InboxState] | None:
    """Make the job final with its result; None if the signer closed it meanwhile.

    Returns:
        The row and the order state, as they are durable after this transaction.
    """
    job = jobs.get(conn, digest)
    if job is None or job.final:
        return None
    job = jobs.move(conn, job, event, code=job.code or ending.code or "")
    if job.state is State.CANCELLED and job.code:
        ending = replace(ending, code=job.code)
    state = results.finish(conn, state, job, author=author, ending=ending, now=now)
    store_state(conn, state)
    return job, state
