"""Progress of one job: rates, ETA and coalescing. Pure, `now` is an argument (seconds of a monotonic clock)."""

from dataclasses import dataclass

from protocol.jobs import Progress

EVERY_S = 0.25
"""At most four events a second and job: more would only be overwritten on its way."""
HALF_LIFE_S = 5.0
"""Of the current rate: long enough to be read, short enough to show a stall."""
MIN_SAMPLE_S = 0.05


@dataclass(slots=True)
class Meter:
    """What a stage reported last, and when it was last told to anybody."""

    attempt: int
    _progress: Progress | None = None
    _fresh: bool = False
    _told_at: float | None = None
    _began_at: float = 0.0
    _began_done: int = 0
    _seen_at: float = 0.0
    _seen_done: int = 0
    _rate: float = 0.0
    _weight: float = 0.0

    def report(
        self,
        step: str,
        done: int,
        total: int,
        *,
        now: float,
        retries: int = 0,
        slow: str | None = None,
    ) -> None:
        """Take one report. A new step begins its own clock; `done` never falls inside a step."""
        old = self._progress
        if old is None or old.step != step:
            self._began_at, self._began_done = now, done
            self._seen_at, self._seen_done = now, done
            self._rate = self._weight = 0.0
        else:
            done = max(done, old.done)
            self._sample(done, now)
        mean = _per_second(done - self._began_done, now - self._began_at)
        self._progress = Progress(
            attempt=self.attempt,
            step=step,
            done=done,
            total=max(total, done),
            rate=int(self._rate),
            mean_rate=int(mean),
            eta_ms=_eta_ms(total - done, self._rate or mean),
            retries=retries,
            slow=slow,
        )
        self._fresh = True

    def due(self, now: float) -> bool:
        """Whether there is something new to tell and the last telling is long enough ago."""
        return self._fresh and (self._told_at is None or now - self._told_at >= EVERY_S)

    def take(self, now: float) -> Progress | None:
        """Return the latest report and count it as told."""
        self._fresh = False
        self._told_at = now
        return self._progress

    @property
    def latest(self) -> Progress | None:
        """The latest report, told or not."""
        return self._progress

    def _sample(self, done: int, now: float) -> None:
        passed = now - self._seen_at
        if passed < MIN_SAMPLE_S:
            return
        # Weighted by time from the first sample on: a burst of 0.1 s must not stand for the first seconds.
        fresh = 1 - 0.5 ** (passed / HALF_LIFE_S)
        self._weight += fresh * (1 - self._weight)
        sample = _per_second(done - self._seen_done, passed)
        self._rate += (sample - self._rate) * fresh / self._weight
        self._seen_at, self._seen_done = now, done


def _per_second(amount: int, seconds: float) -> float:
    return amount / seconds if seconds >= MIN_SAMPLE_S else 0.0


def _eta_ms(left: int, rate: float) -> int | None:
    return int(max(left, 0) / rate * 1000) if rate >= 1 else None
