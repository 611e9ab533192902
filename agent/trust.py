"""What this appliance believes of its control plane: key manifest, signed time, whether this session proved it.

Holds no journal and does no I/O: whoever changes it persists what must survive (floor, manifest).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.clock import SignedClock
from protocol.keys import KeyRing

CLOCK_OFF = "appliance.clock-off"
TOLERATED_S = 60.0
"""How far this machine's clock may be beside signed time before people are told."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of this process. Only app.py picks real ones.

    Attributes:
        boot: Seconds since boot, suspend included (CLOCK_BOOTTIME): ages signed time.
        wall: Seconds since 1970 by this machine: decides nothing, its jumps make us ask.
        mono: Seconds of a monotonic clock: rates and intervals.
    """

    boot: Callable[[], float]
    wall: Callable[[], float]
    mono: Callable[[], float]


@dataclass(slots=True)
class Trust:
    """The mutable belief. Changed on the loop only; the journal's thread reads it while a batch is judged.

    Attributes:
        ring: The newest verified key manifest.
        clock: Signed time.
        clocks: This process's clocks.
        accept_unproven: The site's choice (PROTOCOL 4).
        fresh: This session's signed time has come.
        manifest_wanted: The serial that the last signed time named.
    """

    ring: KeyRing
    clock: SignedClock
    clocks: Clocks
    accept_unproven: bool
    fresh: bool = field(default=False)
    manifest_wanted: int = 0

    @property
    def proven(self) -> bool:
        """Whether orders may be judged in this session."""
        return self.fresh or self.accept_unproven

    @property
    def current(self) -> bool:
        """Whether the newest key manifest that a signed time named is the one that we hold."""
        return self.manifest_wanted <= self.ring.manifest.serial

    def now_ms(self) -> int:
        """Return the best known time for stamps, ms UTC."""
        return self.clock.best(boot_s=self.clocks.boot())

    def outside_ms(self) -> int:
        """Return the best guess of what other services' clocks say, ms UTC: ours may be wrong. Judges nothing here."""
        guess = self.clock.guess(boot_s=self.clocks.boot())
        return int(self.clocks.wall() * 1000) if guess is None else guess

    def clock_off(self) -> str:
        """Return, for people, how wrong this machine's clock is beside signed time; "" if it is not, or none came."""
        ahead_s = self.clocks.wall() - self.outside_ms() / 1000
        if abs(ahead_s) <= TOLERATED_S:
            return ""
        side = "ahead of" if ahead_s > 0 else "behind"
        off = f"{abs(ahead_s):.0f} s {side} signed time ({CLOCK_OFF})"
        return f"this machine's clock is {off}: timedatectl set-ntp true"

    def expired(self, exp: int) -> bool | None:
        """Judge an expiry; None while it cannot be decided."""
        return self.clock.expired(
            exp, boot_s=self.clocks.boot(), accept_unproven=self.accept_unproven
        )
