"""What is printed: units, tables, JSON, and the progress line under a virtual clock."""

import io
import json

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
