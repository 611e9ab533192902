"""The frames of the agent channel: one msgpack map a websocket message, tagged by `t`. Values only.

Signed things travel inside as opaque envelope bytes (`env`); everything else here is unsigned, so it can only delay:
nothing in this file decides what an appliance does (PROTOCOL 1).

| direction | frame | carries |
|---|---|---|
| relay -> agent | challenge, welcome, command, epoch, receipt, manifest, record, time, stored, credit, going_away | |
| agent -> relay | hello, fetch, ack, nack, inventory, result, event, time_request, credit | |
"""

from typing import Annotated, TypeAlias

import msgspec

from protocol.codec import decode, encode
from protocol.ids import U63, Bytes16, Bytes32, IdText
from protocol.messages import MAX_EPOCH_ORDER, MAX_INVENTORY, MAX_RESULT, ResultsThrough

MAX_FRAME = MAX_INVENTORY + 64 * 1024
"""Largest frame either way: an inventory."""
MAX_FRAME_TO_AGENT = MAX_EPOCH_ORDER + 64 * 1024
"""Largest frame of the relay: an epoch order."""
MAX_HELLO_FRAME = 64 * 1024
"""Largest frame before the hello was verified."""
MAX_DELAY_S = 300
"""Upper bound of going_away.after + going_away.spread, in seconds: an unsigned frame may not send us away for long."""
MIN_CREDIT = 4
"""Results or commands that may always be in flight, whatever credit was given."""

CLOSE_SUPERSEDED = 4001
"""Websocket close code: a newer verified connection of this appliance took over."""
CLOSE_PROTOCOL = 4002
"""Websocket close code: what came is no frame that this state allows (reason = error code)."""
CLOSE_REFUSED = 4003
"""Websocket close code: the hello was not accepted (reason = error code)."""
CLOSE_GOING_AWAY = 4004
"""Websocket close code: the relay stops; come back as going_away said."""

Blob = Annotated[bytes, msgspec.Meta(max_length=MAX_FRAME)]


class Frame(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag_field="t",
):
    """Base of every frame."""


class Challenge(Frame, frozen=True, kw_only=True, tag="challenge"):
    """First frame of the relay: sign these bytes in your hello."""

    challenge: Bytes32
    caps: tuple[Annotated[str, msgspec.Meta(max_length=64)], ...] = ()


class HelloFrame(Frame, frozen=True, kw_only=True, tag="hello"):
    """The agent's signed hello. `tenant` and `appliance` route it; what counts is inside."""

    tenant: IdText
    appliance: IdText
    env: Blob


class Welcome(Frame, frozen=True, kw_only=True, tag="welcome"):
    """The hello was verified. `results`: highest contiguous result that the relay holds durably of this journal."""

    generation: U63
    results: ResultsThrough | None = None
    manifest_serial: U63 = 0
    signer_online: bool = False


class Fetch(Frame, frozen=True, kw_only=True, tag="fetch"):
    """Send me commands of `epoch` from `seq` on, and new ones as they come. Also the answer to a gap."""

    epoch: U63
    seq: U63


class CommandFrame(Frame, frozen=True, kw_only=True, tag="command"):
    """One command's envelope; epoch and seq only route it."""

    epoch: U63
    seq: U63
    env: Blob


class EpochFrame(Frame, frozen=True, kw_only=True, tag="epoch"):
    """An epoch order's envelope."""

    env: Blob


class ReceiptFrame(Frame, frozen=True, kw_only=True, tag="receipt"):
    """A receipt's envelope."""

    env: Blob


class ManifestFrame(Frame, frozen=True, kw_only=True, tag="manifest"):
    """A key manifest's envelope."""

    env: Blob


class RecordFrame(Frame, frozen=True, kw_only=True, tag="record"):
    """The appliance's record, when the signer issued a newer one."""

    env: Blob


class TimeFrame(Frame, frozen=True, kw_only=True, tag="time"):
    """A signed time."""

    env: Blob


class TimeRequest(Frame, frozen=True, kw_only=True, tag="time_request"):
    """Ask the signer for the time."""

    nonce: Bytes16


class AckFrame(Frame, frozen=True, kw_only=True, tag="ack"):
    """A device-signed ack."""

    env: Blob


class NackFrame(Frame, frozen=True, kw_only=True, tag="nack"):
    """A device-signed nack."""

    env: Blob


class InventoryFrame(Frame, frozen=True, kw_only=True, tag="inventory"):
    """A device-signed inventory."""

    env: Blob


class ResultFrame(Frame, frozen=True, kw_only=True, tag="result"):
    """A device-signed result and the report (JSON, UTF-8) that its `report_digest` names."""

    env: Blob
    report: Annotated[bytes, msgspec.Meta(max_length=MAX_RESULT)] = b""


class EventFrame(Frame, frozen=True, kw_only=True, tag="event"):
    """A device-signed event."""

    env: Blob


class Stored(Frame, frozen=True, kw_only=True, tag="stored"):
    """Results up to this one are durable at the relay (flow control; only a receipt confirms)."""

    results: ResultsThrough


class Credit(Frame, frozen=True, kw_only=True, tag="credit"):
    """The sender of this frame takes up to `n` unanswered things at a time.

    From the relay: results that it has not called `stored`. From the agent: commands that it has not acknowledged. The
    newest one holds (it is a window, no account to add up), and less than MIN_CREDIT counts as MIN_CREDIT.
    """

    n: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class GoingAway(Frame, frozen=True, kw_only=True, tag="going_away"):
    """The relay stops: reconnect after `after` seconds plus a random part of `spread` seconds."""

    after: Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_S)]
    spread: Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_S)]


FromRelay: TypeAlias = (
    Challenge
    | Welcome
    | CommandFrame
    | EpochFrame
    | ReceiptFrame
    | ManifestFrame
    | RecordFrame
    | TimeFrame
    | Stored
    | Credit
    | GoingAway
)
FromAgent: TypeAlias = (
    HelloFrame
    | Fetch
    | AckFrame
    | NackFrame
    | InventoryFrame
    | ResultFrame
    | EventFrame
    | TimeRequest
    | Credit
)


def parse_from_relay(data: bytes) -> FromRelay:
    """Decode one frame that came from a relay. Raises FrameError."""
    return decode(data, FromRelay, limit=MAX_FRAME_TO_AGENT)  # type: ignore[arg-type]  # a union is no type[T]


def parse_from_agent(data: bytes, *, limit: int = MAX_FRAME) -> FromAgent:
    """Decode one frame that came from an agent. Raises FrameError."""
    return decode(data, FromAgent, limit=limit)  # type: ignore[arg-type]  # a union is no type[T]


def frame_bytes(frame: Frame) -> bytes:
    """Encode one frame."""
    return encode(frame)
