"""One connection as the relay sees it: frames in, events out, frames to send. No socket, no clock, no store.

It verifies what a device signs as a courtesy to the signer, which verifies everything again. Which connection of an
appliance is the newest, and what is stored, is the relay's business. The agent's end is `protocol.session`. PROTOCOL 3.

| state | what it waits for |
|---|---|
| challenging | hello |
| checking | the shell: `identify` with the device key, then `welcome` |
| open | everything else |
| closed | nothing |

Delivery: a `fetch` sets the cursor (also back, after a gap); from then on the shell sends what `next_wanted` names,
while fewer commands are unacknowledged than the agent's credit allows. An ack moves the window.
"""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from protocol.errors import (
    BadField,
    FrameError,
    NotAuthentic,
    OutOfOrder,
    ProtocolError,
    UnknownKey,
)
from protocol.frames import (
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    MAX_FRAME,
    MAX_HELLO_FRAME,
    MIN_CREDIT,
    AckFrame,
    Challenge,
    CommandFrame,
    Credit,
    EpochFrame,
    EventFrame,
    Fetch,
    FromAgent,
    FromRelay,
    GoingAway,
    HelloFrame,
    InventoryFrame,
    ManifestFrame,
    NackFrame,
    ReceiptFrame,
    RecordFrame,
    ResultFrame,
    Stored,
    TimeFrame,
    TimeRequest,
    Welcome,
    frame_bytes,
    parse_from_agent,
)
from protocol.messages import (
    MAX_INVENTORY,
    MAX_RESULT,
    MAX_STATEMENT,
    Ack,
    Event,
    Hello,
    Inventory,
    Kind,
    Nack,
    Result,
)
from protocol.session import HANDSHAKE_S
from protocol.session_events import Close
from protocol.signed import open_statement

RESULT_WINDOW = 256
"""Results that an agent may have on their way to the relay (128 KiB each at most)."""


class RelayState(StrEnum):
    """Where a connection is."""

    CHALLENGING = "challenging"
    CHECKING = "checking"
    OPEN = "open"
    CLOSED = "closed"


_R = RelayState

FRAMES: dict[RelayState, tuple[type[FromAgent], ...]] = {
    _R.CHALLENGING: (HelloFrame,),
    _R.CHECKING: (),
    _R.OPEN: (
        Fetch,
        AckFrame,
        NackFrame,
        InventoryFrame,
        ResultFrame,
        EventFrame,
        TimeRequest,
        Credit,
    ),
    _R.CLOSED: (),
}
"""Which frame each state allows."""


# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claimed:
    """A hello came: look up the device key of this appliance and give it (or None) to `identify`."""

    tenant: str
    appliance: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The device signed our challenge: allocate a generation, give `welcome`, hand the hello on to the signer."""

    hello: Hello
    env: bytes


@dataclass(frozen=True, slots=True)
class Fetched:
    """The agent wants commands: send what `next_wanted` names."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class TimeAsked:
    """The agent asks the signer for the time."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Stated:
    """A verified statement of the device: store it, hand its envelope on."""

    statement: Ack | Nack | Inventory | Result | Event
    env: bytes
    report: bytes = b""


RelayEvent: TypeAlias = Claimed | Verified | Fetched | TimeAsked | Stated | Close

_STATEMENTS: dict[
    type[FromAgent],
    tuple[Kind, type[Ack] | type[Nack] | type[Inventory] | type[Result] | type[Event], int],
] = {
    AckFrame: (Kind.ACK, Ack, MAX_STATEMENT),
    NackFrame: (Kind.NACK, Nack, MAX_STATEMENT),
    InventoryFrame: (Kind.INVENTORY, Inventory, MAX_INVENTORY),
    ResultFrame: (Kind.RESULT, Result, MAX_RESULT),
    EventFrame: (Kind.EVENT, Event, MAX_STATEMENT),
}


# --- the session ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RelaySession:
    """The relay's end of one connection. What has to be sent collects in `outgoing`; drain it after each call.

    Attributes:
        challenge: 32 random bytes of this connection.
        opened_s: Boot clock when the websocket was opened.
    """

    challenge: bytes
    opened_s: float
    state: RelayState = RelayState.CHALLENGING
    outgoing: deque[bytes] = field(default_factory=deque)
    tenant: str = ""
    appliance: str = ""
    _claim: HelloFrame | None = None
    _device: bytes = b""
    _window: int = MIN_CREDIT
    _cursor: tuple[int, int] | None = None
    _acked: int = 0

    def __post_init__(self) -> None:
        self._send(Challenge(challenge=self.challenge))

    # what comes

    def feed(self, data: bytes) -> list[RelayEvent]:
        """Take one websocket message and return what it means."""
        try:
            limit = MAX_HELLO_FRAME if self.state is _R.CHALLENGING else MAX_FRAME
            frame = parse_from_agent(data, limit=limit)
            if not isinstance(frame, FRAMES[self.state]):
                msg = f"a connection that is {self.state.value} takes no {type(frame).__name__}"
                raise OutOfOrder(msg, state=self.state.value)
            return self._take(frame)
        except ProtocolError as err:
            return [self._close(CLOSE_PROTOCOL, err.code)]

    def timeout(self, *, boot_s: float) -> list[RelayEvent]:
        """End a connection that did not say hello in time."""
        if self.state is _R.CHALLENGING and boot_s - self.opened_s >= HANDSHAKE_S:
            return [self._close(CLOSE_PROTOCOL, "protocol.handshake-timeout")]
        return []

    def next_deadline(self) -> float | None:
        """Return when `timeout` has to be called, on the boot clock; None: never again."""
        return self.opened_s + HANDSHAKE_S if self.state is _R.CHALLENGING else None

    # what the shell does

    def identify(self, device_key: bytes | None) -> list[RelayEvent]:
        """Verify the hello with the device key of the appliance that it claims to be from.

        An unknown appliance and a wrong signature end alike, so that nobody can list appliances.
        """
        claim = self._claim
        if self.state is not _R.CHECKING or claim is None:
            raise OutOfOrder(f"a connection that is {self.state.value} has no hello to check")
        try:
            hello = self._open_hello(claim, device_key)
        except (NotAuthentic, FrameError):
            return [self._close(CLOSE_REFUSED, "protocol.not-authentic")]
        self.tenant, self.appliance = hello.tenant, hello.appliance
        return [Verified(hello, claim.env)]

    def welcome(self, frame: Welcome, *, window: int = RESULT_WINDOW) -> None:
        """Let the verified appliance in."""
        if not self._device:
            raise OutOfOrder("no hello was verified")
        self.state = _R.OPEN
        self._send(frame)
        self._send(Credit(n=window))

    def next_wanted(self) -> tuple[int, int] | None:
        """Return (epoch, seq) of the command to send next; None before a fetch, or while the window is full."""
        if self.state is not _R.OPEN or self._cursor is None:
            return None
        epoch, seq = self._cursor
        return None if seq - 1 - self._acked >= self._window else (epoch, seq)

    def send_command(self, frame: CommandFrame) -> None:
        """Send the command that `next_wanted` named."""
        if self.next_wanted() != (frame.epoch, frame.seq):
            msg = f"command {frame.epoch}/{frame.seq} is not the one that is wanted"
            raise OutOfOrder(msg)
        self._cursor = (frame.epoch, frame.seq + 1)
        self._send(frame)

    def send(
        self,
        frame: EpochFrame
        | ReceiptFrame
        | ManifestFrame
        | RecordFrame
        | TimeFrame
        | Stored
        | GoingAway,
    ) -> None:
        """Send anything else; before the welcome it is dropped."""
        if self.state is _R.OPEN:
            self._send(frame)

    # inside

    def _take(self, frame: FromAgent) -> list[RelayEvent]:
        match frame:
            case HelloFrame():
                self.state = _R.CHECKING
                self._claim = frame
                return [Claimed(frame.tenant, frame.appliance)]
            case Fetch():
                self._cursor = (frame.epoch, frame.seq)
                self._acked = max(frame.seq - 1, 0)
                return [Fetched(frame.epoch, frame.seq)]
            case TimeRequest():
                return [TimeAsked(frame.nonce)]
            case Credit():
                self._window = max(MIN_CREDIT, frame.n)
                return []
            case _:
                return [self._stated(frame)]

    def _stated(
        self, frame: AckFrame | NackFrame | InventoryFrame | ResultFrame | EventFrame
    ) -> Stated:
        kind, layout, limit = _STATEMENTS[type(frame)]
        _, statement = open_statement(kind, frame.env, layout, public=self._device, limit=limit)
        report = frame.report if isinstance(frame, ResultFrame) else b""
        if isinstance(statement, Ack):
            self._on_ack(statement)
        if isinstance(statement, Result | Event):
            self._check_owner(statement)
        if isinstance(statement, Result) and report:
            _check_report(statement, report)
        return Stated(statement, frame.env, report)

    def _on_ack(self, ack: Ack) -> None:
        if self._cursor is not None and ack.epoch == self._cursor[0]:
            self._acked = max(self._acked, min(ack.have, self._cursor[1] - 1))

    def _check_owner(self, statement: Result | Event) -> None:
        if (statement.tenant, statement.appliance) != (self.tenant, self.appliance):
            msg = f"signed as {statement.tenant}/{statement.appliance}"
            raise BadField(msg, appliance=self.appliance)

    def _open_hello(self, claim: HelloFrame, device_key: bytes | None) -> Hello:
        if device_key is None:
            raise UnknownKey("no appliance of that name")
        _, hello = open_statement(
            Kind.HELLO, claim.env, Hello, public=device_key, limit=MAX_STATEMENT
        )
        same = (hello.tenant, hello.appliance) == (claim.tenant, claim.appliance)
        if hello.challenge != self.challenge or not same:
            raise BadField("the hello answers another challenge, or names another appliance")
        self._device = device_key
        return hello

    def _close(self, code: int, reason: str) -> Close:
        self.state = _R.CLOSED
        return Close(code, reason)

    def _send(self, frame: FromRelay) -> None:
        self.outgoing.append(frame_bytes(frame))


def _check_report(result: Result, report: bytes) -> None:
    if result.report_digest != hashlib.sha256(report).digest():
        raise BadField("the report is not the one that the result names")
