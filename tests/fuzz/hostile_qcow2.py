"""qcow2 images that were made to hurt; see `hostile`."""

from collections.abc import Callable

from backports import zstd

from tests.fuzz.pages import Files, laid
from tests.support.disks import (
    MiB,
    pattern,
)
from tests.support.qcow2_images import Qcow2, deflated, extension

TiB = 1 << 40


def _qcow2_bombs(compression: int) -> Callable[[], Files]:
    pack = zstd.compress if compression else deflated
    window = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.checksum_flag: 1}

    def make() -> Files:
        packed = {0: pack(bytes(8 * MiB)), 1: pack(bytes(4095)), 2: pack(pattern(4097)), 3: b""}
        if compression:
            packed[4] = zstd.compress(pattern(4096), options=window)
            packed[5] = zstd.compress(b"") * 40 + zstd.compress(pattern(4096))
        image = Qcow2(8 * 4096, {7: pattern(4096)}, packed, compression=compression)
        return {"disk.qcow2": image.build()}

    return make


def _qcow2_shared() -> Files:
    """Every cluster of a gigabyte is the same compressed one."""
    image = Qcow2(512 * 2 * MiB, {}, {0: deflated(bytes(2 * MiB))}, cluster_bits=21)
    size, parts = image.layout()
    entry = parts[image.entry_offset(0)]
    parts[image.entry_offset(0)] = entry * 512
    return {"disk.qcow2": laid(size, parts)}


def _qcow2_own_table() -> Files:
    image = Qcow2(8 * 4096, {0: pattern(4096)})
    image.l1 = {0: image.l1_offset | 1 << 63}
    return {"disk.qcow2": image.build()}


def _qcow2_backing(name: bytes, form: bytes, more: Files | None = None) -> Callable[[], Files]:
    image = Qcow2(8 * 4096, {0: pattern(4096)}, backing=name, backing_format=form)
    return lambda: {"disk.qcow2": image.build(), **(more or {})}


def _qcow2_data(name: bytes) -> Callable[[], Files]:
    return lambda: {"disk.qcow2": Qcow2(8 * 4096, {0: b""}, data_file=name).build()}


def _qcow2_long_chain() -> Files:
    return {
        f"{n}.qcow2": Qcow2(4096, backing=b"%d.qcow2" % (n + 1), backing_format=b"qcow2").build()
        for n in range(40)
    }


def _qcow2_64_tib() -> Files:
    size, parts = Qcow2(64 * TiB, cluster_bits=14).layout()
    return {"disk.qcow2": laid(size, parts)}


def _qcow2_extensions() -> Files:
    one = extension(0x12345678, b"")
    image = Qcow2(8 * 4096, {0: pattern(4096)}, extensions=one * 450)
    return {"disk.qcow2": image.build()}


QCOW2: dict[str, Callable[[], Files]] = {
    "qcow2-bombs": _qcow2_bombs(0),
    "qcow2-zbombs": _qcow2_bombs(1),
    "qcow2-shared": _qcow2_shared,
    "qcow2-owntable": _qcow2_own_table,
    "qcow2-itself": _qcow2_backing(b"disk.qcow2", b"qcow2"),
    "qcow2-json": _qcow2_backing(b'json:{"driver":"nbd"}', b"raw"),
    "qcow2-abs": _qcow2_backing(b"/etc/passwd", b"raw"),
    "qcow2-noutf": _qcow2_backing(b"\xff\xfe\0x", b"raw"),
    "qcow2-unsaid": _qcow2_backing(b"base.img", b"", {"base.img": b"QFI\xfb"}),
    "qcow2-rawbase": _qcow2_backing(b"b.img", b"raw", {"b.img": pattern(700)}),
    "qcow2-ownfile": _qcow2_data(b"disk.qcow2"),
    "qcow2-urldata": _qcow2_data(b"http://h/x"),
    "qcow2-40": _qcow2_long_chain,
    "qcow2-64tib": _qcow2_64_tib,
    "qcow2-extensions": _qcow2_extensions,
}
