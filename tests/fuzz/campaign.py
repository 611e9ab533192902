"""Run cases until the CPU time is used up; count, minimise and report. Judges nothing itself.

Every seed takes turns: its systematic cases and random ones, one of each, so that a short campaign meets all of them.
"""

import argparse
import json
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.cases import corpus, make_case, systematic
from tests.fuzz.hostile import HEAVY
from tests.fuzz.oracle import Outcome, judge
from tests.fuzz.seeds import Seed
from tests.support.disks import GiB

_ADDRESS_SPACE = 3 * GiB
"""Backstop: an absurd allocation fails at once instead of taking the machine down."""
_HANG = 30
"""Seconds of one case, of a campaign only; the gate bounds work, not time."""


class Hang(BaseException):
    """A case that does not end."""


@dataclass
class Tally:
    """What happened to the cases of one format."""

    cases: int = 0
    cpu: float = 0.0
    opened: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    placeless: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")


@dataclass
class Result:
    """What a campaign found: a name and a message for each distinct finding."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    findings: dict[str, tuple[str, str]] = field(default_factory=dict)
    repeated: int = 0


def main(chosen: argparse.Namespace) -> int:
    """Run a campaign; return 1 if anything was found."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _alarm)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    part, parts = map(int, chosen.part.split("/"))
    result = Result()
    for name in _names(chosen.only, part, parts, chosen.start):
        _run(name, result)
        if ended or time.process_time() >= chosen.cpu:
            break
    _print(result)
    if chosen.report:
        Path(chosen.report).write_text(json.dumps(_plain(result), indent=1))
    return 1 if result.findings else 0


def replay(name: str) -> int:
    """Run one case and say what became of it."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.RLIM_INFINITY))
    try:
        outcome = judge(make_case(name))
    except Exception:  # noqa: BLE001  (whatever it is, it is the finding)
        traceback.print_exc()
        return 1
    print(name, "opened" if outcome.opened else "refused", dict(outcome.codes))  # noqa: T201
    return 0


def _names(only: str, part: int, parts: int, start: int) -> Iterator[str]:
    chosen = {name: seed for name, seed in corpus().items() if name.startswith(only)}
    yield from list(chosen)[part::parts]
    sources = [
        _cases(seed, part, parts, start) for name, seed in chosen.items() if name not in HEAVY
    ]
    while True:
        for source in sources:
            yield next(source)


def _cases(seed: Seed, part: int, parts: int, start: int) -> Iterator[str]:
    ordered = systematic(seed, start)
    turn = start + part
    while True:
        for number, name in zip(range(parts), ordered, strict=False):
            if number == part:
                yield name
        yield f"{seed.name}:rand:{turn}"
        turn += parts


def _run(name: str, result: Result) -> None:
    tally = result.tallies.setdefault(name.partition("-")[0], Tally())
    start = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, _HANG)
    try:
        _add(judge(make_case(name)), tally)
    except (Exception, Hang) as err:  # noqa: BLE001
        signal.setitimer(signal.ITIMER_REAL, 0)
        _keep(name, err, result)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    used = time.process_time() - start
    tally.cases += 1
    tally.cpu += used
    tally.slowest = max(tally.slowest, (used, name))


def _add(outcome: Outcome, tally: Tally) -> None:
    tally.opened += outcome.opened
    tally.refused += not outcome.opened
    tally.codes += outcome.codes
    if len(tally.placeless) < 50:
        tally.placeless.update(text[-90:] for text in outcome.placeless)


def _keep(name: str, err: BaseException, result: Result) -> None:
    """Keep the first case of each place in the code."""
    place = _place(err)
    if place in result.findings:
        result.repeated += 1
        return
    shortest = _minimised(name, place)
    result.findings[place] = (shortest, "".join(traceback.format_exception(err))[-3000:])
    print(f"FOUND {place}\n  replay: python -m tests.fuzz {shortest}", flush=True)  # noqa: T201
    print(result.findings[place][1], flush=True)  # noqa: T201


def _place(err: BaseException) -> str:
    root = err.__cause__ or err
    frames = traceback.extract_tb(root.__traceback__)
    ours = [frame for frame in frames if "/imaging/" in frame.filename] or list(frames)
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(err).__name__}/{type(root).__name__} at {where}"


def _minimised(name: str, place: str) -> str:
    """Leave out changes of a random case while it still fails at the same place."""
    if ":rand:" not in name:
        return name
    steps = list(range(5))
    for step in range(5):
        fewer = [other for other in steps if other != step]
        if not fewer:
            break
        shorter = f"{name}/{','.join(map(str, fewer))}"
        try:
            judge(make_case(shorter))
        except Exception as err:  # noqa: BLE001
            if _place(err) == place:
                steps = fewer
    return f"{name}/{','.join(map(str, steps))}"


def _alarm(*_: object) -> None:
    raise Hang(f"no end after {_HANG} s")


def _plain(result: Result) -> dict[str, object]:
    tallies = {form: {**vars(tally)} for form, tally in result.tallies.items()}
    return {"tallies": tallies, "findings": result.findings, "repeated": result.repeated}


def _print(result: Result) -> None:
    print(f"{'format':8} {'cases':>8} {'CPU s':>7} {'opened':>7} {'refused':>7} {'codes':>5}")  # noqa: T201
    for form, tally in sorted(result.tallies.items()):
        row = f"{tally.cases:8} {tally.cpu:7.0f} {tally.opened:7} {tally.refused:7} {len(tally.codes):5}"
        print(f"{form:8} {row}  slowest {tally.slowest[0]:.2f} s: {tally.slowest[1]}")  # noqa: T201
    print(f"{len(result.findings)} findings, {result.repeated} more cases of them")  # noqa: T201
    for place, (name, _) in result.findings.items():
        print(f"  {place}: {name}")  # noqa: T201
    sys.stdout.flush()
