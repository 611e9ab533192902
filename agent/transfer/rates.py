"""How fast uploads were: the last rate by kind of target, in a small file of the state folder. Never fails a job."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from imaging.units import MiB

LEAST = 16 * MiB
"""Less than this says nothing about a link."""
_FILE = "rates.json"


def note_rate(folder: Path, kind: str, sent: int, seconds: float, *, now_ms: int) -> None:
    """Keep what an upload that sent so many bytes in so many seconds shows."""
    if sent < LEAST or seconds <= 0:
        return
    known = _read(folder)
    known[kind] = {"bytes_per_s": int(sent / seconds), "at_ms": now_ms}
    fresh = folder / f"{_FILE}.{os.getpid()}.new"
    try:
        fresh.write_text(json.dumps(known))
        fresh.replace(folder / _FILE)
    except OSError:
        with contextlib.suppress(OSError):  # a full disk ends no job for this
            fresh.unlink(missing_ok=True)


def last_rate(folder: Path, kind: str) -> int | None:
    """Return the bytes a second of the last upload to this kind of target; None if there was none."""
    found = _read(folder).get(kind)
    rate = found.get("bytes_per_s") if isinstance(found, dict) else None
    return rate if isinstance(rate, int) and rate > 0 else None


def _read(folder: Path) -> dict[str, Any]:
    try:
        plain = json.loads((folder / _FILE).read_text())
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}
