"""The check of a qcow2 reads every table, of snapshots and bitmaps too, compares refcounts, and reads no data."""

import re
import struct
from typing import Any

import pytest

from imaging.check import CheckReport, Finding, Severity
from imaging.counting import CountingDevice
from imaging.formats import check_image
from imaging.formats.qcow2 import refcounts, uses
from imaging.memory import MemoryDevice
from imaging.overlay import OverlayDevice
from imaging.units import MiB
from tests.support.chains import MemoryFolder
from tests.support.qcow2_images import TABLE, C, Qcow2, content, extension, small


def codes(report: CheckReport) -> list[str]:
    return [finding.code for finding in report.findings]


def checked(image: Qcow2, **files: bytes) -> CheckReport:
    folder = MemoryFolder(files)
    report = check_image(MemoryDevice(image.build()), format="qcow2", siblings=folder)
    assert folder.left_open == 0
    return report


def test_a_sound_image_is_clean() -> None:
    report = checked(small())
    assert (codes(report), report.clean, report.subformat) == ([], True, "v3")


def test_every_damaged_table_is_named_with_its_place() -> None:
    clusters = {table * 512: content(table) for table in range(4)}
    image = Qcow2(4 * TABLE, clusters, entries={513: 512, 3 * 512 + 1: 1 << 50})
    report = checked(image)
    assert codes(report) == ["check.table-damaged"] * 2 + ["check.uncounted"]
    assert not report.clean
    assert report.findings[0].offset == image.entry_offset(513)
    assert "but the file has" in report.findings[1].message


@pytest.mark.parametrize(
    ("features", "code"), [(1, "check.not-closed"), (2, "check.marked-corrupt")]
)
def test_what_its_writer_said(features: int, code: str) -> None:
    report = checked(small(features=features))
    assert (codes(report), report.clean) == ([code], False)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, []),
        ({2: 2 * C}, []),
        ({1: 2 * C | 1 << 63}, ["check.table-damaged", "check.uncounted"]),
    ],
    ids=["sound", "without a flag", "elsewhere"],
)
def test_an_image_with_a_data_file(entries: dict[int, int], expected: list[str]) -> None:
    image = small(data_file=b"data", entries=entries)
    assert codes(checked(image, data=bytes(8 * C))) == expected


def test_a_data_file_that_is_short_is_no_matter_of_the_image() -> None:
    assert codes(checked(small(data_file=b"data"), data=bytes(C))) == []


# --- refcounts: of `small` cluster 0 is the header, 1 the refcount table, 2 its block, 3 L1, 4 L2, 5 and 6 data

BLOCK, L1, L2 = 2 * C, 3 * C, 4 * C
COPIED = 1 << 63


def counted(cluster: int, value: int, **fields: Any) -> CheckReport:
    """Check `small` with another refcount of one cluster."""
    return checked(small(parts={BLOCK + 2 * cluster: struct.pack(">H", value)}, **fields))


def only(report: CheckReport) -> Finding:
    (found,) = report.findings
    return found


def test_a_cluster_that_nothing_names_is_leaked() -> None:
    found = only(checked(small(file_size=9 * C)))
    assert (found.code, found.severity) == ("check.leaked-space", Severity.WARNING)
    assert (found.offset, found.length) == (7 * C, 2 * C)


def test_neighbours_that_are_alike_are_one_finding_and_others_are_not() -> None:
    counts = struct.pack(">4H", 1, 2, 1, 0)
    report = checked(small(file_size=11 * C, parts={BLOCK + 14: counts}))
    assert [(f.offset, f.length) for f in report.findings] == [(7 * C, C), (8 * C, C), (9 * C, C)]


def test_a_refcount_below_the_uses_is_an_error() -> None:
    report = counted(5, 0)
    assert codes(report) == ["check.refcount-low", "check.copied-flag"]
    assert (report.findings[0].offset, report.findings[0].length) == (5 * C, C)
    assert report.findings[1].offset == L2


def test_a_refcount_above_the_uses_is_a_warning_if_no_flag_contradicts_it() -> None:
    report = counted(6, 7, entries={2: 6 * C})
    assert codes(report) == ["check.refcount-high"]
    assert "refcount of 7, but 1 uses" in only(report).message


@pytest.mark.parametrize(
    ("parts", "offset"),
    [
        ({L1: struct.pack(">Q", L2)}, L1),
        ({L2 + 16: struct.pack(">Q", 6 * C)}, L2 + 16),
    ],
    ids=["L1", "L2"],
)
def test_a_flag_that_denies_a_refcount_of_one(parts: dict[int, bytes], offset: int) -> None:
    found = only(checked(small(parts=parts)))
    assert (found.code, found.severity, found.offset) == (
        "check.copied-flag",
        Severity.ERROR,
        offset,
    )


def test_data_that_lie_on_a_refcount_block_are_found_although_the_counts_agree() -> None:
    """Opening looks at the refcount table, not at its blocks."""
    parts = {
        BLOCK + 2 * 2: b"\0\2",
        BLOCK + 2 * 6: b"\0\0",
        L2 + 16: struct.pack(">Q", 2 * C),
    }
    found = only(checked(small(parts=parts)))
    assert (found.code, found.offset) == ("check.metadata-shared", 2 * C)


@pytest.mark.parametrize("order", range(7))
def test_every_width_of_refcounts(order: int) -> None:
    ones = sum(1 << (at << order) for at in range(8)) & (1 << 64) - 1
    width = max(1, (1 << order) // 8)
    packed = ones.to_bytes(8, "big")[:1] if order < 3 else b"\1".rjust(width, b"\0")
    per_byte = {0: b"\xff", 1: b"\x55", 2: b"\x11"}
    block = per_byte.get(order, packed) * (C // width)
    fields = {96: struct.pack(">I", order)}
    assert codes(checked(small(fields=fields, parts={BLOCK: block}))) == []
    lost = bytearray(block)
    bits = 5 << order  # of cluster 5, the first data
    lost[bits // 8 + width - 1] &= ~(1 << bits % 8)
    report = checked(small(fields=fields, parts={BLOCK: bytes(lost)}))
    assert codes(report) == ["check.refcount-low", "check.copied-flag"]
    assert report.findings[0].offset == 5 * C


def snapshot(l1: int, entries: int, *, extra: int = 16, name: bytes = b"one") -> bytes:
    head = struct.pack(">QIHHIIQII", l1, entries, 1, len(name), 0, 0, 0, 0, extra)
    whole = head + bytes(extra) + b"1" + name
    return whole.ljust(-(-len(whole) // 8) * 8, b"\0")


def with_snapshots(*listed: bytes, parts: dict[int, bytes] | None = None, count: int = 1) -> Qcow2:
    """A snapshot that shares everything: the list at 7 clusters, its L1 table at 8."""
    shared = {BLOCK + 2 * at: b"\0\2" for at in (4, 5, 6)}
    copies = {L1: struct.pack(">Q", L2), L2: struct.pack(">Q", 5 * C)}
    copies |= {L2 + 16: struct.pack(">Q", 6 * C), 8 * C: struct.pack(">Q", L2)}
    return small(
        snapshots=count,
        file_size=9 * C,
        fields={64: struct.pack(">Q", 7 * C)},
        parts={**shared, **copies, 7 * C: b"".join(listed), **(parts or {})},
    )


def test_what_a_snapshot_shares_is_used_twice() -> None:
    assert codes(checked(with_snapshots(snapshot(8 * C, 1)))) == []
    alone = checked(with_snapshots(snapshot(8 * C, 1), parts={8 * C: bytes(8)}))
    assert codes(alone) == ["check.refcount-high"]
    assert (only(alone).offset, only(alone).length) == (4 * C, 3 * C)


def test_the_list_is_walked_past_what_it_does_not_know() -> None:
    empty = snapshot(0, 0, extra=24, name=b"a longer name")
    assert codes(checked(with_snapshots(empty, snapshot(8 * C, 1), count=2))) == []


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (with_snapshots(snapshot(8 * C, 1, extra=1025)), "1025 bytes of extra data"),
        (with_snapshots(snapshot(8 * C, 1, extra=15)), "15 bytes of extra data"),
        (with_snapshots(snapshot(8 * C + 8, 1)), "expected a positive multiple"),
        (with_snapshots(snapshot(8 * C + 8, 0)), "expected a positive multiple"),
        (with_snapshots(snapshot(8 * C, 513)), "ends at file offset"),
        (with_snapshots(snapshot(8 * C, 1), parts={8 * C: struct.pack(">Q", 99 * C)}), "L2 table"),
        (
            with_snapshots(snapshot(8 * C, 2), parts={8 * C: struct.pack(">QQ", L2, L2)}),
            "is that of another entry too",
        ),
        (with_snapshots(snapshot(8 * C, 1), count=2), "snapshot 1 has 0 bytes of extra"),
        (small(parts={C: struct.pack(">Q", 2 * C + 512)}), "the refcount block 0 lies"),
        (small(parts={C: struct.pack(">QQ", 2 * C, 2 * C)}), "another one too"),
        (small(parts={C: struct.pack(">Q", 70 * C)}), "the refcount block 0 ends"),
    ],
)
def test_a_lie_in_what_is_only_counted_is_named_and_ends_the_counting(
    image: Qcow2, what: str
) -> None:
    report = checked(image)
    assert re.search(what, report.findings[0].message), report.findings
    assert codes(report) == ["check.table-damaged", "check.uncounted"]


def test_a_list_that_leaves_the_file() -> None:
    image = with_snapshots(count=9, parts={64: struct.pack(">Q", 9 * C - 8)})
    report = checked(image)
    assert codes(report) == ["check.table-damaged", "check.uncounted"]
    assert "snapshot 0 ends at file offset" in report.findings[0].message


def test_version_2_says_less_of_a_snapshot() -> None:
    image = with_snapshots(snapshot(8 * C, 1, extra=0))
    image.version = 2
    assert codes(checked(image)) == []


@pytest.mark.parametrize("place", [10 * C, 50 * C])
def test_a_snapshot_that_names_what_is_behind_the_file(place: int) -> None:
    other = {9 * C: struct.pack(">Q", place), 8 * C: struct.pack(">Q", 9 * C)}
    image = with_snapshots(snapshot(8 * C, 1), parts=other)
    image.file_size = 10 * C
    report = checked(image)
    assert codes(report) == ["check.table-damaged", "check.uncounted"]
    assert "names file offset" in report.findings[0].message


def bitmap(table: int, entries: int) -> bytes:
    return struct.pack(">QIIBBHI", table, entries, 0, 1, 16, 4, 0) + b"name" + bytes(4)


def with_bitmap(
    listed: bytes = b"",
    *,
    count: int = 1,
    autoclear: int = 1,
    parts: dict[int, bytes] | None = None,
) -> CheckReport:
    """One bitmap: its directory at 7 clusters, its table at 8, its bits at 9."""
    entry = listed or bitmap(8 * C, 2)
    content = struct.pack(">IIQQ", count, 0, len(entry), 7 * C)
    image = small(
        autoclear=autoclear,
        file_size=10 * C,
        extensions=extension(0x23852875, content),
        parts={7 * C: entry, 8 * C: struct.pack(">QQ", 1, 9 * C), **(parts or {})},
    )
    return checked(image)


def test_bitmaps_use_clusters_too() -> None:
    assert codes(with_bitmap()) == []
    outdated = only(with_bitmap(autoclear=0))
    assert (outdated.code, outdated.length) == ("check.leaked-space", 3 * C)
    lie = with_bitmap(parts={7 * C: bitmap(8 * C, 1 << 20)})
    assert codes(lie) == ["check.table-damaged", "check.uncounted"]
    twice = bitmap(8 * C, 2) * 2
    lie = with_bitmap(listed=twice, count=2)
    assert codes(lie) == ["check.table-damaged", "check.uncounted"]


def test_compressed_clusters_share_one_and_are_not_inflated() -> None:
    packed = dict.fromkeys(range(3), b"no deflate at all")
    image = Qcow2(8 * C, packed=packed, parts={BLOCK + 2 * 5: b"\0\3"})
    report = checked(image)
    assert (codes(report), report.clean) == (["check.content-unread"], True)
    image.parts[BLOCK + 2 * 5] = b"\0\2"
    assert codes(checked(image)) == ["check.refcount-low", "check.content-unread"]
    entry = int.from_bytes(image.build()[L2 : L2 + 8], "big")
    image.parts = {BLOCK + 2 * 5: b"\0\3", L2: struct.pack(">Q", entry | COPIED)}
    assert codes(checked(image)) == ["check.copied-flag", "check.content-unread"]


def test_windows_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    image = small(file_size=9 * C, parts={BLOCK + 2 * 5: b"\0\0"})
    whole = {finding.code for finding in checked(image).findings}
    for window in (1, 2, 4, 5):
        monkeypatch.setattr(refcounts, "WINDOW", window)
        assert {finding.code for finding in checked(image).findings} == whole


def test_a_file_of_too_many_clusters_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refcounts, "WINDOW", 2)
    monkeypatch.setattr(refcounts, "MAX_WINDOWS", 3)
    found = only(checked(small()))
    assert (found.code, found.severity) == ("check.uncounted", Severity.NOTE)
    assert "7 clusters" in found.message
    monkeypatch.undo()
    monkeypatch.setattr(uses, "MAX_TABLES", 0)
    assert codes(checked(small())) == ["check.uncounted"]
    monkeypatch.undo()
    monkeypatch.setattr(uses, "_MAX_LISTS", 60)
    assert codes(checked(with_snapshots(snapshot(8 * C, 1)))) == ["check.uncounted"]


def test_a_refcount_table_of_nothing_may_lie_anywhere() -> None:
    report = checked(small(fields={48: struct.pack(">QI", 1 << 40, 0)}))
    assert set(codes(report)) == {"check.refcount-low", "check.copied-flag"}


def test_a_hole_of_petabytes_costs_nothing() -> None:
    """A refcount table may be as long as the file says; only what is data in it is read."""
    image = small(fields={48: struct.pack(">QI", 1 << 40, 1 << 30)})
    device = CountingDevice(OverlayDevice(MemoryDevice(image.build()), size=1 << 55))
    report = check_image(device, format="qcow2")
    assert codes(report) == ["check.uncounted"]
    assert device.bytes_read < MiB
