"""VMDK and OVA images that were made to hurt; see `hostile`."""

import struct
import tarfile
import zlib
from collections.abc import Callable

from tests.fuzz.pages import Files, Pages, laid
from tests.support.disks import (
    MiB,
    pattern,
)
from tests.support.vmdks import GRAIN, SparseVmdk, StreamVmdk, descriptor, ova, ovf, tar

TiB = 1 << 40


def _vmdk_own_table(flags: int) -> Callable[[], Files]:
    """A grain directory that is its own grain table."""
    image = SparseVmdk(20 * GRAIN, flags=flags)
    at = image.places()["directory"]
    image.parts = {at * 512: struct.pack("<I", at)}
    return lambda: {"disk.vmdk": image.build()}


def _vmdk_one_table() -> Files:
    """Every entry of a directory names the same table."""
    image = SparseVmdk(4096 * 512 * GRAIN, flags=1)
    at = image.places()
    image.parts = {at["directory"] * 512: struct.pack("<I", at["tables"]) * 4096}
    return {"disk.vmdk": Pages.of(image.build())}


def _vmdk_few_tables() -> Files:
    """A directory of more tables than the file has room for."""
    image = SparseVmdk(64 * 512 * GRAIN, flags=1)
    at = image.places()
    image.parts = {at["directory"] * 512: struct.pack("<I", at["tables"]) * 64}
    content = image.build()
    return {"disk.vmdk": content[: at["tables"] * 512 + 2048]}


def _vmdk_one_grain() -> Files:
    return {
        "disk.vmdk": SparseVmdk(20 * GRAIN, {0: b"x"}, entries=dict.fromkeys(range(20), 64)).build()
    }


def _vmdk_8_tib() -> Files:
    """Many of the smallest grains: a directory of 8 MiB, all of it a hole."""
    text = descriptor(f'RW {1 << 34} SPARSE "x"', create_type="monolithicSparse").encode()
    head = struct.pack(
        "<4sIIQQQQIQQQB4sH433x",
        *(b"KDMV", 1, 1, 1 << 34, 16, 1, 20, 512, 0, 128, 128, 0, b"\n \r\n", 0),
    )
    return {"disk.vmdk": laid(16 * MiB, {0: head, 512: text})}


def _vmdk_many_extents() -> Files:
    lines = [f'RW {1 + n % 3} FLAT "f{n % 50}.vmdk" {n}' for n in range(4097)]
    files: Files = {"disk.vmdk": descriptor(*lines[:4096]).encode()}
    return files | {f"f{n}.vmdk": Pages(4200 * 512) for n in range(50)}


def _vmdk_text(*lines: str, more: str = "") -> Callable[[], Files]:
    return lambda: {"disk.vmdk": descriptor(*lines, more=more).encode()}


def _vmdk_keys() -> Files:
    text = "# Disk DescriptorFile\n" + "".join(f"k{n}=1\n" for n in range(100_000))
    return {"disk.vmdk": text.encode()}


def _vmdk_bomb() -> Files:
    raw = {
        0: zlib.compress(bytes(10 * MiB), 9),
        1: zlib.compress(bytes(GRAIN + 1)),
        2: b"x\x9c\x03",
    }
    return {"disk.vmdk": StreamVmdk(20 * GRAIN, dict.fromkeys(raw, b""), raw=raw).build()}


def _vmdk_self() -> Files:
    return {"disk.vmdk": SparseVmdk(20 * GRAIN, parent=("12345678", "disk.vmdk")).build()}


_LONG = "k" * 50_000


# --- OVA


def _ova(text: bytes, **members: bytes) -> Callable[[], Files]:
    return lambda: {"vm.ova": tar({"vm.ovf": text, **members})}


_STREAM = StreamVmdk(20 * GRAIN, {0: pattern(GRAIN)}).build()
_OVF = ovf({"f": "disk.vmdk"}, {"d": "f"})
_LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(10))


def _ova_base256() -> Files:
    file = bytearray(tar({"vm.ovf": _OVF, "disk.vmdk": _STREAM}))
    file[124:136] = b"\x80" + b"\xff" * 11
    return {"vm.ova": bytes(file)}


def _ova_members() -> Files:
    return {"vm.ova": tar({"vm.ovf": _OVF, **{f"m{n}": b"" for n in range(1100)}})}


def _ova_foreign() -> Files:
    text = descriptor('RW 4 FLAT "vm.ovf" 0', create_type="monolithicFlat").encode()
    return {"vm.ova": tar({"vm.ovf": _OVF.ljust(2048), "disk.vmdk": text})}


def _ova_long() -> bytes:
    name = "x" * 50_000 + ".mf"
    return tar({"vm.ovf": _OVF, name: b"", "disk.vmdk": _STREAM}, tarfile.PAX_FORMAT)


def _bomb_bytes() -> dict[str, bytes]:
    return {name: v for name, v in _vmdk_bomb().items() if isinstance(v, bytes)}


VMDK: dict[str, Callable[[], Files]] = {
    "vmdk-owntable": _vmdk_own_table(1),
    "vmdk-ownspare": _vmdk_own_table(3),
    "vmdk-onetable": _vmdk_one_table,
    "vmdk-onegrain": _vmdk_one_grain,
    "vmdk-8tib": _vmdk_8_tib,
    "vmdk-extents": _vmdk_many_extents,
    "vmdk-keys": _vmdk_keys,
    "vmdk-bomb": _vmdk_bomb,
    "vmdk-self": _vmdk_self,
    "vmdk-passwd": _vmdk_text('RW 4 FLAT "/etc/passwd" 0'),
    "vmdk-dots": _vmdk_text('RW 4 FLAT "../x.vmdk" 0'),
    "vmdk-itself": _vmdk_text('RW 1 FLAT "disk.vmdk" 0'),
    "vmdk-zeros": _vmdk_text("RW 137438953472 ZERO"),
    "vmdk-toolong": _vmdk_text("RW 137438953472 ZERO", "RW 1 ZERO"),
    "vmdk-encoding": _vmdk_text("RW 1 ZERO", more='encoding="hz"'),
    "vmdk-longkind": _vmdk_text(f'RW 1 {_LONG} "x"'),
    "vmdk-longkey": _vmdk_text("RW 1 ZERO", more=f"{_LONG}=1\n{_LONG}=2"),
    "vmdk-longword": _vmdk_text("RW 1 ZERO", more=f"encryption.{_LONG}=1"),
    "vmdk-fewtables": _vmdk_few_tables,
    "ova-laughs": _ova(f"<!DOCTYPE x [{_LAUGHS}]><x>&e9;</x>".encode(), **{"disk.vmdk": _STREAM}),
    "ova-doctype": _ova(
        ovf({"f": "disk.vmdk"}, {"d": "f"}, head="<!DOCTYPE Envelope>"), **{"disk.vmdk": _STREAM}
    ),
    "ova-deep": _ova(b"<a>" * 200_000, **{"disk.vmdk": _STREAM}),
    "ova-attributes": _ova(b"<a " + b" ".join(b'a%d="x"' % n for n in range(100_000)) + b"/>"),
    "ova-base256": _ova_base256,
    "ova-members": _ova_members,
    "ova-foreign": _ova_foreign,
    "ova-escape": _ova(_OVF, **{"\x1b[2J.mf": b"", "disk.vmdk": _STREAM}),
    "ova-longname": lambda: {"vm.ova": _ova_long()},
    "ova-two": _ova(ovf({"f": "disk.vmdk"}, {"a": "f", "b": "f"}), **{"disk.vmdk": _STREAM}),
    "ova-chunks": _ova(ovf({"f": "disk.vmdk"}, {"d": "f"}, attributes='ovf:chunkSize="7"')),
    "ova-gzip": _ova(ovf({"f": "disk.vmdk"}, {"d": "f"}, attributes='ovf:compression="gzip"')),
    "ova-gzipped": _ova(_OVF, **{"disk.vmdk": b"\x1f\x8b\x08"}),
    "ova-size": _ova(
        ovf({"f": "disk.vmdk"}, {"d": "f"}, attributes='ovf:size="7"'), **{"disk.vmdk": _STREAM}
    ),
    "ova-lines": _ova(ovf({"f": "a&#10;b"}, {"a&#10;": "f", "b&#10;": "f"})),
    "ova-line": _ova(ovf({"f": "d.vmdk"}, {"d": "f"}, attributes='ovf:compression="a&#10;b"')),
    "ova-nofile": _ova(ovf({}, {"d": "f"})),
    "ova-two-ovf": lambda: {"vm.ova": tar({"a.ovf": _OVF, "b.ovf": _OVF, "disk.vmdk": _STREAM})},
    "ova-bomb": lambda: {"vm.ova": ova(next(iter(_bomb_bytes().values())))},
}
