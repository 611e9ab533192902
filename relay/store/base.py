"""The store's interface and its rows. What is kept, never how; every method names the tenant it works for.

The store is a cache of the control plane's truth plus the history that people read: a restored older one is refilled
by the signer and the agents (PROTOCOL 4). Every writing method is one transaction that is durable when it returns, and
either happened whole or not at all; only `ack` and `update` may be taken back by a loss of power, because the agent's
next hello and events say the same again. Times are integer milliseconds UTC, ids and digests raw bytes.

Event ids grow strictly, also over restarts and restores: `max(last + 1, now_ms * 1000)`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from protocol.jobs import EventBody, Progress

MAX_BACKLOG = 1_000
"""Undelivered commands that one appliance may have (PROTOCOL 3)."""
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
RESPONSE_KEPT_MS = 24 * 3600 * 1000
"""How long an Idempotency-Key is remembered."""

KeptKind: TypeAlias = Literal[
    "manifest", "record", "epoch", "receipt", "hello", "ack", "nack", "inventory"
]
NEWEST_WINS: frozenset[str] = frozenset({"receipt", "hello", "ack", "nack", "inventory"})
"""Kinds that come without a serial of their own: what came last is the newest."""

JobState: TypeAlias = str
"""A `protocol.jobs.State`, `queued` (stored, not acknowledged) or `quarantined` (the agent's verifier refused it)."""

EVERYWHERE = "*"
"""The appliance of a key manifest, and the tenant of a control key."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest signed thing of one kind: its envelope, untouched, and the number that orders it."""

    kind: KeptKind
    serial: int
    env: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Command:
    """One envelope in an appliance's queue."""

    tenant: str
    appliance: str
    epoch: int
    seq: int
    digest: bytes
    id: bytes
    op: str
    iat: int
    exp: int
    workflow: str | None
    env: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """One device-signed result with its report."""

    journal: bytes
    n: int
    id: bytes
    digest: bytes
    epoch: int
    seq: int
    op: str
    status: str
    code: str | None
    workflow: str | None
    env: bytes
    report: bytes = b""


@dataclass(frozen=True, slots=True)
class ResultsKept:
    """What became of a batch of results.

    Attributes:
        through: Highest n up to which every result of that journal is durable here (or confirmed by the signer).
        clashes: Results that contradict one already kept: `appliance.equivocation`. The first one stands.
    """

    through: int
    clashes: tuple[Result, ...] = ()


@dataclass(frozen=True, slots=True)
class Appliance:
    """One appliance as the relay sees it."""

    tenant: str
    id: str
    generation: int = 0
    connected: bool = False
    since: int = 0
    last_seen: int = 0
    epoch: int = 0
    have: int = 0
    journal: bytes = b""
    through: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """How far the relay is with one appliance: contiguous commands of the epoch, and results of its journal."""

    tenant: str
    appliance: str
    epoch: int
    seq: int
    journal: bytes
    n: int
    connected: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One command's life as people read it."""

    tenant: str
    id: bytes
    appliance: str
    op: str
    epoch: int
    seq: int
    digest: bytes
    state: JobState
    created: int
    updated: int
    order: int
    workflow: str | None = None
    progress: Progress | None = None
    progress_event: int = 0
    event_journal: bytes = b""
    event_n: int = 0
    message: str | None = None
    code: str | None = None
    result: bytes | None = None
    report: bytes = b""


@dataclass(frozen=True, slots=True)
class Update:
    """A verified event of an agent."""

    journal: bytes
    id: bytes
    n: int
    body: EventBody


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One entry of the event stream. `data` is JSON; `kind` is its SSE event name."""

    id: int
    kind: Literal["state", "progress", "appliance"]
    at: int
    job: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer under an Idempotency-Key."""

    caller: str
    key: str
    body_hash: bytes
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished file: its bytes lie beside the database."""

    sha256: bytes
    size: int
    at: int


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of a tenant's audit log; `hash` covers it and the hash before it (relay.store.rules)."""

    n: int
    at: int
    actor: str
    action: str
    subject: str
    detail: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A verified connection: its generation fences presence, `through` is where results go on."""

    generation: int
    through: int


class Store(Protocol):
    """All methods may be called from the event loop's thread only, concurrently; a cancelled write may still happen.

    Raises everywhere: StoreFull, StoreError; nothing of that call was kept.
    """

    async def keep(
        self, tenant: str, appliance: str, item: Kept, *, actor: str, now: int
    ) -> Literal["new", "same", "stale"]:
        """Keep the newest signed thing of a kind. A lower serial, or other bytes under the same one, is stale.

        An `epoch` or `record` whose very payload another key signed replaces the one that is held. NEWEST_WINS kinds
        are never stale. An `epoch` retires undelivered commands of lower epochs.
        """
        ...

    async def kept(self, tenant: str, appliance: str, kind: KeptKind) -> Kept | None:
        """Return the newest signed thing of a kind."""
        ...

    async def open_link(
        self,
        tenant: str,
        appliance: str,
        *,
        epoch: int,
        have: int,
        journal: bytes,
        confirmed: int,
        now: int,
    ) -> Link:
        """Mark online and allocate the next generation; results of `journal` count from max(kept, confirmed)."""
        ...

    async def close_link(self, tenant: str, appliance: str, *, generation: int, now: int) -> bool:
        """Mark offline; a generation that is not the newest changes nothing and returns False."""
        ...

    async def add_command(
        self, command: Command, *, actor: str, answer: Answer | None, now: int
    ) -> Literal["new", "same"]:
        """Queue an envelope with its job row, and the answer to the caller in the same transaction.

        Raises:
            SeqTaken, EnvelopeQuarantined, Backlog.
        """
        ...

    async def commands(
        self, tenant: str, appliance: str, *, epoch: int, seq: int, limit: int
    ) -> tuple[Command, ...]:
        """Return the envelopes from `seq` on that may be offered, without a gap, at most `limit`."""
        ...

    async def ack(
        self, tenant: str, appliance: str, *, epoch: int, have: int, env: bytes, now: int
    ) -> bool:
        """Note that everything up to `have` of `epoch` is delivered; False if that was known."""
        ...

    async def quarantine(
        self, tenant: str, appliance: str, digest: bytes, *, code: str, nack: Kept, now: int
    ) -> Command | None:
        """Never offer this envelope again; its seq is free. None if there is no such envelope in the queue.

        Its `nack` is kept in the same transaction, for a signer that is away. One that condemns nothing in the queue is
        not kept: it would take the place of one that does.
        """
        ...

    async def drop_damaged(
        self, tenant: str, appliance: str, *, epoch: int, seq: int, name: bytes, now: int
    ) -> Command | None:
        """Forget the waiting envelope whose stored bytes have this SHA-256: they are not what was signed.

        Its own digest stays welcome. None if the bytes there are others, or none.
        """
        ...

    async def add_results(
        self, tenant: str, appliance: str, results: tuple[Result, ...], *, now: int
    ) -> ResultsKept:
        """Keep results of one journal and end their jobs. A job that is unknown here is made from its result."""
        ...

    async def results(
        self, tenant: str, appliance: str, *, journal: bytes, after: int, limit: int
    ) -> tuple[Result, ...]:
        """Return results of one journal above `after`, by n."""
        ...

    async def journals(self, tenant: str, appliance: str) -> tuple[bytes, ...]:
        """Return every journal that this appliance sent results from, oldest first."""
        ...

    async def update(self, tenant: str, appliance: str, update: Update, *, now: int) -> bool:
        """Apply an agent's event to its job; False for late, unknown or other appliances' ones."""
        ...

    async def job(self, tenant: str, job: bytes) -> Job | None:
        """Return one job."""
        ...

    async def jobs(
        self, tenant: str, *, before: int, limit: int, appliance: str = "", state: str = ""
    ) -> tuple[Job, ...]:
        """Return jobs with `order` < before (0: from the newest), newest first; reports are left out."""
        ...

    async def events(
        self, tenant: str, *, after: int, limit: int, job: bytes = b""
    ) -> tuple[LogEvent, ...]:
        """Return state changes and each job's latest progress with an id above `after`, by id."""
        ...

    async def appliance(self, tenant: str, appliance: str) -> Appliance | None:
        """Return one appliance."""
        ...

    async def appliances(self, tenant: str, *, after: str, limit: int) -> tuple[Appliance, ...]:
        """Return appliances with an id above `after`, by id."""
        ...

    async def heads(self, tenant: str) -> tuple[Head, ...]:
        """Return the head of every appliance of a tenant (`*`: of all)."""
        ...

    async def save_answer(self, tenant: str, answer: Answer, *, now: int) -> None:
        """Remember an answer for RESPONSE_KEPT_MS; the first one under a key stands."""
        ...

    async def answer(self, tenant: str, caller: str, key: str, *, now: int) -> Answer | None:
        """Return what was answered under this key."""
        ...

    async def put_artifact(
        self, tenant: str, artifact: Artifact, *, actor: str, now: int
    ) -> Literal["new", "same"]:
        """Register a finished file."""
        ...

    async def artifact(self, tenant: str, sha256: bytes) -> Artifact | None:
        """Return a finished file's row."""
        ...

    async def note(
        self, tenant: str, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> None:
        """Append to the audit log."""
        ...

    async def audit(self, tenant: str, *, after: int, limit: int) -> tuple[AuditEntry, ...]:
        """Return audit entries above number `after`, by number (from 1, without gaps, a chain per tenant)."""
        ...

    async def close(self) -> None:
        """Finish what is queued and let go of the database. Safe to call twice."""
        ...
