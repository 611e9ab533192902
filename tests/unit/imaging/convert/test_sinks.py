"""The files of the random sinks: in which order they become durable, and tables that end with their region."""

from pathlib import Path

import pytest

from imaging.convert import TARGETS, convert
from imaging.device import read_bytes
from imaging.filedev import FileDevice
from imaging.formats import open_path
from imaging.newfile import NewFile
from tests.support.disks import MiB, pattern, write_sparse
from tests.support.sinks import OPTIONS, RecordedFile, sparse_device

ORDERS = {
    "raw": ["data"],
    "vhd:fixed": ["data", "head"],
    "vhd:dynamic": ["data", "table", "head"],
    "vhdx:dynamic": ["data", "table", "head"],
    "vhdx:fixed": ["data", "table", "head"],
}


@pytest.mark.parametrize("to", ORDERS)
def test_data_then_tables_then_heads_are_made_durable(to: str, tmp_path: Path) -> None:
    source = sparse_device(3 * MiB, {MiB: pattern(MiB)})
    with RecordedFile(tmp_path / "image") as file:
        convert(source, TARGETS[to].make(file, 3 * MiB, OPTIONS))
    flushes = [at for at, one in enumerate(file.recording.operations) if one.offset < 0]
    assert len(flushes) == len(ORDERS[to])
    assert flushes[-1] == len(file.recording.operations) - 1
    data = [
        at
        for at, one in enumerate(file.recording.operations)
        if one.data and one.data in pattern(MiB)
    ]
    assert data
    assert max(data) < flushes[0]


def test_the_bat_of_a_vhdx_ends_before_the_first_block(tmp_path: Path) -> None:
    size = 131_008 * 2 * MiB  # a BAT of 131071 entries: its region of 1 MiB is full
    source = write_sparse(tmp_path / "raw", size, {0: b"first", size - 4: b"last"})
    device = FileDevice(source)
    with NewFile(tmp_path / "image") as file:
        convert(device, TARGETS["vhdx:dynamic"].make(file, size, OPTIONS))
        file.commit()
    device.close()
    with open_path(tmp_path / "image", format="vhdx") as image:
        assert read_bytes(image, 0, 6) == b"first\0"
        assert read_bytes(image, size - 5, 5) == b"\0last"


@pytest.mark.parametrize("to", ["vhdx:dynamic", "vhdx:fixed", "vhd:dynamic"])
def test_each_image_has_ids_of_its_own(to: str, tmp_path: Path) -> None:
    heads = []
    for number in range(2):
        path = tmp_path / f"{number}"
        options = type(OPTIONS)(type(OPTIONS.unique_id)(int=number), 1_700_000_000)
        with NewFile(path) as file:
            convert(sparse_device(MiB, {0: b"x"}), TARGETS[to].make(file, MiB, options))
            file.commit()
        heads.append(path.read_bytes())
    assert heads[0] != heads[1]
