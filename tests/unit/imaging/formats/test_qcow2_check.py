"""The check of a qcow2 reads every L2 table, and no data."""

import pytest

from imaging.check import CheckReport
from imaging.formats import check_image
from imaging.memory import MemoryDevice
from tests.support.chains import MemoryFolder
from tests.support.qcow2_images import TABLE, C, Qcow2, content, small


def codes(report: CheckReport) -> list[str]:
    """The codes but the note that every qcow2 gets."""
    *found, note = report.findings
    assert note.code == "check.open-only"
    return [finding.code for finding in found]


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
    assert (codes(report), report.clean) == (["check.table-damaged"] * 2, False)
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
    [({}, []), ({1: 2 * C | 1 << 63}, ["check.table-damaged"])],
    ids=["sound", "elsewhere"],
)
def test_an_image_with_a_data_file(entries: dict[int, int], expected: list[str]) -> None:
    image = small(data_file=b"data", entries=entries)
    assert codes(checked(image, data=bytes(8 * C))) == expected


def test_a_data_file_that_is_short_is_no_matter_of_the_image() -> None:
    assert codes(checked(small(data_file=b"data"), data=bytes(C))) == []
