"""The only place that prints: answers to stdout, everything else to stderr. Decides nothing.

What is printed is valid UTF-8, whatever the locale and the names of files. No colours are used at all, so NO_COLOR
needs no attention.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO

from imaging.units import GiB, KiB, MiB, TiB

_REDRAW_SECONDS = 0.1
_CLEAR_LINE = "\r\x1b[K"
_UNITS = ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB"))
_SURROGATE = re.compile("[\ud800-\udfff]")
_YEAR_10000_MS = 253_402_300_800_000
_FIRST_BYTE = 0xDC00
"""A byte of a file name that is no UTF-8 comes as this much more (PEP 383), 0xDC80 to 0xDCFF."""


class StdoutClosed(Exception):
    """Whoever read our stdout went away (`imageport ... | head`): end quietly."""


class _LiveLine:
    """The line on stderr that is drawn over again and again; what is printed next takes its place."""

    def __init__(self) -> None:
        self._drawn = False

    def draw(self, text: str) -> None:
        sys.stderr.write(_CLEAR_LINE + fit(text, sys.stderr))
        sys.stderr.flush()
        self._drawn = True

    def end(self) -> None:
        if self._drawn:
            self._drawn = False
            with suppress(OSError):
                sys.stderr.write(_CLEAR_LINE)
                sys.stderr.flush()


_live = _LiveLine()


def speak_utf8() -> None:
    """Make stdout and stderr UTF-8 in every locale: JSON is UTF-8, and a letter must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def answer(text: str) -> None:
    """Print one line (or block) of the answer to stdout."""
    if sys.stdout is None:  # started with `>&-`: print() would lose the answer without a word
        raise StdoutClosed
    _live.end()
    try:
        print(valid(text))
    except BrokenPipeError as err:
        raise StdoutClosed from err


def answer_json(schema: str, fields: Mapping[str, Any]) -> None:
    """Print one JSON object, whose first key names its schema, as one line to stdout."""
    named = {"schema": schema} | dict(fields) | {"schema": schema}  # fields may be a relay's own
    answer(valid(json.dumps(named, ensure_ascii=False), backslash="\\\\"))


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
    text = valid(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def valid(text: str, *, backslash: str = "\\") -> str:
    r"""Return text that is valid UTF-8: a byte that is none is shown as `\xff`.

    Args:
        text: What may hold lone surrogates, as Python keeps such bytes of file names.
        backslash: How the text writes one; in JSON it is two.
    """

    def shown(found: re.Match[str]) -> str:
        number = ord(found[0])
        byte = number - _FIRST_BYTE
        return backslash + (f"x{byte:02x}" if 0x80 <= byte <= 0xFF else f"u{number:04x}")

    return _SURROGATE.sub(shown, text)


def note(text: str) -> None:
    """Print a line for the human at the terminal to stderr; a line that is being redrawn gives way to it."""
    if sys.stderr is None:  # print() would take stdout instead
        return
    _live.end()
    with suppress(OSError):  # nobody can be told that nobody can be told
        print(valid(text), file=sys.stderr)


def redraw(text: str) -> None:
    """Replace the current line on stderr, a terminal; what is printed next takes its place."""
    _live.draw(text)


def fit(text: str, stream: TextIO) -> str:
    """Cut a line that is redrawn to the terminal's width: only its last row could be wiped."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # no terminal, or none with a size
        return text
    return text[: columns - 1] if columns > 1 else text


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


def moment(at_ms: object) -> str:
    """Write ms UTC as `2026-05-01 09:30:00 UTC`; what is none, and may be a relay's, as `?`."""
    if not isinstance(at_ms, int) or not 0 <= at_ms < _YEAR_10000_MS:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1000))


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
        self._stream = sys.stderr if stream is None else stream  # None after `2>&-`
        self._clock = clock
        self._started = self._drawn_at = clock()
        self._done = 0
        self._visible = self._stream is not None and self._stream.isatty()

    def advance(self, count: int) -> None:
        """Add finished bytes; redraw at most ten times a second."""
        self._done += count
        now = self._clock()
        if self._visible and now - self._drawn_at >= _REDRAW_SECONDS:
            self._drawn_at = now
            self._stream.write(_CLEAR_LINE + fit(self.text(now - self._started), self._stream))
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
