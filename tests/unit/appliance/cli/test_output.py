"""What is printed: units, tables, JSON, and the progress line under a virtual clock."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appliance.cli import output

KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (KiB, "1.0 KiB"),
        (1536 * MiB, "1.5 GiB"),
        (64 * TiB, "64.0 TiB"),
    ],
)
def test_sizes_are_binary(count: int, text: str) -> None:
    assert output.size(count) == text


def test_exact_sizes_carry_the_number() -> None:
    assert output.exact_size(10 * GiB) == "10.0 GiB (10737418240 bytes)"
    assert output.exact_size(512) == "512 bytes"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (59.6, "01:00"), (3599, "59:59"), (3725, "1:02:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_json_names_its_schema_first(capsys: pytest.CaptureFixture[str]) -> None:
    output.answer_json("thing/1", {"name": "Größe"})
    text = capsys.readouterr().out
    assert text == '{"schema": "thing/1", "name": "Größe"}\n'
    assert json.loads(text)["schema"] == "thing/1"


def test_a_relay_cannot_rename_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    output.answer_json("job/1", {"id": "x", "schema": "error/1"})
    assert json.loads(capsys.readouterr().out) == {"schema": "job/1", "id": "x"}


BROKEN = os.fsdecode(b"gold\xffn.vhd")


def test_a_file_name_that_is_no_utf8_is_shown_with_its_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.answer(BROKEN)
    output.answer_properties([("name", BROKEN)])
    output.answer_json("thing/1", {"name": BROKEN, "\ud800": 1})
    output.note(BROKEN)
    out = capsys.readouterr()
    shown = r"gold\xffn.vhd"
    plain, named, as_json = out.out.splitlines()
    assert (plain, named) == (shown, f"name:  {shown}")
    assert json.loads(as_json) == {"schema": "thing/1", "name": shown, r"\ud800": 1}
    assert out.err == f"{shown}\n"
    out.out.encode()  # strict: what a parser of UTF-8 takes


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "de_DE.ISO-8859-1"])
@pytest.mark.parametrize("how", [(), ("--json",)], ids=["text", "json"])
def test_output_is_utf8_in_every_locale(how: tuple[str, ...], locale: str) -> None:
    name = "keine Größe ".encode() + b"\xff"
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", "disk", "info", name, *how],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": locale, "PYTHONIOENCODING": "latin-1:strict"},
    )
    assert done.returncode == 66
    assert "code: imaging.file-missing" in done.stderr.decode()
    assert r"\xff" in done.stderr.decode()
    if how:
        assert json.loads(done.stdout.decode())["schema"] == "error/1"


def test_properties_and_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.answer_properties([("a", "1"), ("longer", "2")])
    output.answer_table(["id", "state"], [["1", "running"], ["22", "ok"]])
    assert capsys.readouterr().out == ("a:       1\nlonger:  2\nid  state\n1   running\n22  ok\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_shows_percent_rate_and_time_left_and_wipes_itself() -> None:
    stream, clock = Terminal(), Clock()
    with output.ProgressLine("digest", 10 * MiB, stream=stream, clock=clock) as line:
        clock.now += 2
        line.advance(4 * MiB)
        assert stream.getvalue() == "\r\x1b[Kdigest  40%  2.0 MiB/s  00:03 left"
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_redraws_at_most_ten_times_a_second() -> None:
    stream, clock = Terminal(), Clock()
    line = output.ProgressLine("digest", 1000, stream=stream, clock=clock)
    for _ in range(1000):
        clock.now += 0.001
        line.advance(1)
    assert 8 <= stream.getvalue().count("digest") <= 10


def test_progress_is_silent_where_nobody_looks() -> None:
    stream, clock = io.StringIO(), Clock()
    with output.ProgressLine("digest", 10, stream=stream, clock=clock) as line:
        clock.now += 5
        line.advance(5)
    assert stream.getvalue() == ""


def test_progress_before_the_first_byte_knows_no_time_left() -> None:
    line = output.ProgressLine("digest", 10, stream=io.StringIO(), clock=Clock())
    assert line.text(0.0) == "digest   0%  0 bytes/s  --:-- left"


@contextmanager
def terminal() -> Iterator[int]:
    """Make stderr a terminal of 20 columns; yields the end that people see."""
    seen, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    with os.fdopen(ours, "w") as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        yield seen
    os.close(seen)


def read_until(seen: int, end: bytes) -> bytes:
    """Return what people see up to what must come: a terminal hands it on in pieces."""
    text = b""
    while not text.endswith(end) or text == end:
        text += os.read(seen, 999)
    return text


def test_a_note_takes_the_place_of_the_line_that_is_being_redrawn() -> None:
    with terminal() as seen:
        output.redraw("copy  40%")
        output.note("imageport: interrupted")
        output.note("second")
        assert read_until(seen, b"second\r\n") == (
            b"\r\x1b[Kcopy  40%\r\x1b[Kimageport: interrupted\r\nsecond\r\n"
        )


def test_the_answer_does_not_follow_the_line_that_is_being_redrawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with terminal() as seen:
        output.redraw("copy  40%")
        output.answer("done")
        assert read_until(seen, b"\r\x1b[K").endswith(b"\r\x1b[K")
    assert capsys.readouterr().out == "done\n"


def test_a_line_that_is_redrawn_is_cut_to_the_terminal() -> None:
    with terminal() as seen:
        output.redraw("x" * 90)
        output.note("")
        assert b"K" + b"x" * 19 + b"\r" in read_until(seen, b"\r\n")


def test_without_stderr_notes_do_not_get_among_the_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    output.note("for nobody")
    with output.ProgressLine("digest", 1) as line:
        line.advance(1)
    assert capsys.readouterr().out == ""
