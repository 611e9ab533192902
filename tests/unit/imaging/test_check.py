"""Check reports: what clean means, how long a report gets, and which space counts as unused."""

import pytest

from imaging.check import CheckReport, Finding, Severity, UsageMap, bounded

GiB, TiB = 1 << 30, 1 << 40


def finding(severity: Severity = Severity.WARNING, code: str = "check.x") -> Finding:
    return Finding(code, severity, "something", 5)


@pytest.mark.parametrize(
    ("severities", "clean"),
    [([], True), (["note"], True), (["note", "warning"], False), (["error"], False)],
)
def test_notes_leave_an_image_clean(severities: list[str], clean: bool) -> None:
    found = tuple(finding(Severity(severity)) for severity in severities)
    assert CheckReport("raw", "", 1, 1, None, found).clean is clean


def test_many_findings_of_one_code_become_one_line() -> None:
    found = list(bounded([*[finding()] * 50, finding(code="check.y")]))
    assert len(found) == 22
    assert [each.code for each in found[19:]] == ["check.x", "check.y", "check.x"]
    assert found[-1].message == "and 30 more"
    assert found[-1].severity is Severity.WARNING


def test_unused_space_is_what_no_range_touches() -> None:
    usage = UsageMap(10 * 512 + 100)
    for offset, length in ((0, 512), (1500, 100), (4096, 0), (9 * 512, 9999), (1 << 60, 5)):
        usage.add(offset, length)
    assert list(usage.unused(1)) == [(512, 512), (2048, 5 * 512)]
    assert list(usage.unused(513)) == [(2048, 5 * 512)]


def test_unused_space_at_the_end_stops_with_the_file() -> None:
    usage = UsageMap(1000)
    usage.add(0, 512)
    assert list(usage.unused(1)) == [(512, 488)]
    assert list(UsageMap(0).unused(1)) == []


def test_a_map_of_a_large_file_is_small_and_never_calls_used_space_unused() -> None:
    usage = UsageMap(1 * TiB)
    assert len(usage._used) == 1 << 24
    usage.add(GiB + 1, 1)
    assert list(usage.unused(1)) == [(0, GiB), (GiB + 65536, TiB - GiB - 65536)]
    assert len(UsageMap((1 << 60) + 1)._used) <= 1 << 24
