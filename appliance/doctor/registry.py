"""Which checks there are, in the order in which they are read; and which ones a choice brings with it. Runs none."""

from collections.abc import Iterable

from agent.errors import NeedsOperator
from appliance.doctor.base import Check
from appliance.doctor.checks import (
    clock,
    config,
    enrolment,
    host,
    journal,
    proxy,
    relay,
    share,
    target,
)

CHECKS: tuple[Check, ...] = (
    config.CHECK,
    host.CHECK,
    enrolment.CHECK,
    journal.CHECK,
    proxy.CHECK,
    relay.CHECK,
    clock.CHECK,
    share.CHECK,
    target.CHECK,
)
"""A check stands after those that it needs."""


class UnknownCheck(NeedsOperator):
    """There is no check of that name."""

    code = "doctor.unknown-check"
    exit_code = 2
    http_status = 400
    fix = "`imageport doctor --list` shows the checks."


def choose(names: Iterable[str]) -> tuple[Check, ...]:
    """Return the named checks, none: all, and what they build on, in order.

    Raises:
        UnknownCheck.
    """
    known = {check.name: check for check in CHECKS}
    wanted: set[str] = set()
    waiting = list(names) or list(known)
    while waiting:
        name = waiting.pop()
        if name not in known:
            raise UnknownCheck(f"there is no check {name!r}; there are: {', '.join(known)}")
        if name not in wanted:
            wanted.add(name)
            waiting += [*known[name].needs, *known[name].after]
    return tuple(check for check in CHECKS if check.name in wanted)
