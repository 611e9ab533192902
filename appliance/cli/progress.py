"""How a job's events look to people: one line an event, redrawn in place on a terminal. Writes through output only."""

import sys
from collections.abc import Callable
from typing import Any

from appliance.cli import output

ShowEvent = Callable[[str, dict[str, Any]], None]


def event_text(state: str, data: dict[str, Any]) -> str:
    """Write one event on one line."""
    return output.one_line(_text(state, data))


def _text(state: str, data: dict[str, Any]) -> str:
    progress = data.get("progress") or {}
    if not progress:
        message = data.get("message") or data.get("code") or ""
        return f"{state}: {message}" if message else state
    done, total = int(progress.get("done", 0)), int(progress.get("total", 0))
    percent = 100 * done // total if total else 100
    text = f"{state} {progress.get('step', '')} {percent:3}% {output.size(done)} of {output.size(total)}"
    if progress.get("rate"):
        text += f", {output.size(int(progress['rate']))}/s"
    if progress.get("eta_ms") is not None:
        text += f", {output.duration(progress['eta_ms'] / 1000)} left"
    if progress.get("retries"):
        text += f", {progress['retries']} retries"
    if progress.get("slow"):
        text += f", held back by {progress['slow']}"
    return text


def event_line() -> ShowEvent:
    """Return what shows events on stderr: redrawn on a terminal, a line for each that says something new elsewhere."""
    last = ""
    tty = sys.stderr is not None and sys.stderr.isatty()

    def show(state: str, data: dict[str, Any]) -> None:
        nonlocal last
        text = event_text(state, data)
        if text == last:
            return
        if tty and data.get("progress"):
            output.redraw(text)
        else:
            output.note(f"  {text}")
        last = text

    return show
