"""One connection as the agent sees it: frames in, events out, frames to send. No socket, no clock, no keys.

The shell (agent.session) reads and writes the websocket, signs, judges orders and keeps the journal; this file knows
what may come when, and what has to be asked for. The relay's end is `protocol.relay_session`. PROTOCOL 1, 3, 4.

| state | what it waits for | ends when |
|---|---|---|
| connecting | challenge | it came |
| challenged | welcome (the shell answers `HelloWanted` with `send_hello`) | it came |
| proving | signed time for a nonce of this session; results are sent again meanwhile | `proved`, or `unproven` |
| open | everything | going_away, or the socket ends |
| draining | what is in flight | DRAIN_S are over, or the socket ends |
| closed | nothing | never |

No command may come before the first `fetch`, and nothing that is not in FRAMES may come at all: the session then closes
with CLOSE_PROTOCOL and the error's code, and the agent connects anew.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from protocol.clock import MAX_ROUND_TRIP_S, SignedClock
from protocol.errors import FrameError, OutOfOrder
from protocol.frames import (
    CLOSE_GOING_AWAY,
    CLOSE_PROTOCOL,
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
    parse_from_relay,
)
from protocol.session_events import (
    Came,
    Close,
    FetchWanted,
    HelloWanted,
    ResultsWanted,
    SessionEvent,
    TimeWanted,
    Welcomed,
    cap_delay,
)

HANDSHAKE_S = 10.0
"""Longest wait for the challenge, and again for the welcome."""
DRAIN_S = 5.0
"""After going_away: time for acks and results that are on their way."""
REFETCH_S = 5.0
"""The same fetch is not repeated sooner: behind one gap many commands may follow."""
COMMAND_WINDOW = 64
"""Commands that the relay may have on their way to us (256 KiB each at most, so 16 MiB)."""


class SessionState(StrEnum):
    """Where a session is."""

    CONNECTING = "connecting"
    CHALLENGED = "challenged"
    PROVING = "proving"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


_S = SessionState
_ANYTIME = (TimeFrame, ManifestFrame, RecordFrame, ReceiptFrame, EpochFrame, Stored, Credit)

FRAMES: dict[SessionState, tuple[type[FromRelay], ...]] = {
    _S.CONNECTING: (Challenge,),
    _S.CHALLENGED: (Welcome, GoingAway),
    _S.PROVING: (*_ANYTIME, GoingAway),
    _S.OPEN: (*_ANYTIME, CommandFrame, GoingAway),
    _S.DRAINING: (*_ANYTIME, CommandFrame),
    _S.CLOSED: (),
}
"""Which frame each state allows."""


# --- the session ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class AgentSession:
    """The agent's end of one connection.

    None of its methods blocks. What has to be sent collects in `outgoing`; drain it after each call.

    Attributes:
        journal: The journal's life, to understand the relay's `results` (see also `set_results`).
        results_last: Number of the last result in the journal.
        clock: The agent's signed clock; the session only asks it whether it is time to ask.
        opened_s: Boot clock when the websocket was opened.
    """

    journal: bytes
    results_last: int
    clock: SignedClock
    opened_s: float
    state: SessionState = SessionState.CONNECTING
    outgoing: deque[bytes] = field(default_factory=deque)
    _nonces: set[bytes] = field(default_factory=set)
    _since_s: float = 0.0
    _asked_s: float | None = None
    _window: int = MIN_CREDIT
    _stored: int = 0
    _sent: int = 0
    _fetched: tuple[int, int, float] | None = None
    _refetch: bool = False
    _held: bool = False

    def __post_init__(self) -> None:
        self._since_s = self.opened_s

    # what comes

    def feed(self, data: bytes, *, boot_s: float) -> list[SessionEvent]:
        """Take one websocket message and return what it means."""
        try:
            frame = parse_from_relay(data)
            self._allow(frame)
        except (FrameError, OutOfOrder) as err:
            return [self._close(CLOSE_PROTOCOL, err.code)]
        return self._take(frame, boot_s)

    def timeout(self, *, boot_s: float, wall_s: float) -> list[SessionEvent]:
        """Do what is due; call it at `next_deadline`, and at least once a second to notice a changed wall clock."""
        waited = boot_s - self._since_s
        if self.state in {_S.CONNECTING, _S.CHALLENGED} and waited >= HANDSHAKE_S:
            return [self._close(CLOSE_PROTOCOL, "protocol.handshake-timeout")]
        if self.state is _S.DRAINING and waited >= DRAIN_S:
            return [self._close(CLOSE_GOING_AWAY, "protocol.going-away")]
        events: list[SessionEvent] = []
        if self._time_due(boot_s, wall_s):
            self._asked_s = boot_s
            events.append(TimeWanted())
        if self._refetch and self._fetched is not None and boot_s - self._fetched[2] >= REFETCH_S:
            self._refetch = False
            events.append(FetchWanted())
        return events

    def next_deadline(self, *, boot_s: float) -> float:
        """Return when `timeout` has to be called next, on the boot clock."""
        if self.state in {_S.CONNECTING, _S.CHALLENGED}:
            return self._since_s + HANDSHAKE_S
        if self.state is _S.DRAINING:
            return self._since_s + DRAIN_S
        return boot_s + 1.0

    # what the shell does

    def send_hello(self, hello: HelloFrame, *, nonce: bytes, boot_s: float) -> None:
        """Answer `HelloWanted`; `nonce` is the hello's, which also asks for the time."""
        self._need(_S.CHALLENGED)
        self.ask_nonce(nonce, boot_s=boot_s)
        self._send(hello)

    def ask_time(self, nonce: bytes, *, boot_s: float) -> None:
        """Answer `TimeWanted`."""
        self.ask_nonce(nonce, boot_s=boot_s)
        self._send(TimeRequest(nonce=nonce))

    def ask_nonce(self, nonce: bytes, *, boot_s: float) -> None:
        """Remember a nonce of this session."""
        self._nonces.add(nonce)
        self._asked_s = boot_s
        self.clock.ask(nonce, boot_s=boot_s)

    def proved(self, nonce: bytes, *, epoch: int, have: int, boot_s: float) -> bool:
        """Say that a time came, was verified and fed, and did not lock the journal.

        Returns:
            Whether this session is proven now: the nonce was asked in it. Only then are commands fetched.
        """
        if nonce not in self._nonces:
            return False
        self._open(epoch, have, boot_s)
        self.release(epoch=epoch, have=have, boot_s=boot_s)
        return True

    def unproven(self, *, epoch: int, have: int, boot_s: float) -> None:
        """Open without signed time: the site chose `accept_unproven`."""
        self._open(epoch, have, boot_s)

    def fetch(self, *, epoch: int, have: int, boot_s: float) -> None:
        """Ask for the commands after `have`: at a gap, and when a new epoch was taken.

        Behind one gap many commands follow, so the same question is not sent again at once; `FetchWanted` comes later.
        """
        if self.state is not _S.OPEN:
            return
        want = (epoch, have + 1)
        last = self._fetched
        if last is not None and last[:2] == want and boot_s - last[2] < REFETCH_S:
            self._refetch = True
            return
        self._ask_from(want, boot_s)

    def hold(self) -> None:
        """Say that a command was held (`acceptor.Hold`): it has to be fetched again when the cause is gone."""
        self._held = True

    def release(self, *, epoch: int, have: int, boot_s: float) -> None:
        """Say that a cause to hold commands may be gone: a time, a key manifest or an epoch came."""
        if self._held and self.state is _S.OPEN:
            self._held = False
            self._ask_from((epoch, have + 1), boot_s)

    def send(self, frame: AckFrame | NackFrame | InventoryFrame | EventFrame) -> None:
        """Send a statement that needs no credit."""
        if self.state in {_S.PROVING, _S.OPEN, _S.DRAINING}:
            self._send(frame)

    def set_results(self, *, journal: bytes, last: int) -> list[SessionEvent]:
        """Say that the journal has new results (or began a new life)."""
        if journal != self.journal:
            self.journal, self._stored, self._sent = journal, 0, 0
        self.results_last = last
        return self._results()

    def next_results(self) -> tuple[int, int] | None:
        """Return (above, room): send the results after number `above`, in order, at most `room`; None: not now."""
        room = self._window - (self._sent - self._stored)
        open_ = self.state in {_S.PROVING, _S.OPEN, _S.DRAINING}
        if not open_ or room <= 0 or self._sent >= self.results_last:
            return None
        return self._sent, min(room, self.results_last - self._sent)

    def send_result(self, n: int, frame: ResultFrame) -> None:
        """Send result number `n`, the next one that `next_results` named."""
        if n != self._sent + 1:
            msg = f"result {n} sent out of turn, {self._sent + 1} is next"
            raise OutOfOrder(msg)
        self._sent = n
        self._send(frame)

    # inside

    def _take(self, frame: FromRelay, boot_s: float) -> list[SessionEvent]:
        match frame:
            case Challenge():
                self._enter(_S.CHALLENGED, boot_s)
                return [HelloWanted(frame.challenge)]
            case Welcome():
                self._enter(_S.PROVING, boot_s)
                self._stored = self._sent = self._welcomed(frame)
                return [Welcomed(frame), *self._results()]
            case Stored():
                return self._take_stored(frame)
            case Credit():
                self._window = max(MIN_CREDIT, frame.n)
                return self._results()
            case GoingAway():
                self._enter(_S.DRAINING, boot_s)
                return [cap_delay(frame.after, frame.spread)]
            case _:
                return [Came(frame)]

    def _welcomed(self, frame: Welcome) -> int:
        if frame.results is None or frame.results.journal != self.journal:
            return 0
        return min(frame.results.n, self.results_last)

    def _take_stored(self, frame: Stored) -> list[SessionEvent]:
        if frame.results.journal == self.journal:
            self._stored = min(max(self._stored, frame.results.n), self._sent)
        return self._results()

    def _results(self) -> list[SessionEvent]:
        return [ResultsWanted()] if self.next_results() is not None else []

    def _time_due(self, boot_s: float, wall_s: float) -> bool:
        if self._asked_s is None or boot_s - self._asked_s < MAX_ROUND_TRIP_S:
            return False
        if self.state is _S.PROVING:
            return True
        return self.state is _S.OPEN and self.clock.due(boot_s=boot_s, wall_s=wall_s)

    def _open(self, epoch: int, have: int, boot_s: float) -> None:
        if self.state is not _S.PROVING:
            return
        self._enter(_S.OPEN, boot_s)
        self._send(Credit(n=COMMAND_WINDOW))
        self.fetch(epoch=epoch, have=have, boot_s=boot_s)

    def _ask_from(self, want: tuple[int, int], boot_s: float) -> None:
        self._fetched = (*want, boot_s)
        self._refetch = False
        self._send(Fetch(epoch=want[0], seq=want[1]))

    def _allow(self, frame: FromRelay) -> None:
        if not isinstance(frame, FRAMES[self.state]):
            msg = f"a session that is {self.state.value} takes no {type(frame).__name__}"
            raise OutOfOrder(msg, state=self.state.value)

    def _need(self, state: SessionState) -> None:
        if self.state is not state:
            msg = f"a session that is {self.state.value} is not {state.value}"
            raise OutOfOrder(msg, state=self.state.value)

    def _enter(self, state: SessionState, boot_s: float) -> None:
        self.state = state
        self._since_s = boot_s

    def _close(self, code: int, reason: str) -> Close:
        self.state = _S.CLOSED
        return Close(code, reason)

    def _send(self, frame: FromAgent) -> None:
        self.outgoing.append(frame_bytes(frame))
