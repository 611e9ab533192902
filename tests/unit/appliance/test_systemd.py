"""The units: systemd itself reads them, and its own judgement of their exposure stays low."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[3] / "appliance" / "systemd"
_UNITS = sorted(_FOLDER.glob("*.service"))
_MAX_EXPOSURE = 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)"
)


def _settings(unit: Path) -> dict[str, list[str]]:
    rows = [
        line.split("=", 1)
        for line in unit.read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith("#")
    ]
    return {key: [value for name, value in rows if name == key] for key, _ in rows}


def test_there_is_a_unit_for_each_service() -> None:
    assert [unit.stem for unit in _UNITS] == [
        "imageport-agent",
        "imageport-relay",
        "imageport-signer",
    ]


@needs_systemd
@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.stem)
def test_exposure_is_low_in_systemds_own_judgement(unit: Path) -> None:
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert found is not None, ran.stderr
    assert float(found[1]) <= _MAX_EXPOSURE


@needs_systemd
@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    """With a command that exists on every machine; unknown settings are what verify complains about."""
    copy = tmp_path / unit.name
    text = unit.read_text(encoding="utf-8")
    copy.write_text(text.replace("/usr/bin/imageport", "/bin/true"), encoding="utf-8")
    ran = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    mine = [line for line in ran.stderr.splitlines() if unit.name in line]
    assert (ran.returncode, mine) == (0, [])


@needs_systemd
def test_systemd_would_make_the_users() -> None:
    ran = subprocess.run(
        ["systemd-sysusers", "--dry-run", str(_FOLDER / "imageport.sysusers")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "ignoring" not in ran.stderr


@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.stem)
def test_each_service_has_its_own_user_and_folder(unit: Path) -> None:
    settings = _settings(unit)
    (user,) = settings["User"]
    assert user != "root"
    assert settings["Group"] == settings["StateDirectory"] == [user]
    users = (_FOLDER / "imageport.sysusers").read_text(encoding="utf-8")
    folders = (_FOLDER / "imageport.tmpfiles").read_text(encoding="utf-8")
    assert re.search(rf"^u {user} ", users, re.MULTILINE)
    assert re.search(rf"^d /var/lib/{user} 0700 {user} {user} ", folders, re.MULTILINE)


@pytest.mark.parametrize("unit", _UNITS, ids=lambda unit: unit.stem)
def test_a_bad_configuration_is_not_started_for_ever(unit: Path) -> None:
    settings = _settings(unit)
    assert settings["Type"] == ["notify"]
    assert settings["RestartPreventExitStatus"] == ["78"]


def test_the_agents_heap_is_tuned_before_it_starts() -> None:
    (malloc, _) = _settings(_FOLDER / "imageport-agent.service")["Environment"]
    assert [part.split("=")[0] for part in malloc.split()] == [
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_TOP_PAD_",
    ]
