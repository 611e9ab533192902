"""The machine: what systemd says about the unit, with a systemctl of our own; and room on the disk."""

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import Loaded, parse
from appliance.doctor.base import Context, Finding, Options, Status
from appliance.doctor.checks import host
from imaging.units import GiB, MiB

_Usage = namedtuple("_Usage", "total used free")


async def _found(state: Path) -> dict[str, Finding]:
    context = Context(Loaded(parse({"state_dir": str(state)}), {}), Options(), lambda: 0.0)
    return {finding.id: finding async for finding in host.run(context)}


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Set the words that a systemctl on PATH says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "systemctl"
    script.write_text(f'#!/bin/sh\nexec cat "{folder}/words"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(host, "SYSTEMD_RUNS", folder)
    return (folder / "words").write_text


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=2", Status.PASS, "2 restarts"),
        ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=watchdog", Status.FAIL, "watchdog"),
        ("LoadState=loaded\nActiveState=inactive\nSubState=dead", Status.WARN, "inactive (dead)"),
        ("LoadState=not-found\nActiveState=inactive", Status.SKIP, "not installed"),
        ("", Status.SKIP, "not installed"),
    ],
    ids=["active", "failed", "stopped", "absent", "silent"],
)  # fmt: skip
async def test_the_unit_is_judged_by_systemds_words(
    tmp_path: Path, systemctl: Callable[[str], object], words: str, status: Status, said: str
) -> None:
    systemctl(words)
    unit = (await _found(tmp_path))["host.unit"]
    assert unit.status is status
    assert said in unit.detail


async def test_without_systemd_the_unit_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "SYSTEMD_RUNS", tmp_path / "none")
    assert (await _found(tmp_path))["host.unit"].status is Status.SKIP


@pytest.mark.parametrize(
    ("free", "status"),
    [(2 * GiB, Status.PASS), (512 * MiB, Status.WARN), (64 * MiB, Status.FAIL)],
)
async def test_room_for_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: Status
) -> None:
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _path: _Usage(4 * GiB, 0, free))
    disk = (await _found(tmp_path / "not" / "there"))["host.disk"]
    assert disk.status is status
    assert disk.evidence["free"] == free
