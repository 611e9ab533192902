"""`imageport disk create-child`, and `convert` to a differencing VHDX: their JSON, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from imaging.device import read_bytes
from imaging.formats import open_path
from tests.support.disks import MiB, Vhdx, pattern, root_of

CONTENT = pattern(4 * MiB)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    blocks = {number: CONTENT[number * MiB : (number + 1) * MiB] for number in range(4)}
    return Vhdx(4 * MiB, blocks).write(tmp_path / "base.vhdx")


def run(*arguments: str | Path) -> int:
    return main(["disk", *map(str, arguments)])


def read(path: Path) -> bytes:
    with open_path(path, format="vhdx") as image:
        return read_bytes(image, 0, image.size)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_contract_of_create_child(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = parent.with_name("base.1.avhdx")
    assert run("create-child", parent, child, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": "disk-create-child/1",
        "format": "vhdx",
        "subformat": "differencing",
        "parent": "base.vhdx",
        "virtual_size": 4 * MiB,
        "block_size": MiB,
        "sector_size": 512,
        "file_size": child.stat().st_size,
    }
    assert read(child) == CONTENT


def test_without_json_it_is_silent(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create-child", parent, parent.with_name("c.avhdx")) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_each_child_has_a_guid_of_its_own(parent: Path) -> None:
    children = [parent.with_name(f"{number}.avhdx") for number in range(2)]
    for child in children:
        assert run("create-child", parent, child) == 0
    assert children[0].read_bytes() != children[1].read_bytes()


def test_a_child_that_is_there_is_never_replaced(
    parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("create-child", parent, parent) == 73
    assert "imaging.file-exists" in capsys.readouterr().err
    assert read(parent) == CONTENT


def test_contract_of_convert(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = bytearray(CONTENT)
    new[MiB : MiB + 512] = pattern(512, 2)
    source, child = parent.with_name("new.raw"), parent.with_name("v2.avhdx")
    source.write_bytes(new + b"tail")
    code = run(
        *("convert", source, child, "--to", "vhdx:differencing", "--parent", parent, "--json")
    )
    said = capsys.readouterr()
    answer: dict[str, Any] = json.loads(said.out)
    assert (code, answer.pop("seconds") >= 0) == (0, True)
    assert 512 <= answer.pop("bytes_written") < 2 * MiB
    assert answer == {
        "schema": "disk-convert/1",
        "format": "vhdx",
        "subformat": "differencing",
        "parent": "base.vhdx",
        "virtual_size": len(new) + 4,
        "padded_size": len(new) + 512,
        "file_size": child.stat().st_size,
        "root": root_of(bytes(new) + b"tail"),
        "bytes_read": len(new) + 4,
    }
    assert "508 bytes longer" in said.err
    assert read(child) == (new + b"tail").ljust(len(new) + 512, b"\0")
    assert names(parent.parent) == ["base.vhdx", "new.raw", "v2.avhdx"]


def test_the_root_or_nothing_is_printed(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = ("--to", "vhdx:differencing", "--parent", parent)
    assert run("convert", parent, parent.with_name("a.avhdx"), *to) == 0
    assert capsys.readouterr().out == root_of(CONTENT) + "\n"
    assert run("convert", parent, parent.with_name("a.avhdx"), *to, "--no-digest", "--replace") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("to", ["vhdx", "vhdx:differencing"])
def test_a_parent_is_for_differencing_disks_and_they_need_one(
    to: str, parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--parent", parent) if to == "vhdx" else ()
    assert run("convert", parent, parent.with_name("a.avhdx"), "--to", to, *more) == 2
    assert "need each other" in capsys.readouterr().err
    assert names(parent.parent) == ["base.vhdx"]


def test_the_parent_is_never_written(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = parent.with_name("new.raw")
    source.write_bytes(pattern(4 * MiB, 2))
    to = ("--to", "vhdx:differencing", "--parent", parent, "--replace")
    assert run("convert", source, parent, *to) == 2
    assert run("convert", source, source, *to) == 2
    assert read(parent) == CONTENT


def test_sectors_of_a_vhdx_must_be_the_parents_and_a_raw_disk_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = Vhdx(MiB, {0: pattern(MiB)}, sector=4096).write(tmp_path / "base.vhdx")
    small = Vhdx(MiB, {0: pattern(MiB, 2)}).write(tmp_path / "small.vhdx")
    raw = tmp_path / "new.raw"
    raw.write_bytes(pattern(MiB, 3))
    to = ("--to", "vhdx:differencing", "--parent", parent)
    assert run("convert", small, tmp_path / "a.avhdx", *to, "--json") == 65
    assert json.loads(capsys.readouterr().out)["code"] == "imaging.parent-mismatch"
    assert run("convert", raw, tmp_path / "a.avhdx", *to) == 0
    assert read(tmp_path / "a.avhdx") == pattern(MiB, 3)


def test_a_parent_that_is_no_vhdx_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "disk.raw").write_bytes(CONTENT)
    assert run("create-child", tmp_path / "disk.raw", tmp_path / "c.avhdx") == 65
    assert f"{tmp_path / 'disk.raw'}: the file begins with" in capsys.readouterr().err
    assert names(tmp_path) == ["disk.raw"]
