"""The records of a simulator in one JSON file, replaced as a whole: a killed simulator comes back as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


def load(path: Path, kind: type[S], fresh: Callable[[], S]) -> S:
    """Return the records kept in a file, or write and return fresh ones when there is none."""
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=kind)
    state = fresh()
    save(path, state)
    return state


def save(path: Path, state: msgspec.Struct) -> None:
    """Replace the file; only its owner reads it, for there are keys in it."""
    part = path.with_suffix(".new")
    part.touch(0o600)
    part.write_bytes(msgspec.json.encode(state))
    part.replace(path)
