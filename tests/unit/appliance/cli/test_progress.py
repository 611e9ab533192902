"""The live line of a job: what it says, and that it says nothing twice."""

import io
import sys

import pytest

from appliance.cli.progress import event_line, event_text


@pytest.mark.parametrize(
    ("state", "data", "text"),
    [
        ("queued", {}, "queued"),
        ("failed", {"message": "no such file"}, "failed: no such file"),
        ("failed", {"code": "share.not-found"}, "failed: share.not-found"),
        (
            "running",
            {"progress": {"step": "copy", "done": 0, "total": 0}},
            "running copy 100% 0 bytes of 0 bytes",
        ),
        (
            "running",
            {"progress": {"step": "copy", "done": 1, "total": 2, "retries": 3, "slow": "share"}},
            "running copy  50% 1 byte of 2 bytes, 3 retries, held back by share",
        ),
        ("running", {"message": "a\nb\x1b[H"}, "running: a\\nb\\x1b[H"),
    ],
    ids=["state", "message", "code", "empty", "retries", "control characters"],
)
def test_one_event_is_one_line(state: str, data: dict[str, object], text: str) -> None:
    assert event_text(state, data) == text


def test_the_same_again_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show = event_line()
    for state in ("queued", "queued", "running"):
        show(state, {})
    assert stream.getvalue() == "  queued\n  running\n"


def test_on_a_terminal_the_end_does_not_follow_the_progress_on_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show = event_line()
    show("running", {"progress": {"step": "verify", "done": 1, "total": 1}})
    show("succeeded", {})
    assert capsys.readouterr().err.endswith("\r\x1b[K  succeeded\n")
