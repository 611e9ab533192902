"""The only place that prints: answers to stdout, everything else to stderr. Decides nothing.

No colours are used at all, so NO_COLOR needs no attention.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from imaging.units import GiB, KiB, MiB, TiB

_REDRAW_SECONDS = 0.1
_CLEAR_LINE = "\r\x1b[K"
_UNITS = ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB"))


class StdoutClosed(Exception):
    """Whoever read our stdout went away (`imageport ... | head`): end quietly."""


def answer(text: str) -> None:
    """Print one line (or block) of the answer to stdout."""
    if sys.stdout is None:  # started with `>&-`: print() would lose the answer without a word
        raise StdoutClosed
    try:
        print(text)
    except BrokenPipeError as err:
        raise StdoutClosed from err


def answer_json(schema: str, fields: Mapping[str, Any]) -> None:
    """Print one JSON object, whose first key names its schema, as one line to stdout."""
    answer(json.dumps({"schema": schema, **fields}, ensure_ascii=False))


def answer_properties(pairs: Iterable[tuple[str, str]]) -> None:
    """Print `name: value` lines with the values below each other."""
    rows = [(one_line(name), value) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0) + 1
    for name, value in rows:
        answer(f"{name + ':':<{width}}  {one_line(value)}")


def answer_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their headings, each column as wide as it must be."""
    lines = [list(head), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        answer("  ".join(cells).rstrip())


def one_line(text: str) -> str:
    """Write control characters visibly: what another machine said must not pass for a line of ours."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def note(text: str) -> None:
    """Print a line for the human at the terminal to stderr."""
    print(text, file=sys.stderr)


def redraw(text: str) -> None:
    """Replace the current line on stderr, a terminal; `note` ends it."""
    sys.stderr.write(_CLEAR_LINE + text)
    sys.stderr.flush()


def answer_line(fields: Mapping[str, Any]) -> None:
    """Print one JSON object on one line: for commands that answer as they go."""
    answer(json.dumps(fields, separators=(",", ":")))


def flush() -> None:
    """Write what stdout still buffers, so that a closed pipe shows now and not at exit."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError as err:
        raise StdoutClosed from err


def size(count: int) -> str:
    """Write bytes in binary units: `1.5 GiB`, `700 bytes`."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} byte{'' if count == 1 else 's'}"


def exact_size(count: int) -> str:
    """Write bytes in binary units with the exact number: `1.5 GiB (1610612736 bytes)`."""
    return size(count) if count < KiB else f"{size(count)} ({count} bytes)"


def duration(seconds: float) -> str:
    """Write a duration as `mm:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


class ProgressLine:
    """One line on stderr that shows percent, rate and time left; silent where stderr is no terminal.

    `advance` may be called from any thread, one call at a time.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._started = self._drawn_at = clock()
        self._done = 0
        self._visible = self._stream.isatty()

    def advance(self, count: int) -> None:
        """Add finished bytes; redraw at most ten times a second."""
        self._done += count
        now = self._clock()
        if self._visible and now - self._drawn_at >= _REDRAW_SECONDS:
            self._drawn_at = now
            self._stream.write(_CLEAR_LINE + self.text(now - self._started))
            self._stream.flush()

    def text(self, elapsed: float) -> str:
        """Write the line as it is after so many seconds."""
        rate = self._done / elapsed if elapsed > 0 else 0.0
        left = duration((self._total - self._done) / rate) if rate else "--:--"
        percent = 100 * self._done // max(self._total, 1)
        return f"{self._label} {percent:3}%  {size(int(rate))}/s  {left} left"

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._visible:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()
