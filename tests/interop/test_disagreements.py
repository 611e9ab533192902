"""Where readers disagree: what we read is what the specification says, and what others make of it is written down.

FORMATS.md ("Where readers disagree") has a row for each case here. A reader that is mended later may agree with us; a
third answer is not allowed.
"""

import struct
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pyvhdi
from dissect.hypervisor.disk.vhd import VHD
from dissect.hypervisor.disk.vhdx import VHDX
from dissect.hypervisor.disk.vmdk import VMDK

import imaging
from imaging.device import read_bytes
from imaging.errors import ImagingError
from imaging.formats import open_path
from tests.support.chains import VhdxChild, linkage, parent_locator, vhd_chain
from tests.support.disks import KiB, MiB, Vhdx, fixed_vhd, needs_qemu_img, pattern
from tests.support.qcow2_images import Qcow2
from tests.support.vhdx_logs import DATA, SECTOR, Entry, image
from tests.support.vmdks import GRAIN, SparseVmdk, StreamVmdk, descriptor, disk_of

pytestmark = [pytest.mark.interop, needs_qemu_img]

REFUSED = "refused"
Answer = bytes | str
"""The disk, or REFUSED."""


def by_us(image: Path, form: str) -> Answer:
    try:
        with open_path(image, format=form) as disk:
            return read_bytes(disk, 0, disk.size)
    except ImagingError:
        return REFUSED


def by_qemu(image: Path, form: str) -> Answer:
    name, target = {"vhd": "vpc"}.get(form, form), image.with_suffix(".by-qemu")
    command = ["qemu-img", "convert", "-f", name, "-O", "raw", image, target]
    done = subprocess.run(command, capture_output=True, check=False)
    return REFUSED if done.returncode else target.read_bytes()


def by_libvhdi(image: Path, form: str) -> Answer:
    file = pyvhdi.file()
    try:
        file.open(str(image))
    except OSError:
        return REFUSED
    try:
        if file.get_parent_identifier() is not None:
            parent = pyvhdi.file()
            parent.open(str(image.with_name(f"base.{form}")))
            file.set_parent(parent)
        return bytes(file.read_buffer_at_offset(file.get_media_size(), 0))
    finally:
        file.close()


def by_dissect(image: Path, form: str) -> Answer:
    with ExitStack() as files:
        file = files.enter_context(image.open("rb"))
        try:
            disk = {"vhd": VHD, "vhdx": VHDX, "vmdk": VMDK}[form](file)
            for extent in getattr(disk, "disks", ()):
                files.enter_context(extent.fh)
            return bytes(disk.read(disk.size))
        except Exception:  # noqa: BLE001  (whatever another's parser raises)
            return REFUSED


READERS: dict[str, Callable[[Path, str], Answer]] = {
    "qemu-img": by_qemu,
    "libvhdi": by_libvhdi,
    "dissect": by_dissect,
}


@dataclass(frozen=True)
class Case:
    """One image that readers disagree about.

    Attributes:
        form: Its format.
        build: Writes it into a folder and returns its path.
        right: The disk by the specification, or REFUSED where it is damaged.
        wrong: What a reader makes of it that disagrees; None: some third thing.
    """

    form: str
    build: Callable[[Path], Path]
    right: Answer
    wrong: dict[str, Answer | None]


def _write(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


DISK = pattern(2 * MiB)
PARENT, CHANGE = pattern(2 * MiB, 2), pattern(512, 3)
CHILD = PARENT[:4096] + CHANGE + PARENT[4608:]
ALONE = b"\xee" * 4096 + CHANGE + b"\xee" * (512 * KiB - 4608) + bytes(3 * 512 * KiB)
GRAINS = {0: pattern(GRAIN, 1), 9: pattern(GRAIN, 9), 640: pattern(512, 5)}
CUT = 5 * MiB + 512
"""A disk that ends inside its last grain."""


def _differencing_vhd(folder: Path) -> Path:
    files = vhd_chain([(2 * MiB, [(0, PARENT)]), (2 * MiB, [(4096, CHANGE)])])
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / list(files)[-1]


def _hidden_parent(folder: Path) -> Path:
    Vhdx(2 * MiB, {0: PARENT[:MiB], 1: PARENT[MiB:]}).write(folder / "base.vhdx")
    # libvhdi reads a linkage in lower case only
    values = [
        ("parent_linkage", linkage(VhdxChild.guid).lower()),
        ("relative_path", ".\\base.vhdx"),
    ]
    child = VhdxChild(2 * MiB, states={1: 2}, locator=parent_locator(values)).build()
    (folder / "child.avhdx").write_bytes(child)
    return folder / "child.avhdx"


def _zero_extent(folder: Path) -> Path:
    (folder / "flat.vmdk").write_bytes(DISK)
    text = descriptor("RW 2048 ZERO", 'RW 4096 FLAT "flat.vmdk" 0', create_type="monolithicFlat")
    (folder / "disk.vmdk").write_text(text)
    return folder / "disk.vmdk"


def _foreign_extent(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "secret").write_bytes(DISK)
    text = descriptor('RW 4096 FLAT "../secret" 0', create_type="monolithicFlat")
    (folder / "images" / "disk.vmdk").write_text(text)
    return folder / "images" / "disk.vmdk"


def _lost_directory() -> bytes:
    image = SparseVmdk(MiB, {0: pattern(GRAIN)}, flags=1)
    image.parts = {image.places()["directory"] * 512: struct.pack("<I", 1 << 30)}
    return image.build()


_VHDX = Vhdx(2 * MiB, {0: DISK[:MiB], 1: DISK[MiB:]})
_TWICE = Vhdx(2 * MiB, {0: DISK[:MiB]}, states={1: _VHDX.data_offset | 6})
_NEW, _NEWER = pattern(SECTOR, 7), pattern(SECTOR, 8)
_LOG_START = MiB - 2 * SECTOR
_FIRST = Entry(5, {DATA: _NEW, DATA + SECTOR: _NEW}, tail=_LOG_START).build()
"""Three sectors, the last of which is the first of the ring."""
_SECOND = Entry(6, {DATA + SECTOR: _NEWER}, tail=_LOG_START).build()
_REPLAYED = _NEW + _NEWER + DISK[2 * SECTOR : MiB]

_SHORT_GEOMETRY = struct.pack(">HBB", 60, 16, 4)
_FAR = (1 << 40) | (1 << 63)

CASES = {
    "vhd-geometry": Case(
        "vhd",
        _write("a.vhd", fixed_vhd(DISK, creator=b"vpc ", chs=_SHORT_GEOMETRY)),
        DISK,
        {"qemu-img": DISK[: 60 * 16 * 4 * 512]},
    ),
    "vhd-511": Case("vhd", _write("a.vhd", fixed_vhd(DISK)[:-1]), DISK, {"libvhdi": REFUSED}),
    "vhd-differencing": Case(
        "vhd",
        _differencing_vhd,
        CHILD,
        # What is under a 0 bit is no part of the disk, and the other blocks are the parent's.
        {"qemu-img": ALONE, "dissect": ALONE, "libvhdi": None},
    ),
    "vhdx-first-region-table": Case(
        "vhdx",
        _write("a.vhdx", replace(_VHDX, parts={192 * KiB: b"\xff" * 16}).build()),
        DISK,
        {"qemu-img": REFUSED, "libvhdi": REFUSED, "dissect": REFUSED},
    ),
    "vhdx-overlap": Case(
        "vhdx",
        _write("a.vhdx", _TWICE.build()),
        REFUSED,
        {"qemu-img": DISK[:MiB] * 2, "libvhdi": DISK[:MiB] * 2, "dissect": DISK[:MiB] * 2},
    ),
    "vhdx-4096": Case(
        "vhdx",
        _write("a.vhdx", replace(_VHDX, sector=4096).build()),
        DISK,
        {"qemu-img": REFUSED},
    ),
    "vhdx-log": Case(
        "vhdx",
        _write("a.vhdx", image({_LOG_START: _FIRST, SECTOR: _SECOND})),
        _REPLAYED,
        {"qemu-img": REFUSED, "libvhdi": DISK[:MiB], "dissect": DISK[:MiB]},
    ),
    "vhdx-child-zero": Case(
        "vhdx",
        _hidden_parent,
        PARENT[:MiB] + bytes(MiB),
        # The parent, and through what it takes for a bitmap parts of the child's own headers.
        {"qemu-img": REFUSED, "libvhdi": None},
    ),
    "vmdk-zero-extent": Case(
        "vmdk", _zero_extent, bytes(MiB) + DISK, {"qemu-img": DISK, "dissect": DISK}
    ),
    "vmdk-foreign-extent": Case("vmdk", _foreign_extent, REFUSED, {"qemu-img": DISK}),
    "vmdk-lost-directory": Case(
        "vmdk", _write("a.vmdk", _lost_directory()), REFUSED, {"qemu-img": bytes(MiB)}
    ),
    "vmdk-marker": Case(
        "vmdk",
        _write("a.vmdk", StreamVmdk(CUT, GRAINS, markers={9: 16}).build()),
        REFUSED,
        {"qemu-img": disk_of(CUT, GRAINS)},
    ),
    "vmdk-short-last-grain": Case(
        "vmdk",
        _write("a.vmdk", SparseVmdk(CUT, GRAINS).build()),
        disk_of(CUT, GRAINS),
        {"dissect": REFUSED},
    ),
    "qcow2-table-behind-the-end": Case(
        "qcow2",
        _write("a.qcow2", Qcow2(MiB, {0: pattern(4 * KiB)}, l1={0: _FAR}).build()),
        REFUSED,
        {"qemu-img": bytes(MiB)},
    ),
    "qcow2-cluster-behind-the-end": Case(
        "qcow2",
        _write("a.qcow2", Qcow2(MiB, {0: pattern(4 * KiB)}, entries={1: _FAR}).build()),
        REFUSED,
        {"qemu-img": pattern(4 * KiB).ljust(MiB, b"\0")},
    ),
}
_BY_READER = [
    pytest.param(case, reader, id=f"{name}-{reader}")
    for name, case in CASES.items()
    for reader in case.wrong
]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_we_read_what_the_specification_says(case: Case, tmp_path: Path) -> None:
    assert by_us(case.build(tmp_path), case.form) == case.right


@pytest.mark.parametrize(("case", "reader"), _BY_READER)
def test_others_read_it_as_we_write_that_they_do(case: Case, reader: str, tmp_path: Path) -> None:
    answer, wrong = READERS[reader](case.build(tmp_path), case.form), case.wrong[reader]
    assert wrong is None or answer in (wrong, case.right)


def test_a_wrapped_log_that_qemu_applied_is_another_disk(tmp_path: Path) -> None:
    """Why a file with a log should not be repaired by qemu-img 7.2: it looks for entries from the log's start."""
    path = CASES["vhdx-log"].build(tmp_path)
    command = ["qemu-img", "check", "-q", "-r", "all", "-f", "vhdx", path]
    subprocess.run(command, capture_output=True, check=False)
    only_the_second = DISK[:SECTOR] + _NEWER + DISK[2 * SECTOR : MiB]
    assert by_us(path, "vhdx") in (_REPLAYED, only_the_second)


def test_each_case_has_its_row_in_the_documents() -> None:
    text = Path(imaging.__file__).with_name("FORMATS.md").read_text()
    rows = text.partition("## Where readers disagree")[2].partition("\n## ")[0]
    assert [name for name in CASES if f"`{name}`" not in rows] == []
