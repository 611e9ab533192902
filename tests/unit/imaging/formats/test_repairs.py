"""Repairs: what was repairable is gone, the disk is the same, and so it is after any power loss on the way."""

from collections.abc import Callable

import pytest

from imaging.device import read_bytes
from imaging.formats import check_image, open_image
from imaging.formats.registry import REGISTRY
from imaging.memory import MemoryDevice
from tests.support.disks import DynamicVhd, KiB, MiB, Vhdx, pattern
from tests.support.powerloss import RecordedDevice
from tests.support.vhdx_logs import DATA, Entry
from tests.support.vhdx_logs import image as image_with_log

pytestmark = pytest.mark.exhaustive

SIZE = 3 * MiB + 4096


def vhdx(at: int) -> bytes:
    """A VHDX with a damaged byte."""
    return Vhdx(SIZE, {0: pattern(MiB), 3: pattern(4096, 3)}, parts={at: b"\xee"}).build()


def vhd(at: int | None, cut: int = 0) -> bytes:
    """A dynamic VHD with a damaged byte, or whose end was cut off."""
    content = bytearray(DynamicVhd(SIZE, {0: pattern(MiB // 2), 6: pattern(4096, 3)}).build())
    if at is not None:
        content[at] ^= 0xFF
    return bytes(content[: len(content) - cut])


def logged(*, damaged_table: bool = False) -> bytes:
    log = Entry(5, {DATA + 8192: pattern(4096, 7), DATA + 65536: 3 * 4096}).build()
    content = bytearray(image_with_log({0: log}))
    if damaged_table:
        content[192 * KiB + 20] ^= 0xFF
    return bytes(content)


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "vhdx-first-header": ("vhdx", lambda: vhdx(64 * KiB + 100)),
    "vhdx-second-header": ("vhdx", lambda: vhdx(128 * KiB + 100)),
    "vhdx-first-table": ("vhdx", lambda: vhdx(192 * KiB + 20)),
    "vhdx-second-table": ("vhdx", lambda: vhdx(256 * KiB + 20)),
    "vhdx-log": ("vhdx", logged),
    "vhdx-log-and-table": ("vhdx", lambda: logged(damaged_table=True)),
    "vhd-copy": ("vhd", lambda: vhd(200)),
    "vhd-copys-cookie": ("vhd", lambda: vhd(0)),
    "vhd-footer": ("vhd", lambda: vhd(-100)),
    "vhd-footers-cookie": ("vhd", lambda: vhd(-512)),
    "vhd-no-footer": ("vhd", lambda: vhd(None, cut=512)),
    "vhd-half-a-footer": ("vhd", lambda: vhd(None, cut=300)),
}


@pytest.mark.parametrize(("form", "build"), CASES.values(), ids=CASES.keys())
def test_a_repair_leaves_the_disk_and_nothing_to_repair(
    form: str, build: Callable[[], bytes]
) -> None:
    content = build()
    disk = disk_of(content, form)
    found = check_image(MemoryDevice(content), format=form).findings
    assert any(finding.repairable for finding in found)
    file = RecordedDevice(content)
    repair = REGISTRY[form].repairer()
    assert repair is not None
    repair(file)
    after = check_image(file, format=form)
    assert after.clean, after.findings
    assert disk_of(read_bytes(file, 0, file.size), form) == disk
    assert file.recording.operations[-1].offset < 0, "not durable when it returned"
    states = 0
    for state in file.recording.states():
        assert disk_of(state.content, form) == disk
        again = RecordedDevice(state.content)
        repair(again)
        assert check_image(again, format=form).clean
        states += 1
    assert states > 3


def disk_of(content: bytes, form: str) -> bytes:
    image = open_image(MemoryDevice(content, read_only=True), format=form)
    return read_bytes(image, 0, image.size)


@pytest.mark.parametrize("form", ["vhd", "vhdx"])
def test_a_sound_image_is_not_touched(form: str) -> None:
    content = vhd(None) if form == "vhd" else Vhdx(SIZE, {0: pattern(MiB)}).build()
    file = RecordedDevice(content)
    repair = REGISTRY[form].repairer()
    assert repair is not None
    repair(file)
    assert file.recording.operations == []
