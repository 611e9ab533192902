"""`imageport disk`: the contract of its JSON, what people see, and its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from tests.support.disks import MiB, Vhdx, fixed_vhd, pattern, root_of
from tests.support.qcow2_images import Qcow2

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


# --- map


def test_map_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Vhdx(3 * MiB, {0: pattern(MiB)}, states={1: 2}).write(tmp_path / "gold.vhdx")
    assert answer(capsys, "disk", "map", path) == (
        0,
        {
            "schema": "disk-map/1",
            "virtual_size": 3 * MiB,
            "extents": [
                {"offset": 0, "length": MiB, "kind": "data"},
                {"offset": MiB, "length": MiB, "kind": "zero"},
                {"offset": 2 * MiB, "length": MiB, "kind": "hole"},
            ],
        },
    )


def test_map_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Vhdx(3 * MiB, {0: pattern(MiB)}).write(tmp_path / "gold.vhdx")
    assert main(["disk", "map", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "OFFSET   LENGTH   KIND",
        "0        1048576  data",
        "1048576  2097152  hole",
    ]


# --- compare


@pytest.fixture
def vhd(tmp_path: Path) -> Path:
    path = tmp_path / "disk.vhd"
    path.write_bytes(fixed_vhd(RAW))
    return path


def test_compare_contract(raw: Path, vhd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = len(RAW)
    fields = {"schema": "disk-compare/1", "size_a": size, "size_b": size}
    equal = fields | {"equal": True, "first_difference": None}
    assert answer(capsys, "disk", "compare", raw, vhd) == (0, equal)
    vhd.write_bytes(fixed_vhd(RAW[: MiB + 7] + b"?" + RAW[MiB + 8 :]))
    different = fields | {"equal": False, "first_difference": MiB + 7}
    assert answer(capsys, "disk", "compare", raw, vhd) == (1, different)
    assert answer(capsys, "disk", "compare", vhd, raw) == (1, different)


def test_compare_for_people(raw: Path, vhd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disk", "compare", str(raw), str(vhd)]) == 0
    assert capsys.readouterr() == ("equal\n", "")
    vhd.write_bytes(fixed_vhd(b"?" + RAW[1:]))
    assert main(["disk", "compare", str(raw), str(vhd)]) == 1
    assert capsys.readouterr() == ("different: the first byte that differs is at 0\n", "")


def test_an_excess_of_zeros_is_equal_with_a_warning_but_not_strictly(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer, sizes = tmp_path / "longer.raw", (len(RAW), 3 * MiB)
    longer.write_bytes(RAW.ljust(3 * MiB, b"\0"))
    assert main(["disk", "compare", str(raw), str(longer)]) == 0
    out = capsys.readouterr()
    assert out.out == "equal\n"
    assert "warning: the sizes differ, {} and {} bytes".format(*sizes) in out.err
    assert main(["disk", "compare", str(raw), str(longer), "--strict"]) == 1
    told = "different: the sizes are {} and {} bytes\n".format(*sizes)
    assert capsys.readouterr() == (told, "")
    code, found = answer(capsys, "disk", "compare", longer, raw, "--strict")
    assert (code, found["equal"], found["first_difference"]) == (1, False, None)
    assert (found["size_a"], found["size_b"]) == sizes[::-1]


def test_strictly_equal_disks_are_equal(raw: Path, vhd: Path) -> None:
    assert main(["disk", "compare", str(raw), str(vhd), "--strict"]) == 0


def test_an_excess_that_is_not_zeros_differs(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = tmp_path / "longer.raw"
    longer.write_bytes(RAW.ljust(3 * MiB - 1, b"\0") + b"x")
    code, found = answer(capsys, "disk", "compare", raw, longer)
    assert (code, found["first_difference"]) == (1, 3 * MiB - 1)


def test_each_side_has_its_own_format_and_its_own_error(
    raw: Path, vhd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = answer(capsys, "disk", "compare", "--format-b", "raw", raw, vhd)
    assert (code, found["size_b"]) == (1, len(RAW) + 512)
    code, error = answer(capsys, "disk", "compare", "--format-a", "vhdx", vhd, raw)
    assert (code, error["code"]) == (65, "imaging.invalid")
    assert str(vhd) in error["message"]
    code, error = answer(capsys, "disk", "compare", raw, raw.with_name("gone"))
    assert (code, error["code"]) == (66, "imaging.file-missing")


def test_an_image_that_fails_while_it_is_read_is_an_error_and_no_difference(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Qcow2(len(RAW), {0: RAW[:4096]}, entries={1: 512})
    damaged = image.write(tmp_path / "damaged.qcow2")
    code, error = answer(capsys, "disk", "compare", raw, damaged)
    assert (code, error["code"]) == (65, "imaging.invalid")
    assert "damaged.qcow2: the L2 table" in error["message"]


@pytest.mark.parametrize(
    ("name", "content", "code", "name_of_cause"),
    [
        ("gone.vhdx", None, 66, "imaging.file-missing"),
        ("short.vhdx", b"vhdxfile", 65, "imaging.truncated"),
        ("no.vhd", b"x" * 4096, 65, "imaging.format-mismatch"),
        ("some.qcow2", b"QFI\xfb\0\0\0\4".ljust(4096), 65, "imaging.unsupported"),
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
