"""`imageport disk convert`: the contract of its JSON, what it refuses, and what it leaves behind."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import diskconvert
from appliance.cli.main import main
from tests.support.chains import model, vhd_chain, vhdx_chain
from tests.support.disks import GiB, MiB, Vhdx, pattern, root_of, write_sparse

RAW = pattern(2 * MiB + 512)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(RAW)
    return path


def run(*arguments: str | Path) -> int:
    return main(["disk", "convert", *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_contract(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "disk.vhdx"
    assert run(raw, target, "--to", "vhdx:dynamic", "--json") == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer.pop("seconds") >= 0
    assert answer.pop("bytes_written") >= len(RAW)
    assert answer == {
        "schema": "disk-convert/1",
        "format": "vhdx",
        "subformat": "dynamic",
        "virtual_size": len(RAW),
        "padded_size": len(RAW),
        "file_size": target.stat().st_size,
        "root": root_of(RAW),
        "digest_manifest": f"{target}.digest",
        "resumed_from": 0,
        "bytes_read": len(RAW),
    }
    assert names(tmp_path) == ["disk.raw", "disk.vhdx", "disk.vhdx.digest"]
    assert main(["disk", "digest", str(target), "--verify", f"{target}.digest"]) == 0
    assert capsys.readouterr().out == f"equal: {root_of(RAW)}\n"


def test_it_prints_the_root_and_nothing_else(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raw, tmp_path / "a", "--to", "raw") == 0
    assert capsys.readouterr().out == root_of(RAW) + "\n"
    assert run(raw, tmp_path / "b", "--to", "raw", "--no-digest") == 0
    assert capsys.readouterr().out == ""
    assert run(raw, tmp_path / "c", "--to", "raw", "--no-digest", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["root"], answer["digest_manifest"]) == (None, None)
    assert names(tmp_path) == ["a", "a.digest", "b", "c", "disk.raw"]
    assert (tmp_path / "b").read_bytes() == RAW


def test_an_odd_size_is_rounded_up_with_a_warning_where_it_must(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_sparse(tmp_path / "odd.raw", 1_000_001, {1_000_000: b"x"})
    assert run(raw, tmp_path / "a.vhd", "--to", "vhd", "--json") == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert (answer["virtual_size"], answer["padded_size"]) == (1_000_001, 1_000_448)
    assert answer["root"] == root_of(raw.read_bytes())
    assert "447 bytes longer" in said.err
    assert run(raw, tmp_path / "a.raw", "--to", "raw") == 0
    assert (tmp_path / "a.raw").stat().st_size == 1_000_001
    assert "longer" not in capsys.readouterr().err


def test_google_clouds_archive_is_whole_gib_and_says_so(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raw, tmp_path / "a.tar.gz", "--to", "targz", "--json") == 0
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert (answer["format"], answer["subformat"]) == ("targz", "")
    assert (answer["virtual_size"], answer["padded_size"]) == (len(RAW), GiB)
    assert answer["root"] == root_of(RAW)
    assert f"{GiB - len(RAW)} bytes longer" in shown.err


@pytest.mark.parametrize("to", ["vmdk:streamOptimized", "targz"])
def test_a_level_is_chosen(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "disk.raw"
    source.write_bytes(b"".join(b"%d bottles of beer\n" % i for i in range(50_000)))
    for level in ("fast", "small"):
        assert run(source, tmp_path / level, "--to", to, "--level", level, "--no-digest") == 0
    assert run(source, tmp_path / "usual", "--to", to, "--no-digest") == 0
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["small"] < sizes["fast"] == sizes["usual"]


def test_sectors_of_4096_bytes_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Vhdx(3 * MiB, {0: pattern(MiB)}, sector=4096).write(tmp_path / "a.vhdx")
    for to in ("vhdx:dynamic", "vhdx:fixed"):
        assert run(source, tmp_path / "b.vhdx", "--to", to, "--replace") == 0
        capsys.readouterr()
        assert main(["disk", "info", str(tmp_path / "b.vhdx"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sector_size"] == 4096


def test_a_file_that_is_there_needs_replace(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.vhd"
    target.write_bytes(b"old")
    assert run(raw, target, "--to", "vhd:fixed") == 73
    assert "imaging.file-exists" in capsys.readouterr().err
    assert target.read_bytes() == b"old"
    assert run(raw, target, "--to", "vhd:fixed", "--replace") == 0
    assert target.stat().st_size == len(RAW) + 512


@pytest.mark.parametrize("way", ["same", "dots", "link", "hard", "partial"])
def test_the_source_is_never_written(
    way: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = {"same": raw, "dots": tmp_path / "x" / ".." / raw.name}.get(way, tmp_path / "other")
    if way == "dots":
        (tmp_path / "x").mkdir()
    elif way == "link":
        target.symlink_to(raw)
    elif way == "hard":
        target.hardlink_to(raw)
    elif way == "partial":
        raw = raw.rename(tmp_path / "other.partial")
    assert run(raw, target, "--to", "raw", "--replace") == 2
    assert "is the source itself" in capsys.readouterr().err
    assert raw.read_bytes() == RAW


def test_a_dash_is_no_stream(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(raw, Path("-"), "--to", "raw") == 2
    assert "write ./- for a file of that name" in capsys.readouterr().err
    assert main(["disk", "convert", str(raw), "./-", "--to", "raw"]) == 0


def test_an_unknown_target_lists_the_known_ones(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raw, tmp_path / "a", "--to", "vdi") == 2
    assert "'vdi' is none of raw, vhd:fixed, vhd:dynamic" in capsys.readouterr().err
    assert names(tmp_path) == ["disk.raw"]


def test_a_size_beyond_the_format_is_refused_with_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = 2041 << 30
    raw = write_sparse(tmp_path / "big.raw", size, {})
    assert run(raw, tmp_path / "a.vhd", "--to", "vhd:dynamic", "--json") == 65
    answer = json.loads(capsys.readouterr().out)
    assert answer["code"] == "imaging.disk-too-large"
    assert answer["fields"] == {"size": size, "limit": 2040 << 30}
    assert names(tmp_path) == ["big.raw"]


def test_a_full_disk_is_named_and_nothing_is_left(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert run(raw, tmp_path / "a.vhdx", "--to", "vhdx", "--json") == 73
    assert json.loads(capsys.readouterr().out)["code"] == "imaging.full"
    assert names(tmp_path) == ["disk.raw"]


def test_an_interrupt_leaves_nothing(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(diskconvert, "convert", interrupted)
    assert run(raw, tmp_path / "a.vhdx", "--to", "vhdx") == 130
    assert names(tmp_path) == ["disk.raw"]


def test_what_the_source_is_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Vhdx(3 * MiB, {0: pattern(MiB)}).write(tmp_path / "a.vhdx")
    assert run(source, tmp_path / "a.raw", "--to", "raw", "--format", "raw") == 0
    assert (tmp_path / "a.raw").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("chain", [vhd_chain, vhdx_chain])
def test_a_chain_becomes_one_image_and_its_parent_is_never_written(
    chain: Callable[..., dict[str, bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = [(3 * MiB, [(0, pattern(MiB))]), (3 * MiB, [(MiB - 512, pattern(4096, 2))])]
    files = chain(layers)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    base, top = (tmp_path / name for name in files)
    assert run(top, base, "--to", "raw", "--replace") == 2
    assert f"is part of the source, {base.name}" in capsys.readouterr().err
    assert run(top, tmp_path / "flat.raw", "--to", "raw") == 0
    assert (tmp_path / "flat.raw").read_bytes() == model(layers)
    assert names(tmp_path) == sorted([*files, "flat.raw", "flat.raw.digest"])
