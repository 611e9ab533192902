"""Crew: worker threads under one TaskGroup-like roof: all of them end before `run` does, the first failure ends all.

The loop keeps the books: it takes news from the workers some dozens of times a second, and says when nothing moves.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.errors import most_telling
from agent.threads import Pool, Stop, until_done
from agent.transfer.flow import shares

TICK_S = 0.05
"""How often the loop notes what the workers finished: receipts and progress, some dozens at a time."""
STALL_S = 1.0
"""Without anything done for so long, it says so, and goes on saying it."""


@dataclass(slots=True)
class Stats:
    """What a copy did so far; bytes are bytes of data (holes do not count).

    Attributes:
        total: Bytes of data of the disk.
        done: Read and acknowledged, `skipped` included.
        skipped: Finished by earlier attempts, not read again.
        sent: Bytes of the puts of finished chunks.
        puts: Their number.
        retries: Puts that failed and were tried again.
        slow: The side that holds the transfer back (`agent.transfer.flow`); None unless it stands still.
        held_by: Side -> percent of the time that it held this attempt back; complete at the end.
    """

    total: int = 0
    done: int = 0
    skipped: int = 0
    sent: int = 0
    puts: int = 0
    retries: int = 0
    slow: str | None = None
    held_by: dict[str, int] = field(default_factory=dict)


class Books:
    """What a copy did so far: the workers leave news, the loop enters it and tells.

    Attributes:
        stats: The figures.
        tell: Called with them on the loop.
    """

    def __init__(self, stats: Stats, tell: Callable[[Stats], None]) -> None:
        self.stats = stats
        self.tell = tell
        self._news: deque[Callable[[], None]] = deque()
        self._held: Counter[str] = Counter()

    def post(self, news: Callable[[], None]) -> None:
        """Leave something to be entered. From any thread."""
        self._news.append(news)

    def retried(self) -> None:
        """Leave that a request is tried again. From any thread."""
        self.post(self._retried)

    def note(self) -> bool:
        """Enter the news; return whether something got done. On the loop."""
        before = self.stats.done
        if not self._news:
            return False
        while self._news:
            self._news.popleft()()
        if self.stats.done > before:
            self.stats.slow = None
        self.tell(self.stats)
        return self.stats.done > before

    def held(self, by: str) -> None:
        """Enter which side holds the copy back at this moment. On the loop."""
        self._held[by] += 1
        self.stats.held_by = shares(self._held)

    def stalled(self, by: str | None) -> None:
        """Tell which side holds the copy back; None: nothing does any more. On the loop."""
        self.stats.slow = by
        self.tell(self.stats)

    def _retried(self) -> None:
        self.stats.retries += 1


async def run_crew(
    pool: Pool,
    works: Sequence[Callable[[], None]],
    stop: Stop,
    *,
    books: Books,
    held_back_by: Callable[[], str],
) -> None:
    """Run every work in a thread of `pool` and return when all have ended.

    Args:
        pool: With a thread for each work.
        works: Each ends soon once `stop` is set.
        stop: Set here when one fails or the caller is cancelled.
        books: Where the workers leave their news.
        held_back_by: Returns the side that holds the work back now. On the loop, every TICK_S.

    Raises:
        The first real failure, after all threads have left their work.
    """
    ends: list[asyncio.Future[None]] = []
    errors: list[BaseException] = []
    quiet_s = 0.0
    try:
        for work in works:  # one by one: if a thread cannot be had, those before it are ended
            worker = pool.executor.submit(work)
            ends.append(asyncio.wrap_future(worker))
        running = set(ends)
        while running and not errors:
            done, running = await asyncio.wait(
                running, timeout=TICK_S, return_when=asyncio.FIRST_EXCEPTION
            )
            errors = [error for end in done if (error := end.exception())]
            quiet_s = 0.0 if books.note() else quiet_s + TICK_S
            side = held_back_by()
            if running:
                books.held(side)
            if quiet_s >= STALL_S:
                quiet_s = 0.0
                books.stalled(side)
    finally:
        if any(not end.done() for end in ends):
            stop.set()
        for end in ends:
            await until_done(end)
        books.note()
    errors += [error for end in ends if (error := end.exception())]  # what the stop made of them
    if errors:
        raise most_telling(errors)
