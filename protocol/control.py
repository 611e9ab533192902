"""The frames of the control channel: the signer dials the relay and keeps one websocket. Values only.

The signer is the truth about orders, the relay's store is a cache: on each connection the signer states what it has
(`sync`), the relay sends what lies above, live statements follow; commands are pushed from the signer's outbox and
confirmed (`pushed`) once they are durable at the relay. `call`/`reply` pass a caller's HTTP request through as opaque
bytes: the signer authenticates it itself (PROTOCOL 4, 7).

Statements of one appliance are handed on in the order in which they came from it, also after a time without a signer:
an ack that is newer than a hello, sent before it, would look like a restored journal (`protocol.standing`). The hello
of a session that lasts may be sent again after `attached`; the signer knows it by its nonce.

| direction | frame | carries |
|---|---|---|
| signer -> relay | attach | first frame: api key, and (appliance, epoch, pushed, journal, n) of every appliance |
| signer -> relay | push | one signed command, epoch, receipt, record, manifest or time for one appliance |
| signer -> relay | reply | answer to a call |
| relay -> signer | attached | what the relay holds: heads of every appliance of the signer's tenants |
| relay -> signer | pushed | a push is durable (or refused, with code) |
| relay -> signer | statement | hello, ack, nack, inventory, result of an appliance, envelope untouched |
| relay -> signer | time_wanted | an appliance asks for the time |
| relay -> signer | call | an HTTP request for the signer |
"""

from typing import Annotated, Literal, TypeAlias

import msgspec

from protocol.codec import decode
from protocol.frames import MAX_FRAME, Blob, Frame
from protocol.ids import U63, Bytes16, Digest, IdText
from protocol.messages import ResultsThrough

MAX_CONTROL_FRAME = MAX_FRAME + 1024 * 1024
MAX_CALL_BODY = 1024 * 1024
Text = Annotated[str, msgspec.Meta(max_length=4096)]


class ApplianceHead(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """What one side holds of one appliance: the last durable command and the last result.

    From the signer `results` is what it verified; from the relay what it stored. `seq` is the highest contiguous
    command.
    """

    tenant: IdText
    appliance: IdText
    epoch: U63
    seq: U63
    results: ResultsThrough | None = None
    connected: bool = False


class Attach(Frame, frozen=True, kw_only=True, tag="attach"):
    """First frame of the signer."""

    token: Annotated[str, msgspec.Meta(max_length=512)]
    appliances: tuple[ApplianceHead, ...] = ()


class Attached(Frame, frozen=True, kw_only=True, tag="attached"):
    """The relay's view, so that the signer can refill a restored relay."""

    appliances: tuple[ApplianceHead, ...] = ()


class Push(Frame, frozen=True, kw_only=True, tag="push"):
    """A signed thing for one appliance. `push` numbers pushes of this connection; the relay answers with `pushed`.

    For kind `manifest` the appliance is "*": every appliance of the tenant gets it. For `time` nothing is stored.
    """

    push: U63
    kind: Literal["command", "epoch", "receipt", "record", "manifest", "time"]
    tenant: IdText
    appliance: Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z0-9-]{1,64})\Z")]
    env: Blob


class Pushed(Frame, frozen=True, kw_only=True, tag="pushed"):
    """Answer to one push: durable (code "") or refused (`relay.seq-taken`, `relay.backlog`, ...)."""

    push: U63
    code: Annotated[str, msgspec.Meta(max_length=64)] = ""
    detail: Text = ""


class Statement(Frame, frozen=True, kw_only=True, tag="statement"):
    """A device-signed thing, untouched; `report` goes with results."""

    kind: Literal["hello", "ack", "nack", "inventory", "result"]
    tenant: IdText
    appliance: IdText
    env: Blob
    report: bytes = b""


class TimeWanted(Frame, frozen=True, kw_only=True, tag="time_wanted"):
    """Sign a time for this nonce."""

    tenant: IdText
    appliance: IdText
    nonce: Bytes16


class Call(Frame, frozen=True, kw_only=True, tag="call"):
    """An HTTP request of a caller or of an enrolling appliance, passed through."""

    call: U63
    method: Annotated[str, msgspec.Meta(max_length=16)]
    path: Text
    headers: dict[
        Annotated[str, msgspec.Meta(max_length=128)], Annotated[str, msgspec.Meta(max_length=8192)]
    ]
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_CALL_BODY)] = b""


class Reply(Frame, frozen=True, kw_only=True, tag="reply"):
    """The signer's HTTP answer."""

    call: U63
    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    headers: dict[str, str]
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_CONTROL_FRAME)] = b""


class Quarantined(Frame, frozen=True, kw_only=True, tag="quarantined"):
    """The appliance cannot consume this digest; its seq is free for another envelope."""

    tenant: IdText
    appliance: IdText
    epoch: U63
    seq: U63
    digest: Digest


FromSigner: TypeAlias = Attach | Push | Reply
ToSigner: TypeAlias = Attached | Pushed | Statement | TimeWanted | Call | Quarantined


def parse_from_signer(data: bytes) -> FromSigner:
    """Decode one frame that came from a signer. Raises FrameError."""
    return decode(data, FromSigner, limit=MAX_CONTROL_FRAME)  # type: ignore[arg-type]  # a union is no type[T]


def parse_to_signer(data: bytes) -> ToSigner:
    """Decode one frame that came from a relay. Raises FrameError."""
    return decode(data, ToSigner, limit=MAX_CONTROL_FRAME)  # type: ignore[arg-type]  # a union is no type[T]
