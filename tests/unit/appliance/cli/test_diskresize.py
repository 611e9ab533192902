"""`imageport disk resize`: sizes as people write them, its JSON, its refusals."""

import json
from pathlib import Path

import pytest

from appliance.cli.main import main
from tests.support.disks import MiB, Vhdx, fixed_vhd, pattern


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8388608", 8 * MiB),
        ("8MiB", 8 * MiB),
        ("+5MiB", 8 * MiB),
        ("8192KiB", 8 * MiB),
        ("8M", 8 * MiB),
        ("+5120K", 8 * MiB),
    ],
)
def test_resize_contract(
    text: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Vhdx(3 * MiB, {0: pattern(MiB)}).write(tmp_path / "a.vhdx")
    assert main(["disk", "resize", str(image), text, "--json"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out) == {
        "schema": "disk-resize/1",
        "format": "vhdx",
        "subformat": "dynamic",
        "virtual_size_before": 3 * MiB,
        "virtual_size": size,
        "file_size": image.stat().st_size,
    }
    assert "extend its partition" in answer.err


def test_resize_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.vhd").write_bytes(fixed_vhd(pattern(MiB)))
    assert main(["disk", "resize", str(tmp_path / "a.vhd"), "2MiB"]) == 0
    assert capsys.readouterr().out == "2097152 bytes, 1048576 before\n"


@pytest.mark.parametrize("text", ["", "-5", "5MB", "1.5GiB", "x", "+", "9" * 20, "5 MiB"])
def test_what_is_no_size_is_a_usage_error(text: str, tmp_path: Path) -> None:
    assert main(["disk", "resize", str(tmp_path / "a.vhdx"), text]) == 2


@pytest.mark.parametrize(
    ("name", "size", "code", "error"),
    [
        ("a.vhdx", "1MiB", 2, "imaging.size-refused"),
        ("a.vhdx", "9999TiB", 65, "imaging.disk-too-large"),
        ("a.img", "9MiB", 2, "imaging.format-unsaid"),
        ("gone.vhdx", "9MiB", 66, "imaging.file-missing"),
        ("a.qcow2", "9MiB", 65, "imaging.format-mismatch"),
    ],
)
def test_refusals(
    name: str, size: str, code: int, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Vhdx(3 * MiB, {0: pattern(MiB)}).write(tmp_path / "a.vhdx")
    content = image.read_bytes()
    (tmp_path / "a.img").write_bytes(content)
    (tmp_path / "a.qcow2").write_bytes(pattern(MiB))
    assert main(["disk", "resize", str(tmp_path / name), size, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["code"] == error
    assert image.read_bytes() == content
