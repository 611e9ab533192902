"""The run: order, dependencies, crashes, hangs; with checks that do on purpose what real ones must not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.config import AgentConfig, Loaded
from agent.errors import Permanent
from appliance.doctor.base import Check, Context, Finding, Options, Status, failed, passed, warned
from appliance.doctor.registry import CHECKS, UnknownCheck, choose
from appliance.doctor.run import examine, summary, worst


def _context() -> Context:
    return Context(Loaded(AgentConfig(), {}), Options(), lambda: 0.0)


def _check(name: str, *findings: Finding | Exception, needs: tuple[str, ...] = (), **rest) -> Check:
    async def run(_context: Context) -> AsyncIterator[Finding]:
        for finding in findings:
            if isinstance(finding, Exception):
                raise finding
            yield finding

    return Check(name, name, run, needs=needs, **rest)


def _fine(name: str) -> Finding:
    return passed(name, name, "well")


async def _hang(_context: Context) -> AsyncIterator[Finding]:
    yield _fine("before")
    await asyncio.Event().wait()
    yield _fine("after")


async def test_findings_come_in_the_order_of_the_checks_not_of_their_ends() -> None:
    release = asyncio.Event()

    async def slow(_context: Context) -> AsyncIterator[Finding]:
        await release.wait()
        yield _fine("slow")

    async def quick(_context: Context) -> AsyncIterator[Finding]:
        release.set()  # the slow one, which stands first, needs the quick one to run meanwhile
        yield _fine("quick")

    checks = (Check("slow", "", slow), Check("quick", "", quick))
    found = await examine(checks, _context(), timeout_s=30)
    assert [finding.id for finding in found] == ["slow", "quick"]


async def test_what_builds_on_a_failed_check_is_skipped_with_the_reason() -> None:
    bad = _check("bad", failed("bad", "", "broken", fix="mend it"))
    next_ = _check("next", _fine("next"), needs=("bad",))
    last = _check("last", _fine("last"), needs=("next",))
    found = await examine((bad, next_, last), _context(), timeout_s=30)
    assert [finding.status for finding in found] == [Status.FAIL, Status.SKIP, Status.PASS]
    assert "`bad` failed" in found[1].detail


async def test_a_crash_is_a_finding_keeps_what_was_found_and_stops_nobody() -> None:
    crash = _check("crash", _fine("crash.first"), TypeError("what?"))
    found = await examine((crash, _check("other", _fine("other"))), _context(), timeout_s=30)
    assert [finding.id for finding in found] == ["crash.first", "crash", "other"]
    assert found[1].status is Status.FAIL
    assert "TypeError: what?" in found[1].detail
    assert "report" in found[1].fix


async def test_an_error_of_ours_explains_itself() -> None:
    class Known(Permanent):
        code = "test.known"
        fix = "do this"

    (found,) = await examine((_check("a", Known("that broke")),), _context(), timeout_s=30)
    assert (found.status, found.detail, found.fix) == (Status.FAIL, "that broke", "do this")


async def test_what_this_user_may_not_see_is_skipped_with_the_place() -> None:
    closed = PermissionError(13, "Permission denied", "/var/lib/closed")
    (found,) = await examine((_check("a", closed),), _context(), timeout_s=30)
    assert found.status is Status.SKIP
    assert "/var/lib/closed" in found.detail


async def test_a_check_that_hangs_ends_at_its_own_limit() -> None:
    hangs = Check("hangs", "", _hang, limit_s=0.01)
    found = await examine((hangs, _check("b", _fine("b"))), _context(), timeout_s=30)
    assert [(f.id, f.status) for f in found] == [
        ("before", Status.PASS),
        ("hangs", Status.FAIL),
        ("b", Status.PASS),
    ]


async def test_all_together_end_at_the_common_limit() -> None:
    hangs = Check("hangs", "", _hang, limit_s=1000)
    waits = _check("waits", _fine("waits"), after=("hangs",))
    found = await examine((hangs, waits), _context(), timeout_s=0.01)
    assert [finding.status for finding in found] == [Status.PASS, Status.FAIL, Status.SKIP]
    assert "time limit" in found[2].detail


async def test_facts_of_one_check_reach_the_next() -> None:
    async def reads(context: Context) -> AsyncIterator[Finding]:
        yield passed("reads", "", str(context.evidence("first")["answer"]))

    first = _check("first", passed("first", "", "", answer=42))
    checks = (first, Check("reads", "", reads, after=("first",)))
    assert (await examine(checks, _context(), timeout_s=30))[1].detail == "42"


async def test_nothing_that_looks_like_a_secret_leaves() -> None:
    url = "https://a/x?sig=hunter2"
    found = await examine(
        (
            _check("a", warned("a", "", url, fix=url, url=url, password="hunter2")),
            _check("b", ValueError(url)),
        ),
        _context(),
        timeout_s=30,
    )
    assert "hunter2" not in repr(found)


def test_a_choice_brings_what_it_builds_on_in_order() -> None:
    names = [check.name for check in choose(["clock"])]
    assert names == ["config", "journal", "relay", "clock"]
    assert choose([]) == CHECKS


def test_an_unknown_check_is_named() -> None:
    with pytest.raises(UnknownCheck, match="'colour'"):
        choose(["colour"])


def test_every_check_stands_after_what_it_builds_on() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert seen >= {*check.needs, *check.after}, check.name
        seen.add(check.name)


def test_every_check_has_a_file_of_its_name() -> None:
    folder = Path(__file__).resolve().parents[4] / "appliance" / "doctor" / "checks"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == {check.name for check in CHECKS}


def test_the_worst_finding_decides() -> None:
    findings = [_fine("a"), warned("b", "", "", fix=""), failed("c", "", "", fix="")]
    assert [worst(findings[:n]) for n in range(4)] == [
        Status.PASS,
        Status.PASS,
        Status.WARN,
        Status.FAIL,
    ]
    assert summary(findings) == {"pass": 1, "skip": 0, "warn": 1, "fail": 1}
