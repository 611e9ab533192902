"""`imageport disk digest`: the root, the digest manifest beside an image, and what comparing with one says."""

import json
from pathlib import Path

import pytest

from appliance.cli.main import main
from tests.support.disks import MiB, fixed_vhd, pattern, root_of

RAW = pattern(3 * MiB + 512)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(RAW)
    return path


def digest(*arguments: str | Path) -> int:
    return main(["disk", "digest", *map(str, arguments)])


@pytest.fixture
def manifest(raw: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert digest(raw, "--manifest", "--json") == 0
    path = raw.with_name("disk.raw.digest")
    assert json.loads(capsys.readouterr().out) == {
        "schema": "disk-digest/1",
        "virtual_size": len(RAW),
        "block_size": 512 * 1024,
        "root": root_of(RAW),
        "digest_manifest": str(path),
    }
    return path


def test_it_belongs_to_the_disk_whatever_the_format(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy.vhd").write_bytes(fixed_vhd(RAW))
    assert digest(tmp_path / "copy.vhd", "--verify", manifest) == 0
    assert capsys.readouterr().out == f"equal: {root_of(RAW)}\n"


def test_writing_it_again_prints_the_root(
    raw: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = manifest.read_bytes()
    assert digest(raw, "--manifest") == 0
    assert capsys.readouterr().out == root_of(RAW) + "\n"
    assert manifest.read_bytes() == before


def test_a_changed_image_is_noticed_and_the_blocks_are_named(
    raw: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = bytearray(RAW)
    changed[MiB + 5] ^= 1
    changed[-1] ^= 1
    raw.write_bytes(changed)
    assert digest(raw, "--verify", manifest) == 1
    assert capsys.readouterr().out == (
        f"different: block 2 (at byte {MiB})\ndifferent: block 6 (at byte {3 * MiB})\n"
    )
    assert digest(raw, "--verify", manifest, "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "schema": "disk-verify/1",
        "equal": False,
        "virtual_size": len(RAW),
        "expected_virtual_size": len(RAW),
        "root": root_of(bytes(changed)),
        "expected_root": root_of(RAW),
        "block_size": 512 * 1024,
        "differing_blocks": 2,
        "first_blocks": [2, 6],
    }


def test_sizes(raw: Path, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw.write_bytes(RAW + bytes(MiB))
    assert digest(raw, "--verify", manifest) == 0
    assert "what the disk has more reads as zeros" in capsys.readouterr().err
    raw.write_bytes(RAW[:MiB])
    assert digest(raw, "--verify", manifest) == 1
    assert f"the disk has {MiB} bytes, its manifest {len(RAW)}" in capsys.readouterr().out


def test_only_so_many_blocks_are_listed(
    raw: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw.write_bytes(pattern(40 * MiB, 2))
    assert digest(raw, "--verify", manifest) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[-1]) == (21, "different: 80 blocks in all")


def test_a_damaged_manifest_is_an_error_that_names_it(
    raw: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest.write_bytes(manifest.read_bytes()[:-1])
    assert digest(raw, "--verify", manifest, "--json") == 65
    answer = json.loads(capsys.readouterr().out)
    assert answer["code"] == "imaging.digest-manifest"
    assert str(manifest) in answer["message"]
    assert digest(raw, "--verify", raw) == 65
    assert digest(raw, "--verify", raw.with_name("missing")) == 66


def test_other_files_of_that_name_are_left_alone(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = raw.with_name("disk.raw.digest")
    path.write_bytes(b"precious")
    assert digest(raw, "--manifest") == 73
    assert path.read_bytes() == b"precious"


def test_writing_and_verifying_at_once_is_no_question(raw: Path) -> None:
    assert digest(raw, "--verify", raw, "--manifest") == 2
