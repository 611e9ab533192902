"""VHD and VHDX images that were made to hurt; see `hostile`."""

import struct
from collections.abc import Callable

from tests.fuzz.pages import Files, Pages, laid
from tests.support.chains import VhdChild, VhdxChild, linkage, parent_locator
from tests.support.disks import (
    BAT_OFFSET,
    LOG_OFFSET,
    DynamicVhd,
    GiB,
    KiB,
    MiB,
    Vhdx,
    pattern,
    signed,
    vhd_footer,
    vhd_sum,
    vhdx_header,
)
from tests.support.vhdx_logs import GUID, Entry

TiB = 1 << 40


def _vhd_many_entries() -> Files:
    """A BAT of 2^32 entries in a file that is long, and empty."""
    footer = vhd_footer(64 * KiB, disk_type=3, data_offset=512)
    head = struct.pack(">8sQQIII", b"cxsparse", 2**64 - 1, 1536, 0x10000, 0xFFFFFFFF, 512)
    size = 32 * GiB
    parts = {0: footer, 512: vhd_sum(head.ljust(1024, b"\0"), 36), size - 512: footer}
    return {"disk.vhd": laid(size, parts | {1536: b"\xff" * 512})}


def _vhd_self() -> Files:
    child = VhdChild(64 * KiB, {0: pattern(4 * KiB)}, block_size=4 * KiB)
    child.locators = [(b"W2ru", ".\\self.vhd"), (b"W2ku", "C:\\self.vhd")]
    return {"self.vhd": child.build()}


def _vhd_loop() -> Files:
    files: Files = {}
    for name, other in (("a.vhd", "b.vhd"), ("b.vhd", "a.vhd")):
        child = VhdChild(64 * KiB, {}, block_size=4 * KiB, name=other)
        files[name] = child.build()
    return files


def _vhd_long_chain() -> Files:
    files: Files = {}
    for number in range(40):
        files[f"{number}.vhd"] = VhdChild(
            8 * KiB, {}, block_size=4 * KiB, name=f"{number + 1}.vhd"
        ).build()
    return files


def _vhd_long_locator() -> Files:
    """The path of the parent has half a gigabyte, all of it a hole."""
    child = VhdChild(64 * KiB, {}, block_size=4 * KiB, locators=[(b"W2ru", "x")]).build()
    header = bytearray(child[512:1536])
    header[584:600] = struct.pack(">IIQ", 512 * MiB, 0, 1 * MiB)
    parts = {0: child[:-512], 512: vhd_sum(bytes(header), 36), 600 * MiB: child[-512:]}
    return {"disk.vhd": laid(600 * MiB + 512, parts)}


def _vhd_hidden() -> Files:
    """Forty blocks whose bitmaps say that nothing is there: more findings than are listed."""
    image = DynamicVhd(40 * 4 * KiB, dict.fromkeys(range(40), pattern(4 * KiB)), block_size=4 * KiB)
    content = bytearray(image.build())
    for number in range(40):
        at = 2048 + number * (512 + 4 * KiB)
        content[at : at + 512] = bytes(512)
    return {"disk.vhd": bytes(content)}


# --- VHDX


def _vhdx(log: bytes, image: Vhdx, *, length: int = MiB) -> Files:
    image.headers = (vhdx_header(1), vhdx_header(2, log_guid=GUID, log=(length, LOG_OFFSET)))
    size, parts = image.layout()
    return {"disk.vhdx": laid(size, parts | {LOG_OFFSET: log})}


def _vhdx_longer(last: int) -> Callable[[], Files]:
    """A log that makes the file as long as it likes, without a byte."""
    entry = Entry(7, {}, flushed=4 * MiB, last=last).build()
    return lambda: _vhdx(entry, Vhdx(256 * MiB, block_size=256 * MiB))


def _vhdx_scattered() -> Files:
    """A page of BAT whose blocks are far from each other, in a file that its log makes long."""
    entry = Entry(7, {}, flushed=4 * MiB, last=1 << 46).build()
    image = Vhdx(40_000 * MiB)
    image.states = {n: (8 + n * 1024) * MiB | 6 for n in range(40_000)}
    return _vhdx(entry, image)


def _vhdx_zeroing() -> Files:
    """One log entry that zeroes all of the file again and again."""
    changes: dict[int, bytes | int] = {n * 4096: (1 << 40) - n * 4096 for n in range(120)}
    return _vhdx(Entry(7, changes, flushed=4 * MiB, last=1 << 40).build(), Vhdx(3 * MiB))


def _vhdx_self() -> Files:
    files: Files = {}
    for name, other in (("a.vhdx", "b.vhdx"), ("b.vhdx", "a.vhdx")):
        files[name] = VhdxChild(MiB, paths={"relative_path": other}).build()
    return files


def _vhdx_locator() -> Files:
    """A locator of many entries that share one long text."""
    keys = [("parent_linkage", linkage(bytes(range(16, 32))))]
    item = bytearray(parent_locator([*keys, *((f"k{n}", "x" * 8000) for n in range(62))]))
    return {"disk.vhdx": VhdxChild(MiB, locator=bytes(item)).build()}


def _vhdx_strays() -> Files:
    """Equal headers, two region tables that differ, a sector bitmap without a parent, a leak."""
    image = Vhdx(3 * MiB, {0: pattern(MiB)}, headers=(vhdx_header(5), vhdx_header(5)))
    image.parts = {image.entry_offset(4095) + 8: struct.pack("<Q", 5 << 20 | 6)}
    size, parts = image.layout()
    table = bytearray(parts[256 * KiB])
    table[16:32] = bytes(16)
    parts[256 * KiB] = signed(bytes(table), 65536)
    return {"disk.vhdx": laid(size + 2 * MiB, parts | {size: pattern(MiB)})}


def _vhdx_log_of(**fields: int) -> Callable[[], Files]:
    """A log of another version, or a long one."""

    def make() -> Files:
        files = _vhdx(Entry(7, {}).build(), Vhdx(3 * MiB), length=fields.get("length", MiB))
        file = files["disk.vhdx"]
        assert isinstance(file, Pages)
        file.cut(200 * MiB)
        header = bytearray(file.get(128 * KiB, 4096))
        header[64] = fields.get("version", 0)
        file.put(128 * KiB, signed(bytes(header), 4096))
        return files

    return make


def _lone_surrogate() -> bytes:
    item = parent_locator(
        [("parent_linkage", linkage(bytes(range(16, 32)))), ("relative_path", "xyz")]
    )
    return item[:-6] + b"\x00\xdcy\0z\0"


def _vhdx_empty_64_tib() -> Files:
    size, parts = Vhdx(64 * TiB).layout()
    return {"disk.vhdx": laid(size, parts)}


VHD: dict[str, Callable[[], Files]] = {
    "vhd-entries": _vhd_many_entries,
    "vhd-self": _vhd_self,
    "vhd-loop": _vhd_loop,
    "vhd-40": _vhd_long_chain,
    "vhd-hidden": _vhd_hidden,
    "vhd-longlocator": _vhd_long_locator,
    "vhd-tiny": lambda: {"disk.vhd": DynamicVhd(512, {0: b"x" * 512}, block_size=512).build()},
    "vhdx-longer55": _vhdx_longer(1 << 54),
    "vhdx-longer64": _vhdx_longer((1 << 64) - 4096),
    "vhdx-scattered": _vhdx_scattered,
    "vhdx-zeroing": _vhdx_zeroing,
    "vhdx-loop": _vhdx_self,
    "vhdx-locator": _vhdx_locator,
    "vhdx-64tib": _vhdx_empty_64_tib,
    "vhdx-noutf16": lambda: {"disk.vhdx": VhdxChild(MiB, locator=_lone_surrogate()).build()},
    "vhdx-twice": lambda: {
        "disk.vhdx": Vhdx(2 * MiB, {0: pattern(MiB)}, states={1: 4 * MiB | 6}).build()
    },
    "vhdx-strays": _vhdx_strays,
    "vhdx-logversion": _vhdx_log_of(version=1),
    "vhdx-loglong": _vhdx_log_of(length=128 * MiB),
    "vhdx-overlap": lambda: {
        "disk.vhdx": Vhdx(
            3 * MiB, {0: pattern(MiB)}, states={1: 4 * MiB | 6, 2: BAT_OFFSET | 6}
        ).build()
    },
}
