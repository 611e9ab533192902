"""`imageport disk`: the contract of its JSON, what people see, and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from tests.support.disks import MiB, Vhdx, fixed_vhd, pattern, root_of

RAW = pattern(2 * MiB + 512)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(RAW)
    return path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    code = main([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_info_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Vhdx(3 * MiB, {0: pattern(MiB)}).write(tmp_path / "gold.vhdx")
    assert answer(capsys, "disk", "info", path) == (
        0,
        {
            "schema": "disk-info/1",
            "format": "vhdx",
            "subformat": "dynamic",
            "virtual_size": 3 * MiB,
            "file_size": 5 * MiB,
            "block_size": MiB,
            "sector_size": 512,
            "parent": None,
            "dirty": False,
            "warnings": [],
        },
    )


def test_digest_contract(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "disk", "digest", raw) == (
        0,
        {
            "schema": "disk-digest/1",
            "virtual_size": len(RAW),
            "block_size": 524288,
            "root": root_of(RAW),
        },
    )


def test_digest_prints_the_root_and_nothing_else(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["disk", "digest", str(raw)]) == 0
    out = capsys.readouterr()
    assert out.out == root_of(RAW) + "\n"
    assert out.err == ""


def test_the_same_disk_has_one_root_in_every_format(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vhd = tmp_path / "disk.vhd"
    vhd.write_bytes(fixed_vhd(RAW))
    blocks = {block: RAW[block * MiB : (block + 1) * MiB] for block in (2, 1, 0)}
    vhdx = Vhdx(len(RAW), blocks).write(tmp_path / "disk.vhdx")
    roots = {answer(capsys, "disk", "digest", path)[1]["root"] for path in (raw, vhd, vhdx)}
    assert roots == {root_of(RAW)}


def test_info_for_people(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disk", "info", str(raw)]) == 0
    assert "virtual size:  2.0 MiB (2097664 bytes)" in capsys.readouterr().out


def test_warnings_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(b"x" * 1000)
    assert main(["disk", "digest", str(path)]) == 0
    out = capsys.readouterr()
    assert out.out.count("\n") == 1
    assert "warning" in out.err


def test_a_given_format_is_taken(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = answer(capsys, "disk", "info", "--format", "vhdx", raw)
    assert (code, error["code"]) == (65, "imaging.invalid")
    assert str(raw) in error["message"]


@pytest.mark.parametrize(
    ("name", "content", "code", "name_of_cause"),
    [
        ("gone.vhdx", None, 66, "imaging.file-missing"),
        ("short.vhdx", b"vhdxfile", 65, "imaging.truncated"),
        ("no.vhd", b"x" * 4096, 65, "imaging.format-mismatch"),
        ("some.qcow2", b"QFI\xfb".ljust(4096), 65, "imaging.unsupported"),
        ("empty.raw", b"", 65, "imaging.invalid"),
    ],
)
def test_refusals(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    code: int,
    name_of_cause: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found, error = answer(capsys, "disk", "digest", tmp_path / name)
    assert (found, error["code"]) == (code, name_of_cause)
    assert name in error["message"]


def test_a_directory_is_no_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = answer(capsys, "disk", "info", tmp_path)
    assert (code, error["code"]) == (66, "imaging.not-a-file")


def test_without_a_verb_it_is_a_usage_error() -> None:
    assert main(["disk"]) == 2
