"""A power loss at any moment of `imageport disk convert`: its target is the old file or the new one, each whole."""

from pathlib import Path

import pytest

from appliance.cli.main import main
from imaging.convert import TARGETS
from tests.support.disks import KiB, MiB, Vhdx, pattern, write_sparse
from tests.support.folderloss import FolderTrace

pytestmark = pytest.mark.exhaustive

SIZE = 3 * MiB + 512
PARTS = {0: pattern(600 * KiB), MiB: bytes(MiB), 2 * MiB + 512: pattern(300 * KiB, 2)}
WAYS = [*TARGETS, "vhdx:differencing"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return write_sparse(tmp_path / "source" / "disk.raw", SIZE, PARTS)


def convert(source: Path, target: Path, to: str, *options: str) -> None:
    parent = ["--parent", str(target.parent / "base.vhdx")] if "differencing" in to else []
    command = ["disk", "convert", str(source), str(target), "--to", to, *parent, *options]
    assert main(command) == 0


@pytest.mark.parametrize("way", ["new", "replace", "resume"])
@pytest.mark.parametrize("to", WAYS)
def test_whatever_a_power_loss_leaves_is_whole(
    to: str, way: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "resume" and (to == "vhdx:differencing" or TARGETS[to].is_stream):
        way = "replace"  # these cannot be resumed, which is tested elsewhere
    folder = tmp_path / "made"
    folder.mkdir()
    Vhdx(4 * MiB, {0: pattern(MiB)}).write(folder / "base.vhdx")
    target = folder / "disk.img"
    if way == "replace":
        convert(write_sparse(tmp_path / "old.raw", MiB, {0: pattern(MiB, 9)}), target, to)
    trace = FolderTrace(folder)
    with monkeypatch.context() as patched:
        trace.attach(patched)
        options = {"new": [], "replace": ["--replace"], "resume": ["--resume"]}[way]
        convert(source, target, to, *options)
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(made) == {"base.vhdx", "disk.img", "disk.img.digest"} - (
        {"disk.img.digest"} if to == "vhdx:differencing" else set()
    )
    seen = set()
    for done, state in trace.states():
        image, manifest = state.get("disk.img"), state.get("disk.img.digest")
        assert image in (trace.initial.get("disk.img"), made["disk.img"])
        is_new = image == made["disk.img"]
        if manifest is not None:
            assert manifest == (made if is_new else trace.initial).get("disk.img.digest")
        assert state["base.vhdx"] == made["base.vhdx"]
        if done == len(trace.events):
            assert state == made
        seen.add((is_new, manifest is None))
    assert len(seen) > 1


def test_the_model_loses_what_it_should(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fsync of the file, or of the folder, there are states that must not be."""
    trace = FolderTrace(tmp_path / "made")
    trace.folder.mkdir()
    with monkeypatch.context() as patched:
        trace.attach(patched)
        convert(source, trace.folder / "disk.img", "raw")
    made = {path.name: path.read_bytes() for path in trace.folder.iterdir()}
    events = trace.events
    trace.events = [event for event in events if event.kind != "fsync"]
    torn = {state.get("disk.img") for _, state in trace.states()} - {None, made["disk.img"]}
    assert torn
    trace.events = [event for event in events if event.kind != "fsyncdir"]
    assert {} in [state for done, state in trace.states() if done == len(trace.events)]
