"""The signed layouts of protocol v1, frozen: one struct a kind, fields in wire order. Values only (PROTOCOL 2).

A header change is a new `v`, announced in `hello.caps` at least one release before it is signed. Optional fields are
left out of the map when they are None. Times are integer milliseconds UTC.
"""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from protocol.ids import U63, Bytes16, Bytes32, Digest, IdText, Millis, NameText

MAX_COMMAND = 256 * 1024
MAX_RESULT = 64 * 1024
MAX_STATEMENT = 64 * 1024
"""Hello, ack, nack, event: small by nature."""
MAX_INVENTORY = 4 * 1024 * 1024
MAX_EPOCH_ORDER = 1024 * 1024
"""Room for 10,000 final marks of about 90 bytes."""
MAX_MANIFEST = 256 * 1024
MAX_AFTER = 16

Seq = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
OutputValue = str | int | bool


class Kind(StrEnum):
    """What a signature is over; part of the signed bytes, so no signature moves between kinds."""

    MANIFEST = "manifest"
    COMMAND = "command"
    EPOCH = "epoch"
    RECEIPT = "receipt"
    TIME = "time"
    RECORD = "record"
    RELEASE = "release"
    HELLO = "hello"
    ACK = "ack"
    NACK = "nack"
    INVENTORY = "inventory"
    RESULT = "result"
    EVENT = "event"


class Role(StrEnum):
    """What a key may sign. `device` is not in the manifest: its key is in the appliance's record."""

    ROOT = "root"
    COMMAND = "command"
    TIME = "time"
    RECORD = "record"
    RELEASE = "release"
    DEVICE = "device"


class Layout(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """Base of every signed layout."""


# --- keys -------------------------------------------------------------------------------------------------


class Revocation(Layout, frozen=True, kw_only=True):
    """When a key stopped to count, and what becomes of running jobs that it ordered."""

    since: Millis
    running: Literal["stop", "finish"]


class ManifestKey(Layout, frozen=True, kw_only=True):
    """One key of the control plane. `tenants`: whom it may sign for; `["*"]` is every tenant."""

    id: IdText
    pub: Bytes32
    role: Literal["command", "time", "record", "release"]
    tenants: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z0-9-]{1,64})\Z")], ...],
        msgspec.Meta(max_length=4096),
    ]
    nbf: Millis
    exp: Millis
    revoked: Revocation | None = None


class Manifest(Layout, frozen=True, kw_only=True):
    """The keys of one control plane, signed by root. A lower serial than the trusted one is refused."""

    v: Literal[1]
    serial: U63
    issued: Millis
    keys: Annotated[tuple[ManifestKey, ...], msgspec.Meta(max_length=1024)]
    floor: Millis | None = None
    next_root: Bytes32 | None = None


class Record(Layout, frozen=True, kw_only=True):
    """The signer's statement who an appliance is: its id and its two public keys."""

    v: Literal[1]
    tenant: IdText
    id: IdText
    device_key: Bytes32
    seal_key: Bytes32
    serial: U63
    epoch: U63
    replaces: IdText | None = None
    revoked: Millis | None = None


class Release(Layout, frozen=True, kw_only=True):
    """Bits that an appliance may run, signed by a key that is never on the signer's host."""

    name: NameText
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z.+-]{1,64}\Z")]
    sha256: Digest
    size: U63
    min_agent: Annotated[str, msgspec.Meta(max_length=64)]
    lowest_allowed: Annotated[str, msgspec.Meta(max_length=64)]


# --- orders -----------------------------------------------------------------------------------------------


class After(Layout, frozen=True, kw_only=True):
    """A command that must have succeeded before this one starts, and whose key its result must carry."""

    id: Bytes16
    audience: IdText
    device_key: Bytes32
    digest: Digest


class CommandRef(Layout, frozen=True, kw_only=True):
    """One command, by id and by the digest of its payload."""

    id: Bytes16
    digest: Digest


class ResultsThrough(Layout, frozen=True, kw_only=True):
    """Results up to and including `n` of this journal's life are durable at the signer."""

    journal: Bytes16
    n: U63


class Command(Layout, frozen=True, kw_only=True):
    """An order to one appliance: header v1. `args` is the op's own msgpack map (protocol.ops)."""

    v: Literal[1]
    id: Bytes16
    tenant: IdText
    audience: IdText
    epoch: U63
    seq: Seq
    prev: Digest
    op: NameText
    args_v: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    iat: Millis
    exp: Millis
    args: Annotated[bytes, msgspec.Meta(max_length=MAX_COMMAND)]
    start_by: Millis | None = None
    after: Annotated[tuple[After, ...], msgspec.Meta(max_length=MAX_AFTER)] = ()
    retry_of: CommandRef | None = None
    workflow: IdText | None = None
    results_through: ResultsThrough | None = None


class FinalMark(Layout, frozen=True, kw_only=True):
    """A command that ended, as the signer knows it."""

    id: Bytes16
    digest: Digest
    status: Literal["succeeded", "failed", "cancelled", "refused"]


class Epoch(Layout, frozen=True, kw_only=True):
    """Begin a new epoch of orders: compare-and-swap on (from, have, head). `head` is the old epoch's head."""

    v: Literal[1]
    tenant: IdText
    appliance: IdText
    from_: U63 = msgspec.field(name="from")
    to: U63
    have: U63
    head: Digest
    final: Annotated[tuple[FinalMark, ...], msgspec.Meta(max_length=10_000)]


class Receipt(Layout, frozen=True, kw_only=True):
    """Results that are durable at the signer, outside of any command."""

    v: Literal[1]
    tenant: IdText
    appliance: IdText
    journal: Bytes16
    n: U63


class Time(Layout, frozen=True, kw_only=True):
    """Signed time: the answer to one nonce of one appliance."""

    nonce: Bytes16
    appliance: IdText
    now: Millis
    manifest_serial: U63
    epoch: U63
    seen: U63
    link: Bytes16


# --- statements of the device -----------------------------------------------------------------------------


class Hello(Layout, frozen=True, kw_only=True):
    """Who connects and what it holds; answers the relay's challenge and asks for the time with `nonce`."""

    tenant: IdText
    appliance: IdText
    challenge: Bytes32
    nonce: Bytes16
    link: Annotated[bytes, msgspec.Meta(max_length=16)]
    epoch: U63
    have: U63
    head: Digest
    journal: Bytes16
    results_last: U63
    confirmed: U63
    manifest_serial: U63
    seal_kid: Bytes16
    caps: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9./-]{1,64}\Z")], ...],
        msgspec.Meta(max_length=256),
    ]


class Ack(Layout, frozen=True, kw_only=True):
    """Everything up to `have` is durable in the inbox; `head` is the chain's hash there."""

    epoch: U63
    have: U63
    head: Digest


class Nack(Layout, frozen=True, kw_only=True):
    """An envelope that cannot be consumed; its seq stays free for another one."""

    epoch: U63
    have: U63
    digest: Digest
    code: NameText


class InventoryItem(Layout, frozen=True, kw_only=True):
    """One command that is not final, or whose result the signer has not confirmed."""

    id: Bytes16
    digest: Digest
    state: Literal[
        "accepted",
        "waiting",
        "running",
        "cancelling",
        "succeeded",
        "failed",
        "cancelled",
        "refused",
    ]
    n: U63 | None = None


class Inventory(Layout, frozen=True, kw_only=True):
    """All of them, after a change of epoch."""

    epoch: U63
    have: U63
    head: Digest
    journal: Bytes16
    commands: Annotated[tuple[InventoryItem, ...], msgspec.Meta(max_length=20_000)]


class Output(Layout, frozen=True, kw_only=True):
    """One thing that a job made or found: a typed, flat record that successors may name (PROTOCOL 6)."""

    name: NameText
    type: NameText
    value: dict[Annotated[str, msgspec.Meta(max_length=64)], OutputValue]


class Result(Layout, frozen=True, kw_only=True):
    """The final word on one command. Numbered without gaps in one journal's life."""

    v: Literal[1]
    tenant: IdText
    appliance: IdText
    journal: Bytes16
    n: Seq
    id: Bytes16
    digest: Digest
    epoch: U63
    seq: Seq
    op: NameText
    status: Literal["succeeded", "failed", "cancelled", "refused"]
    attempt: U63
    ended: Millis
    outputs: Annotated[tuple[Output, ...], msgspec.Meta(max_length=64)]
    workflow: IdText | None = None
    code: NameText | None = None
    started: Millis | None = None
    report_digest: Digest | None = None
    root: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")] | None = None


class Event(Layout, frozen=True, kw_only=True):
    """Progress or a state change of a job: `body` is an `EventBody`. Consumers drop n <= the last one seen."""

    v: Literal[1]
    tenant: IdText
    appliance: IdText
    journal: Bytes16
    id: Bytes16
    n: Seq
    body: Annotated[bytes, msgspec.Meta(max_length=16 * 1024)]
