"""Where the workers of a transfer are, and so what holds it back while nothing gets done. Pure."""

from collections.abc import Iterable
from enum import Enum

SOURCE, LIMIT, TARGET = "source", "limit", "target"


class At(Enum):
    """What a worker is at."""

    READING = "reading a chunk, or waiting for its turn to read"
    LIMITED = "waiting for the bandwidth limit"
    WRITING = "writing what it read, retries and waiting for a slot included"


def held_back_by(workers: Iterable[At]) -> str:
    """Return the side that everything waits for."""
    beyond = [at for at in workers if at is not At.READING]
    if not beyond:
        return SOURCE
    return LIMIT if all(at is At.LIMITED for at in beyond) else TARGET
