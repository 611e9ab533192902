"""Any disk comes out in every format, as the same file each time, and not by halves after a power loss."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imaging.convert import TARGETS, convert
from imaging.device import read_bytes
from imaging.digest import digest_device
from imaging.errors import ImagingError
from imaging.formats import FORMATS, open_image
from imaging.memory import MemoryDevice
from tests.support.disks import KiB, MiB, pattern
from tests.support.sinks import (
    OPTIONS,
    RecordedFile,
    read_image,
    sparse_device,
    write_image,
)

PARTS = {4 * KiB: pattern(5 * KiB), 2 * MiB - 700: pattern(1400, 2), 5 * MiB: bytes(MiB)}
SIZE = 7 * MiB + 512
SELF = [name for name in TARGETS if name.partition(":")[0] in FORMATS]
SELF_DESCRIBING = [name for name in SELF if name != "raw"]
SAME_EACH_TIME = [name for name in TARGETS if name != "vmdk:monolithicSparse"]
"""Its grains lie as they come, from whichever thread."""

parts = st.dictionaries(
    st.integers(0, 12 * MiB),
    st.tuples(
        st.sampled_from([1, 512, 4096, 65536, 524288, 2 * MiB + 1]),
        st.sampled_from([b"\0", b"a", b"\0\1"]),
    ),
    max_size=6,
)


@pytest.mark.parametrize("to", SELF)
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(size=st.integers(1, 12 * MiB), chosen=parts)
def test_any_disk_comes_out_as_it_went_in(to, size, chosen, tmp_path: Path) -> None:
    contents = {
        at: (unit * length)[: size - at] for at, (length, unit) in chosen.items() if at < size
    }
    source = sparse_device(size, contents)
    root = write_image(source, tmp_path / "image", to, replace=True)
    assert root == digest_device(source).root
    found = read_image(tmp_path / "image", to)
    assert found == read_bytes(source, 0, size).ljust(len(found), b"\0")
    assert len(found) == (size if to == "raw" else -(-size // 512) * 512)


@pytest.mark.parametrize("to", SAME_EACH_TIME)
def test_the_same_disk_gives_the_same_file(to, tmp_path: Path) -> None:
    content = bytearray(pattern(30 * MiB))
    for start in range(0, 30, 4):
        content[start * MiB : start * MiB + 1500 * KiB] = bytes(1500 * KiB)
    content[16 * MiB : 20 * MiB] = bytes(4 * MiB)
    files = set()
    for _ in range(5):
        write_image(MemoryDevice(content), tmp_path / "image", to, replace=True)
        files.add((tmp_path / "image").read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("to", SELF_DESCRIBING)
def test_after_a_power_loss_it_is_whole_or_no_image(to, tmp_path: Path) -> None:
    source = sparse_device(SIZE, PARTS)
    root = digest_device(source).root
    with RecordedFile(tmp_path / "image") as file:
        convert(source, TARGETS[to].make(file, SIZE, OPTIONS))
        assert not (tmp_path / "image").exists()
        file.commit()
    opened = 0
    for content, _, _ in file.recording.states():
        try:
            image = open_image(MemoryDevice(content), format=to.partition(":")[0])
        except ImagingError:
            continue
        assert digest_device(image).root == root
        opened += 1
    assert opened
