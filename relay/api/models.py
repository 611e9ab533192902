"""What REST takes and answers, as structs: the OpenAPI document is made from them.

Ids and digests are hex, bytes base64, times ms UTC.
"""

from typing import Annotated, Any, Literal

import msgspec

from protocol.ids import IdText, NameText
from protocol.jobs import Progress
from protocol.messages import MAX_COMMAND

Hex16 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Ms = Annotated[int, msgspec.Meta(ge=0, description="Milliseconds UTC since 1970")]
Cursor = Annotated[str, msgspec.Meta(max_length=256, description="`next` of the page before")]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=500)]
JobStateName = Literal[
    "queued",
    "quarantined",
    "accepted",
    "waiting",
    "running",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
    "refused",
]


class Model(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Base of every answer and query."""


# --- queries ---


class NoQuery(Model, frozen=True, kw_only=True):
    """No parameters."""


class PageQuery(Model, frozen=True, kw_only=True):
    """One page of a list."""

    limit: PageSize = 100
    cursor: Cursor = ""


class JobsQuery(PageQuery, frozen=True, kw_only=True):
    """One page of the jobs, newest first."""

    appliance: IdText | None = None
    state: JobStateName | None = None


class StreamQuery(Model, frozen=True, kw_only=True):
    """Where a stream begins; `Last-Event-ID` counts more."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None


class EnrolQuery(Model, frozen=True, kw_only=True):
    """Which tenant's signer an enrolment is for, where the relay has several."""

    tenant: IdText | None = None


# --- bodies ---


class CommandBody(Model, frozen=True, kw_only=True):
    """A finished envelope in JSON; `application/msgpack` takes the bare bytes."""

    envelope: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_COMMAND * 2)]


# --- answers ---


class CommandAnswer(Model, frozen=True, kw_only=True, omit_defaults=False):
    """The command is stored durably."""

    id: Hex16
    digest: Hex32
    appliance: IdText
    epoch: int
    seq: int


class ResultView(Model, frozen=True, kw_only=True):
    """The device-signed end of a job; `envelope` is the proof, the rest a reading of it."""

    status: str
    ended: Ms
    attempt: int
    outputs: list[dict[str, Any]]
    envelope: bytes
    started: Ms | None = None
    code: str | None = None
    root: str | None = None
    report: Annotated[Any, msgspec.Meta(description="The agent's report (JSON)")] = None


class JobView(Model, frozen=True, kw_only=True):
    """One job."""

    id: Hex16
    appliance: IdText
    op: NameText
    epoch: int
    seq: int
    digest: Hex32
    state: JobStateName
    created: Ms
    updated: Ms
    workflow: str | None = None
    progress: Progress | None = None
    message: str | None = None
    code: str | None = None
    result: ResultView | None = None


class JobPage(Model, frozen=True, kw_only=True, omit_defaults=False):
    """Jobs, newest first."""

    items: list[JobView]
    next: str | None


class ApplianceView(Model, frozen=True, kw_only=True, omit_defaults=False):
    """One appliance. `since`: when `connected` last changed."""

    id: IdText
    connected: bool
    since: Ms
    last_seen: Ms
    generation: int
    epoch: int
    have: int
    queued: int
    results: int


class AppliancePage(Model, frozen=True, kw_only=True, omit_defaults=False):
    """Appliances by id."""

    items: list[ApplianceView]
    next: str | None


class AuditView(Model, frozen=True, kw_only=True, omit_defaults=False):
    """One entry. `hash` = SHA-256(hash before + msgpack [n, at, actor, action, subject, detail])."""

    n: int
    at: Ms
    actor: str
    action: str
    subject: str
    detail: str
    hash: Hex32


class AuditPage(Model, frozen=True, kw_only=True, omit_defaults=False):
    """Audit entries, oldest first."""

    items: list[AuditView]
    next: str | None


class RecordView(Model, frozen=True, kw_only=True, omit_defaults=False):
    """An appliance's record: verify it with the record key of a key manifest that you verified."""

    serial: int
    record: bytes


class KeysView(Model, frozen=True, kw_only=True, omit_defaults=False):
    """The tenant's key manifest: verify it with the root key that you pinned."""

    serial: int
    manifest: bytes


class ArtifactView(Model, frozen=True, kw_only=True, omit_defaults=False):
    """How far an upload is; it is finished when `received` equals `size`."""

    sha256: Hex32
    size: int
    received: int


class Health(Model, frozen=True, kw_only=True, omit_defaults=False):
    """The process lives (`/healthz`) or can serve (`/readyz`)."""

    status: Literal["ok"]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457; `code` is stable, and `type` is a URN of it. Further members depend on the code."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    fix: str | None = None
