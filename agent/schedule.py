"""Which waiting jobs may start now: predecessors, last moments, revoked keys, the disk. Decides; the runner does.

`survey` reads the journal; `judge_start` is pure. Starts are judged, resumes are not (PROTOCOL 5).
"""

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, assert_never

from agent.journal import inbox, jobs
from agent.journal.errors import JournalUnusable
from agent.journal.jobs import Job
from agent.trust import Trust
from protocol.codec import decode
from protocol.errors import ProtocolError
from protocol.ids import key_id
from protocol.jobs import FINAL, State
from protocol.keys import KeyRing
from protocol.messages import MAX_COMMAND, Command, ManifestKey
from protocol.ops import (
    AwsS3,
    AwsSnapshot,
    AzureDisk,
    AzurePageBlob,
    GcpImage,
    LocalTarget,
    PreflightArgs,
    UploadArgs,
    parse_args,
)
from protocol.outcomes import KEY_REVOKED
from protocol.signed import parse_envelope

Claims: TypeAlias = frozenset[tuple[str, ...]]
"""The objects that a job writes to; none if it writes to none."""

START_BY = "job.start-by"
EXPIRED = "protocol.expired"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An open job with what its start depends on.

    Attributes:
        job: The row.
        predecessors: State of each predecessor, None if it is not known here.
        claims: What a started job writes to (`claims_of`).
    """

    job: Job
    predecessors: tuple[State | None, ...]
    claims: Claims = frozenset()


class Verdict(StrEnum):
    """What to do with a job that has not started."""

    START = "start"
    WAIT = "wait"


def survey(conn: sqlite3.Connection, *, waiting: bool = True) -> list[Candidate]:
    """Return every open job, oldest first; without those that wait only what has started, however long the queue."""
    found = jobs.open_jobs(conn) if waiting else jobs.started_jobs(conn)
    return [_candidate(conn, job) for job in found]


def judge_start(candidate: Candidate, trust: Trust) -> Verdict | str:
    """Return START, WAIT, or the code that refuses it for good."""
    job = candidate.job
    key = key_of(trust.ring, job.kid)
    if key is None or key.revoked is not None:
        return KEY_REVOKED
    for state in candidate.predecessors:
        if state is not None and state in FINAL and state is not State.SUCCEEDED:
            return f"job.predecessor-{state.value}"
    if job.start_by is not None and trust.expired(job.start_by):
        return START_BY
    expired = trust.expired(job.exp)
    if expired:
        return EXPIRED
    ready = all(state is State.SUCCEEDED for state in candidate.predecessors)
    return Verdict.START if ready and expired is False else Verdict.WAIT


def claims_of(command: Command) -> Claims:
    """Return what a command's job writes to: no two jobs that share one may run at the same time.

    A job may take over the unfinished disk of another line (`agent.targets.naming`); under a running one it would
    change the bytes that were read back and proven already. Case is ignored: most clouds do, elsewhere it only waits.
    """
    try:
        args = parse_args(command.op, command.args_v, command.args)
    except ProtocolError:  # of a newer release that was taken back: no stage here can run it either
        return frozenset()
    if not isinstance(args, UploadArgs) or isinstance(args, PreflightArgs):
        return frozenset()
    places: list[tuple[str, ...]]
    match args.target:
        case LocalTarget() as to:
            places = [(to.name, to.disk)]
        case AzurePageBlob() as to:
            places = [(_endpoint(to.endpoint), to.container, to.blob)]
        case AzureDisk() as to:
            group = (to.subscription, to.resource_group)
            places = [(*group, to.disk)]
            if to.gallery is not None:  # not the version: another one may be taken when it is there
                places.append((*group, "galleries", to.gallery.name, to.gallery.image))
        case GcpImage() as to:
            places = [("gcp", to.project, to.image)]
        case AwsSnapshot() | AwsS3() as to:
            places = [("aws", to.region, to.name)]
        case _:
            assert_never(args.target)
    return frozenset(tuple(part.lower() for part in place) for place in places)


def _endpoint(url: str) -> str:
    """Return an endpoint without what may be written or left out; whether it is one, its target finds out."""
    scheme, _, rest = url.lower().partition("://")
    host, slash, path = rest.partition("/")
    host = host.removesuffix(":443" if scheme == "https" else ":80")
    return f"{scheme}://{host}{slash}{path}".rstrip("/")


def claims_at(conn: sqlite3.Connection, digest: bytes) -> Claims | None:
    """Return the claims of a job that has not started, None if it is not waiting any more."""
    job = jobs.get(conn, digest)
    if job is None or job.state not in {State.ACCEPTED, State.WAITING}:
        return None
    return claims_of(command_of(conn, job))


def key_of(ring: KeyRing, kid: bytes) -> ManifestKey | None:
    """Return the command key of this id in the current key manifest, None if it is gone."""
    return next((key for key in ring.manifest.keys if key_id(key.pub) == kid), None)


def command_of(conn: sqlite3.Connection, job: Job) -> Command:
    """Return an open job's command, as it was judged and stored.

    Raises:
        JournalUnusable: The inbox lost it.
    """
    envelope = inbox.envelope_of(conn, job.epoch, job.seq)
    if envelope is None:
        raise JournalUnusable(f"the inbox holds no envelope for {job.epoch}/{job.seq}")
    return decode(parse_envelope(envelope, limit=MAX_COMMAND).p, Command, limit=MAX_COMMAND)


def _candidate(conn: sqlite3.Connection, job: Job) -> Candidate:
    if job.state in {State.RUNNING, State.CANCELLING}:
        return Candidate(job, (), claims_of(command_of(conn, job)))
    if job.state is not State.WAITING:
        return Candidate(job, ())
    after = command_of(conn, job).after
    return Candidate(job, tuple(_state(conn, ref.id, ref.digest) for ref in after))


def _state(conn: sqlite3.Connection, command_id: bytes, digest: bytes) -> State | None:
    job = jobs.get(conn, digest)
    return job.state if job is not None and job.id == command_id else None
