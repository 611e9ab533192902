"""`imageport disk convert --resume`: what is kept and gone on with, what is told; files that are never written over."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.cli import diskconvert
from appliance.cli.main import main
from appliance.cli.signals import asked_to_end
from imaging.convert.checkpoints import FileCheckpoints
from imaging.newfile import NewFile
from tests.support.chains import vhdx_chain
from tests.support.disks import MiB, pattern, root_of

RAW = pattern(16 * MiB)
KEPT = ["disk.raw", "image", "image.digest"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(RAW)
    return path


def run(*arguments: str | Path) -> int:
    return main(["disk", "convert", *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def on_write(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> None:
    """Do something when byte `at` of the new file is written, once."""
    real = NewFile.write

    def write(self: NewFile, offset: int, data: memoryview | bytes) -> None:
        real(self, offset, data)
        if offset >= at and "partial" in str(self._partial) and not done:
            done.append(offset)
            act()

    done: list[int] = []
    monkeypatch.setattr(NewFile, "write", write)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_is_done_and_the_next_run_goes_on(
    number: signal.Signals,
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(number, signal.default_int_handler)
    on_write(monkeypatch, 6 * MiB, lambda: os.kill(os.getpid(), number))
    command = (raw, tmp_path / "image", "--to", "vhdx", "--resume")
    assert run(*command) == 128 + number
    said = capsys.readouterr()
    assert said.out == ""
    assert "image.partial is kept: the same command with --resume goes on with it" in said.err
    assert names(tmp_path) == ["disk.raw", "image.partial", "image.partial.journal"]
    assert run(*command, "--json") == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["resumed_from"] > 0
    assert answer["bytes_read"] == len(RAW) - answer["resumed_from"]
    assert f"goes on with {tmp_path}/image.partial at byte {answer['resumed_from']}" in said.err
    assert answer["root"] == root_of(RAW)
    assert names(tmp_path) == KEPT
    assert signal.signal(number, before) is signal.default_int_handler
    assert main(["disk", "digest", str(tmp_path / "image"), "--format", "vhdx"]) == 0
    assert capsys.readouterr().out == root_of(RAW) + "\n"


def test_the_second_signal_does_what_it_always_did() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with asked_to_end() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert (asked(), asked.exit_code) == (True, 130)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_what_was_ignored_stays_ignored() -> None:
    """`nohup imageport ... &`: closing the terminal must not end it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asked_to_end() as asked:
        os.kill(os.getpid(), signal.SIGHUP)
    assert not asked()
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def stop_early(raw: Path, target: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    with monkeypatch.context() as patched:
        on_write(patched, 6 * MiB, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(raw, target, "--to", "raw", "--resume", *arguments) == 143


def test_a_changed_source_begins_anew_and_says_so(
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop_early(raw, tmp_path / "image", monkeypatch)
    raw.write_bytes(pattern(16 * MiB, 2))
    os.utime(raw, ns=(1, 1))
    assert run(raw, tmp_path / "image", "--to", "raw", "--resume", "--json") == 0
    said = capsys.readouterr()
    assert "begins anew: the source changed meanwhile" in said.err
    assert json.loads(said.out)["resumed_from"] == 0
    assert (tmp_path / "image").read_bytes() == pattern(16 * MiB, 2)


def test_without_it_the_earlier_run_is_given_up_with_a_word(
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop_early(raw, tmp_path / "image", monkeypatch)
    assert run(raw, tmp_path / "image", "--to", "raw") == 0
    assert "what an earlier run with --resume has left" in capsys.readouterr().err
    assert names(tmp_path) == KEPT
    assert (tmp_path / "image").read_bytes() == RAW


def test_a_first_run_says_nothing(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raw, tmp_path / "image", "--to", "raw", "--resume") == 0
    assert capsys.readouterr().err == ""
    assert names(tmp_path) == KEPT


def test_checkpoints_are_not_made_without_it(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FileCheckpoints, "__init__")
    assert run(raw, tmp_path / "image", "--to", "raw") == 0


@pytest.mark.parametrize("to", ["vmdk:streamOptimized", "targz"])
def test_streams_cannot_be_resumed(
    to: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raw, tmp_path / "image", "--to", to, "--resume") == 2
    assert f"--resume: {to} is written from its beginning to its end" in capsys.readouterr().err
    assert names(tmp_path) == ["disk.raw"]


def test_a_device_does_not_tell_whether_it_changed(
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = diskconvert.open_files

    @contextmanager
    def opened(*arguments: object, **options: object):
        with real(*arguments, **options) as (image, files):
            yield image, (files[0]._replace(is_regular=False),)

    monkeypatch.setattr(diskconvert, "open_files", opened)
    assert run(raw, tmp_path / "image", "--to", "raw", "--resume") == 2
    assert "a device does not tell whether it changed" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["raw", "vhd:dynamic", "vhdx:fixed", "vmdk:monolithicSparse"])
def test_a_level_for_what_does_not_compress_is_wrong_usage(
    to: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raw, tmp_path / "image", "--to", to, "--level", "small") == 2
    assert f"and {to} does not" in capsys.readouterr().err
    assert names(tmp_path) == ["disk.raw"]


def test_no_image_of_a_chain_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [(3 * MiB, [(0, pattern(MiB))]), (3 * MiB, [(MiB, pattern(4096, 2))])]
    layers.append((3 * MiB, [(MiB, pattern(4096, 3))]))
    files = vhdx_chain(layers)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    *below, top = (tmp_path / name for name in files)
    for path in below:
        assert run(top, path, "--to", "raw", "--replace") == 2
        assert f"{path}: is part of the source, {path.name}" in capsys.readouterr().err
        assert path.read_bytes() == files[path.name]


@pytest.mark.parametrize(
    "ending", ["", ".partial", ".partial.journal", ".digest", ".digest.partial"]
)
def test_no_extent_of_the_source_is_written_nor_overwritten_by_what_lies_beside(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extent = tmp_path / f"image{ending}"
    extent.write_bytes(pattern(MiB))
    line = f'RW {MiB // 512} FLAT "{extent.name}" 0'
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\n{line}\n'
    )
    (tmp_path / "disk.vmdk").write_text(text)
    assert run(tmp_path / "disk.vmdk", tmp_path / "image", "--to", "raw", "--replace") == 2
    assert f"is part of the source, {extent.name}" in capsys.readouterr().err
    assert extent.read_bytes() == pattern(MiB)
    assert names(tmp_path) == sorted(["disk.vmdk", extent.name])
