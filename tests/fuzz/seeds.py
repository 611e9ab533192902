"""The corpus: a small sound image of every format and subformat, with the files beside it. Hostile ones: `hostile`."""

import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from backports import zstd

from imaging.convert import TARGETS
from tests.fuzz.pages import Pages
from tests.fuzz.structures import Region, find_regions
from tests.support.chains import vhd_chain, vhdx_chain
from tests.support.disks import (
    DATA_DIR,
    SHARED_DIR,
    DynamicVhd,
    KiB,
    MiB,
    Vhdx,
    fixed_vhd,
    pattern,
    qemu_img,
    unpack,
)
from tests.support.qcow2_images import Qcow2, deflated
from tests.support.sinks import sparse_device, write_image
from tests.support.vhdx_logs import DATA, Entry, image
from tests.support.vmdks import GRAIN, SparseVmdk, StreamVmdk, descriptor, ova, ovf, tar

_REAL = (
    "btrfs.vhdx.xz",
    "dfvfs-ext2.qcow2.xz",
    "dfvfs-ext2.vhd.xz",
    "keramics-ext2.qcow2.xz",
    "plaso-image.qcow2.xz",
    "plaso-image.vhd.xz",
    "swap.vhdx.xz",
    "vhdx-log-replay.vhdx.xz",
)
_REAL_SHARED = (
    "dfvfs-ext2.vmdk.xz",
    "minimal.vmdk",
    "stream_opt.vmdk",
    "plaso-image.vmdk.xz",
    "tw_sparse-s001.vmdk",
    "hyperv2012r2-dynamic.vhd.xz",
    "dissect-basic.qcow2.xz",
)


@dataclass(frozen=True)
class Seed:
    """An image to start from.

    Attributes:
        name: Of the seed; it begins with its format.
        files: Bare name -> content, the image itself too.
        top: Name of the image.
        sound: Whether it opens; hostile seeds need not.
    """

    name: str
    files: dict[str, Pages]
    top: str
    sound: bool = True
    regions: dict[str, list[Region]] = field(default_factory=dict)

    @property
    def form(self) -> str:
        return self.name.partition("-")[0]

    def form_of(self, name: str) -> str:
        """Return the format of one of its files, by its own bytes."""
        if name == self.top:
            return self.form
        start = self.files[name].get(0, 8)
        marks = (
            (b"vhdxfile", "vhdx"),
            (b"KDMV", "vmdk"),
            (b"# Disk D", "vmdk"),
            (b"QFI\xfb", "qcow2"),
        )
        for mark, form in marks:
            if start.startswith(mark):
                return form
        is_vhd = self.files[name].get(self.files[name].size - 512, 8) == b"conectix"
        return "vhd" if is_vhd else "raw"


def make_seed(
    name: str, files: dict[str, bytes | Pages], top: str = "", *, sound: bool = True
) -> Seed:
    """Put a seed together and find its structures."""
    pages = {key: v if isinstance(v, Pages) else Pages.of(v) for key, v in files.items()}
    seed = Seed(name, pages, top or next(iter(files)), sound)
    for key, content in pages.items():
        try:
            seed.regions[key] = find_regions(seed.form_of(key), content)
        except (struct.error, ZeroDivisionError):
            if sound:
                raise
            seed.regions[key] = [Region("start", 0, min(content.size, 512))]
    return seed


@cache
def seeds() -> dict[str, Seed]:
    """Return the seeds that are made without another program, by name; the order is fixed."""
    found = [
        *(make_seed(name, make()) for name, make in _SINGLE.items()),
        *_chains(),
        *_folders(),
        *_written(),
        *_samples(DATA_DIR, _REAL),
    ]
    return {seed.name: seed for seed in found}


@cache
def all_seeds() -> dict[str, Seed]:
    """Return those, the ones that qemu-img makes and those of the shared folder, where there are such."""
    return {**seeds(), **{s.name: s for s in [*_qemu(), *_samples(SHARED_DIR, _REAL_SHARED)]}}


# --- single files

_VMDK_SIZE = 20 * GRAIN + 512
_GRAINS = {number: pattern(GRAIN, number) for number in (7, 0, 20, 1)}


def _qcow2(*, compression: int = 0, version: int = 3, bits: int = 9) -> Qcow2:
    size = 1 << bits
    pack: Callable[[bytes], bytes] = zstd.compress if compression else deflated
    return Qcow2(
        66 * size,
        {n: pattern(size, n) for n in (0, 1, 3, 64)},
        {n: pack((b"text %d " % n * size)[:size]) for n in (4, 5, 7)},
        bits,
        version=version,
        compression=compression,
        entries={2: 1} if version > 2 else {},
    )


def _extended() -> bytes:
    size = 16 * KiB
    clusters = {n: pattern(size, n) for n in (0, 1, 3)}
    packed = {4: deflated((b"text" * size)[:size])}
    bitmaps = {3: 0x00FF00FF | 0xFF00FF00 << 32, 4: 0, 5: 0xFFFF << 32}
    return Qcow2(8 * size, clusters, packed, 14, extended=True, bitmaps=bitmaps).build()


def _log(*, wrapped: bool = False) -> bytes:
    one = Entry(7, {DATA: pattern(4096, 8), DATA + 8192: 8192}, tail=0).build()
    two = Entry(8, {DATA + 4096: pattern(4096, 9)}, tail=0).build()
    if not wrapped:
        return image({0: one, len(one): two})
    start = MiB - 4096
    one = Entry(7, {DATA: pattern(4096, 8), DATA + 8192: 8192}, tail=start).build()
    two = Entry(8, {DATA + 4096: pattern(4096, 9)}, tail=start).build()
    return image({start: one, len(one) - 4096: two})


_SINGLE: dict[str, Callable[[], dict[str, bytes | Pages]]] = {
    "raw-plain": lambda: {"disk.img": pattern(8 * KiB) + bytes(8 * KiB) + pattern(512)},
    "vhd-fixed": lambda: {"disk.vhd": fixed_vhd(pattern(8 * KiB))},
    "vhd-511": lambda: {"disk.vhd": fixed_vhd(pattern(8 * KiB))[:-1]},
    "vhd-dynamic": lambda: {
        "disk.vhd": DynamicVhd(
            64 * KiB, {0: pattern(4 * KiB), 7: pattern(4 * KiB, 2)}, block_size=4 * KiB
        ).build()
    },
    "vhdx-dynamic": lambda: {
        "disk.vhdx": Vhdx(3 * MiB, {0: pattern(MiB), 2: pattern(MiB, 2)}).build()
    },
    "vhdx-fixed": lambda: {
        "disk.vhdx": Vhdx(2 * MiB, {0: pattern(MiB), 1: pattern(MiB, 2)}, flags=1).build()
    },
    "vhdx-4k": lambda: {"disk.vhdx": Vhdx(3 * MiB, {1: pattern(MiB)}, sector=4096).build()},
    "vhdx-states": lambda: {
        "disk.vhdx": Vhdx(
            9 * MiB, {1: pattern(MiB)}, states={0: 1, 2: 2, 3: 3, 4: 5 << 20 | 3}
        ).build()
    },
    "vhdx-log": lambda: {"disk.vhdx": _log()},
    "vhdx-wrapped": lambda: {"disk.vhdx": _log(wrapped=True)},
    "vmdk-sparse": lambda: {"disk.vmdk": SparseVmdk(_VMDK_SIZE, _GRAINS).build()},
    "vmdk-zeroed": lambda: {
        "disk.vmdk": SparseVmdk(
            _VMDK_SIZE, _GRAINS, flags=7, version=2, entries={3: 1}, dirty=1
        ).build()
    },
    "vmdk-stream": lambda: {"disk.vmdk": StreamVmdk(_VMDK_SIZE, _GRAINS).build()},
    "vmdk-streamq": lambda: {
        "disk.vmdk": StreamVmdk(_VMDK_SIZE, _GRAINS, has_footer=False).build()
    },
    "qcow2-v2": lambda: {"disk.qcow2": _qcow2(version=2).build()},
    "qcow2-v3": lambda: {"disk.qcow2": _qcow2().build()},
    "qcow2-zstd": lambda: {"disk.qcow2": _qcow2(compression=1, bits=12).build()},
    "qcow2-extended": lambda: {"disk.qcow2": _extended()},
    "ova-stream": lambda: {"vm.ova": ova(StreamVmdk(_VMDK_SIZE, _GRAINS).build())},
    "ova-pax": lambda: {"vm.ova": _pax()},
}


def _pax() -> bytes:
    long = "disk-" + "x" * 120 + ".vmdk"
    text = ovf({"f": long}, {"d": "f", "empty": None})
    members = {"vm.ovf": text, "vm.cert": b"none", long: SparseVmdk(_VMDK_SIZE, _GRAINS).build()}
    return tar(members, tarfile.PAX_FORMAT)


# --- chains and folders


def _chains() -> list[Seed]:
    writes = [(512 * place, pattern(512, place)) for place in (0, 9, 2049, 2051)]
    size = 3 * MiB
    vhdx = vhdx_chain([(size, [(0, pattern(size))]), (size, writes), (2 * MiB, writes[:1])])
    vhdx4k = vhdx_chain(
        [(size, [(0, pattern(size))]), (size, [(4096 * 3, pattern(4096, 3))])], sector=4096
    )
    small = 64 * KiB
    vhd = vhd_chain(
        [(small, [(0, pattern(small))]), (small, writes[:2]), (small // 2, writes[:1])],
        block_size=4 * KiB,
    )
    return [
        make_seed("vhdx-chain", dict(vhdx), "base.2.avhdx"),
        make_seed("vhdx-chain4k", dict(vhdx4k), "base.1.avhdx"),
        make_seed("vhd-chain", dict(vhd), "base.2.avhd"),
    ]


def _folders() -> list[Seed]:
    sparse = SparseVmdk(_VMDK_SIZE, _GRAINS).build()
    stream = StreamVmdk(_VMDK_SIZE, _GRAINS).build()
    sectors = _VMDK_SIZE // 512
    text = descriptor(
        'RW 4 FLAT "flat.vmdk" 1',
        "RW 3 ZERO",
        f'RW {sectors} SPARSE "sparse.vmdk"',
        'RW 2 VMFS "flat.vmdk" 5',
        f'RDONLY {sectors - 1} SPARSE "stream.vmdk"',
        more='encoding="windows-1252"\n',
    )
    files = {"flat.vmdk": pattern(4096), "sparse.vmdk": sparse, "stream.vmdk": stream}
    delta = SparseVmdk(_VMDK_SIZE, {1: pattern(GRAIN, 9)}, parent=("12345678", "sparse.vmdk"))
    delta.entries = {2: 1}
    delta.flags = 7
    flat = descriptor('RW 8 FLAT "flat.vmdk" 0', create_type="monolithicFlat")
    backed = Qcow2(130 * 512, {0: pattern(512), 3: pattern(512, 3)}, cluster_bits=9)
    backed.backing, backed.backing_format = b"disk.vmdk", b"vmdk"
    middle = Qcow2(100 * 512, {1: pattern(512, 4)}, cluster_bits=9)
    middle.backing, middle.backing_format = b"base.vhd", b"vpc"
    over = Qcow2(130 * 512, {0: pattern(512)}, cluster_bits=9)
    over.backing, over.backing_format = b"middle.qcow2", b"qcow2"
    external = Qcow2(10 * 512, {0: b"", 3: b""}, cluster_bits=9, data_file=b"data.raw")
    dynamic = DynamicVhd(64 * KiB, {0: pattern(4 * KiB)}, block_size=4 * KiB).build()
    return [
        make_seed("vmdk-folder", {"disk.vmdk": text.encode(), **files}),
        make_seed("vmdk-flat", {"disk.vmdk": flat.encode(), "flat.vmdk": pattern(4096)}),
        make_seed("vmdk-delta", {"delta.vmdk": delta.build(), "sparse.vmdk": sparse}),
        make_seed("qcow2-backed", {"top.qcow2": backed.build(), "disk.vmdk": sparse}),
        make_seed(
            "qcow2-chain",
            {"top.qcow2": over.build(), "middle.qcow2": middle.build(), "base.vhd": dynamic},
        ),
        make_seed("qcow2-data", {"top.qcow2": external.build(), "data.raw": pattern(5120)}),
    ]


# --- by our writers, by qemu-img, by others


def _written() -> list[Seed]:
    """Return what our own writers make, of every format that they make and we read."""
    source = sparse_device(3 * MiB, {0: pattern(8 * KiB), 2 * MiB + 512: pattern(4 * KiB, 2)})
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for to in sorted(set(TARGETS) - {"targz", "raw"}):
            form, _, kind = to.partition(":")
            path = Path(folder) / f"disk.{form}"
            write_image(source, path, to, replace=True)
            if form in ("vhd", "vhdx", "vmdk", "qcow2"):
                found.append(make_seed(f"{form}-ours-{kind}", {path.name: Pages.read(path)}))
    return found


_QEMU = (
    ("vpc", "vhd", "subformat=dynamic"),
    ("vpc", "vhd", "subformat=fixed"),
    ("vhdx", "vhdx", "subformat=dynamic"),
    ("vhdx", "vhdx", "subformat=fixed"),
    ("vmdk", "vmdk", "subformat=monolithicSparse"),
    ("vmdk", "vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ("vmdk", "vmdk", "subformat=monolithicFlat"),
    ("vmdk", "vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "vmdk", "subformat=twoGbMaxExtentFlat"),
    ("vmdk", "vmdk", "subformat=streamOptimized"),
    ("qcow2", "qcow2", "compat=0.10"),
    ("qcow2", "qcow2", "cluster_size=512"),
    ("qcow2", "qcow2", "extended_l2=on"),
)


def _qemu() -> list[Seed]:
    if shutil.which("qemu-img") is None:
        return []
    found = []
    content = pattern(8 * KiB) + bytes(200 * KiB) + pattern(70 * KiB, 3)
    for number, (kind, form, options) in enumerate(_QEMU):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            source, target = folder / "source", folder / f"q.{form}"
            source.write_bytes(content.ljust(1 * MiB, b"\0"))
            qemu_img("convert", "-f", "raw", "-O", kind, "-o", options, source, target)
            files = {p.name: Pages.read(p) for p in sorted(folder.iterdir()) if p != source}
            found.append(make_seed(f"{form}-qemu{number}", files, target.name))
    return found


def _samples(folder: Path, names: tuple[str, ...]) -> list[Seed]:
    found = []
    with tempfile.TemporaryDirectory() as room:
        for name in names:
            if not (folder / name).is_file():
                continue
            path = unpack(folder / name, Path(room))
            form = path.suffix[1:]
            found.append(make_seed(f"{form}-real-{path.stem}", {path.name: Pages.read(path)}))
    return found
