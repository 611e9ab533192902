"""Where the chunks of a transfer are, and so what holds it back while nothing gets done. Pure; on the event loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SOURCE, LIMIT, TARGET = "source", "limit", "target"


@dataclass(slots=True)
class Flow:
    """Counts of what is on its way.

    Attributes:
        writing: Chunks that were read and are not acknowledged.
        limited: Of them, those that wait for the bandwidth limit.
    """

    writing: int = 0
    limited: int = 0

    @contextmanager
    def write(self) -> Iterator[None]:
        """A chunk is being written, retries and waiting included."""
        self.writing += 1
        try:
            yield
        finally:
            self.writing -= 1

    @contextmanager
    def wait_for_limit(self) -> Iterator[None]:
        """A write waits for its turn under the bandwidth limit."""
        self.limited += 1
        try:
            yield
        finally:
            self.limited -= 1

    @property
    def held_back_by(self) -> str:
        """The side that everything waits for."""
        if not self.writing:
            return SOURCE
        return LIMIT if self.limited >= self.writing else TARGET
