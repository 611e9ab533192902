"""`imageport disk check`: its JSON, its lines for people, and its exit codes."""

import json
from pathlib import Path

import pytest

from appliance.cli.main import main
from tests.support.disks import KiB, MiB, Vhdx, pattern, vhdx_header


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    image = Vhdx(3 * MiB, {0: pattern(MiB)}, parts={256 * KiB + 20: b"\xff"})
    return image.write(tmp_path / "gold.vhdx")


def test_check_contract(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disk", "check", str(damaged), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    message = answer["findings"][0].pop("message")
    assert message.startswith("the VHDX region table at file offset 262144 has checksum")
    assert answer == {
        "schema": "disk-check/1",
        "format": "vhdx",
        "subformat": "dynamic",
        "virtual_size": 3 * MiB,
        "file_size": 5 * MiB,
        "parent": None,
        "clean": False,
        "findings": [
            {
                "code": "check.copy-damaged",
                "severity": "error",
                "offset": 256 * KiB,
                "length": 64 * KiB,
                "repairable": True,
                "repaired": False,
            }
        ],
    }


def test_check_for_people(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = damaged.read_bytes()
    assert main(["disk", "check", str(damaged)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("error: the VHDX region table")
    assert first.endswith("the other copy is sound (check.copy-damaged) [repairable: --repair]")
    assert last == "dynamic vhdx: not clean"
    assert damaged.read_bytes() == before


def test_a_repair_is_told_finding_by_finding(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["disk", "check", str(damaged), "--repair", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["clean"], answer["findings"][0]["repaired"]) == (True, True)
    assert main(["disk", "check", str(damaged), "--repair"]) == 0
    assert capsys.readouterr().out == "dynamic vhdx: clean\n"


def test_what_is_not_repairable_stays_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Vhdx(3 * MiB, {0: pattern(MiB)}, parts={256 * KiB + 20: b"\xff"}, file_size=9 * MiB)
    image.parts[7 * MiB] = pattern(MiB)  # which nothing names
    path = image.write(tmp_path / "a.vhdx")
    assert main(["disk", "check", str(path), "--repair"]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("repaired: the VHDX region table")
    assert second.startswith("warning: ")
    assert last == "dynamic vhdx: not clean"


def test_nothing_is_written_to_a_file_of_which_nobody_said_the_format(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = damaged.rename(damaged.with_suffix(".img"))
    before = disk.read_bytes()
    assert main(["disk", "check", str(disk), "--repair"]) == 2
    assert "imaging.format-unsaid" in capsys.readouterr().err
    assert disk.read_bytes() == before
    assert main(["disk", "check", str(disk), "--repair", "--format", "vhdx"]) == 0


def test_notes_are_told_and_exit_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Vhdx(MiB, {0: pattern(MiB)}, headers=(vhdx_header(1), vhdx_header(1)))
    assert main(["disk", "check", str(image.write(tmp_path / "a.vhdx"))]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("note: both headers")
    assert last == "dynamic vhdx: clean"


def test_a_raw_disk_is_only_called_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk.raw").write_bytes(pattern(MiB))
    assert main(["disk", "check", str(tmp_path / "disk.raw")]) == 0
    assert capsys.readouterr().out == "raw: clean\n"


@pytest.mark.parametrize(("name", "code"), [("gone.vhdx", 66), ("short.vhdx", 65)])
def test_what_cannot_be_read_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    (tmp_path / "short.vhdx").write_bytes(b"vhdxfile")
    assert main(["disk", "check", str(tmp_path / name), "--json"]) == code
    assert json.loads(capsys.readouterr().out)["schema"] == "error/1"
