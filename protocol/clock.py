"""Signed time: what may be believed about the time, and for how long. Pure state, all clocks are arguments.

The local wall clock alone decides nothing. A signed time counts if its nonce is outstanding, its round trip took at
most 10 s and its key had not ended by then; it is fresh for 1 h on the boot clock. Only the persisted floor (the
highest signed time ever seen) or fresh time may expire anything (PROTOCOL 4).
"""

from dataclasses import dataclass, field

from protocol.errors import TimeRejected
from protocol.messages import Time

FRESH_S = 3600.0
ASK_EVERY_S = 900.0
MAX_ROUND_TRIP_S = 10.0
MAX_DRIFT_S = 5.0
"""Boot and wall clock drifting apart by more means that somebody set a clock or the machine slept: ask at once."""
MAX_OUTSTANDING = 8


@dataclass(slots=True)
class SignedClock:
    """The agent's belief about the time.

    Attributes:
        floor: Highest signed time ever seen, ms UTC; persisted by the caller whenever `feed` or `set_floor` changes it.
    """

    floor: int = 0
    _asked: dict[bytes, float] = field(default_factory=dict)
    _now_ms: int | None = None
    _at_boot_s: float = 0.0
    _wall_minus_boot_s: float = 0.0
    _last_ask_s: float | None = None

    def ask(self, nonce: bytes, *, boot_s: float) -> None:
        """Remember that the time was asked for with `nonce`; the oldest questions are forgotten."""
        self._asked[nonce] = boot_s
        self._last_ask_s = boot_s
        while len(self._asked) > MAX_OUTSTANDING:
            del self._asked[next(iter(self._asked))]

    def feed(self, answer: Time, *, key_exp: int, boot_s: float, wall_s: float) -> None:
        """Take a verified signed time.

        Args:
            answer: Decoded payload; its signature and appliance were checked by the caller.
            key_exp: Expiry of the time key that signed it, ms UTC.
            boot_s: Boot clock now, seconds.
            wall_s: Wall clock now, seconds; only its later drift against the boot clock is used.

        Raises:
            TimeRejected: Unknown nonce (each counts once), too slow, or signed after its key's end.
        """
        asked = self._asked.pop(answer.nonce, None)
        if asked is None:
            raise TimeRejected("the nonce was never asked, or was answered before")
        if boot_s - asked > MAX_ROUND_TRIP_S:
            msg = f"the answer took {boot_s - asked:.1f} s, at most {MAX_ROUND_TRIP_S:.0f} s count"
            raise TimeRejected(msg)
        if answer.now > key_exp:
            raise TimeRejected("the time key had ended when it signed")
        self._now_ms = answer.now
        self._at_boot_s = boot_s
        self._wall_minus_boot_s = wall_s - boot_s
        self.floor = max(self.floor, answer.now)

    def set_floor(self, floor: int) -> None:
        """Replace the floor, downwards too: only a root-signed manifest may do this."""
        self.floor = floor

    def now(self, *, boot_s: float) -> int | None:
        """Return the time in ms UTC while it is fresh, else None."""
        if self._now_ms is None or boot_s - self._at_boot_s > FRESH_S:
            return None
        return self._now_ms + int((boot_s - self._at_boot_s) * 1000)

    def best(self, *, boot_s: float) -> int:
        """Return fresh time, else the floor: good enough to stamp, never to accept."""
        now = self.now(boot_s=boot_s)
        return self.floor if now is None else now

    def guess(self, *, boot_s: float) -> int | None:
        """Return the last signed time plus the time since, however old; None if none came. Judges nothing here."""
        if self._now_ms is None:
            return None
        return self._now_ms + int((boot_s - self._at_boot_s) * 1000)

    def due(self, *, boot_s: float, wall_s: float) -> bool:
        """Whether it is time to ask again."""
        if self._last_ask_s is None or boot_s - self._last_ask_s >= ASK_EVERY_S:
            return True
        drifted = abs((wall_s - boot_s) - self._wall_minus_boot_s) > MAX_DRIFT_S
        return (
            self._now_ms is not None and drifted and boot_s - self._last_ask_s >= MAX_ROUND_TRIP_S
        )

    def expired(self, exp: int, *, boot_s: float, accept_unproven: bool) -> bool | None:
        """Judge an expiry: True expired, False not expired, None undecidable (hold the thing)."""
        if self.floor > exp:
            return True
        now = self.now(boot_s=boot_s)
        if now is not None:
            return now > exp
        return False if accept_unproven else None
