"""What a connection tells the agent: the events of `protocol.session`, and how long an unsigned frame may keep it away.

Values only.
"""

from dataclasses import dataclass
from typing import TypeAlias

from protocol.frames import (
    MAX_DELAY_S,
    CommandFrame,
    EpochFrame,
    ManifestFrame,
    ReceiptFrame,
    RecordFrame,
    TimeFrame,
    Welcome,
)


@dataclass(frozen=True, slots=True)
class HelloWanted:
    """Sign a hello over `challenge` with a fresh nonce and the journal's state, and give it to `send_hello`."""

    challenge: bytes


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The relay verified the hello. Call `unproven` now if the site accepts without signed time."""

    frame: Welcome


@dataclass(frozen=True, slots=True)
class TimeWanted:
    """Make a nonce and give it to `ask_time`."""


@dataclass(frozen=True, slots=True)
class ResultsWanted:
    """Results may be sent: give `send_result` what `next_results` names."""


@dataclass(frozen=True, slots=True)
class FetchWanted:
    """Call `fetch` with the journal's head: a gap may still be open."""


@dataclass(frozen=True, slots=True)
class Came:
    """A signed thing came: judge it. Its frame type says its kind."""

    frame: CommandFrame | EpochFrame | ReceiptFrame | ManifestFrame | RecordFrame | TimeFrame


@dataclass(frozen=True, slots=True)
class ComeBack:
    """The relay goes away: connect again after `after` seconds and a random part of `spread` (both capped)."""

    after: float
    spread: float


@dataclass(frozen=True, slots=True)
class Close:
    """Close the websocket with this code and reason; the session is over."""

    code: int
    reason: str


SessionEvent: TypeAlias = (
    HelloWanted | Welcomed | TimeWanted | FetchWanted | ResultsWanted | Came | ComeBack | Close
)


def cap_delay(after: float, spread: float) -> ComeBack:
    """Return a going_away that keeps nobody away for more than MAX_DELAY_S, whatever numbers came."""
    after = after if 0 <= after <= MAX_DELAY_S else float(MAX_DELAY_S)
    room = MAX_DELAY_S - after
    return ComeBack(after, spread if 0 <= spread <= room else room)
