"""Which name a new disk gets, and what may be in its way: the meaning of `if_exists`, once for all targets.

| if_exists | nothing there | unfinished, ours | finished, ours | not ours |
|---|---|---|---|---|
| fail | take | target.exists | target.exists | target.exists |
| resume | take | take over | target.exists | target.not-ours |
| replace | take | take over | replace | target.not-ours |
| new-version | take | next name | next name | next name |

A name that this line of jobs recorded an intent for is always taken again, whatever was chosen then.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from agent.targets.errors import IfExistsUnsupported, NotOurs, TargetExists

MOST_VERSIONS = 999


@dataclass(frozen=True, slots=True)
class Found:
    """An object that is there.

    Attributes:
        ours: Whether it carries a valid owner tag of this appliance.
        final: Whether it is finished.
        where: How messages call it.
    """

    ours: bool
    final: bool
    where: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The name to use; `replaces`: a finished disk of ours has it now and is swapped out at the end."""

    name: str
    replaces: bool


def nothing_known(_name: str) -> bool:
    """What a line of jobs recorded before its first attempt: nothing."""
    return False


def versions(name: str) -> Iterator[str]:
    """Yield the names that `new-version` may take: name, name-v2, name-v3, ..."""
    yield name
    for number in range(2, MOST_VERSIONS + 1):
        yield f"{name}-v{number}"


async def choose_name(
    base: str,
    if_exists: str,
    *,
    known: Callable[[str], bool],
    look: Callable[[str], Awaitable[Found | None]],
    can_replace: bool,
) -> Choice:
    """Return the name by the table above.

    Args:
        base: The name that the job asks for.
        if_exists: See the table.
        known: Whether this line of jobs recorded an intent for a name.
        look: Finds what has a name now.
        can_replace: Whether this target can swap a finished disk.

    Raises:
        TargetExists, NotOurs, IfExistsUnsupported.
    """
    candidates = list(versions(base)) if if_exists == "new-version" else [base]
    for name in candidates:
        if known(name):
            return Choice(name, replaces=if_exists == "replace")
    for name in candidates:
        found = await look(name)
        if found is None:
            return Choice(name, replaces=False)
        if if_exists != "new-version":
            return Choice(name, replaces=_may_take(found, if_exists, can_replace=can_replace))
    msg = f"{base} and {MOST_VERSIONS - 1} versions of it exist"
    raise TargetExists(msg, name=base)


def _may_take(found: Found, if_exists: str, *, can_replace: bool) -> bool:
    """Return whether what is there is swapped out at the end; raise if it must not be touched."""
    if if_exists == "fail" or (if_exists == "resume" and found.ours and found.final):
        msg = f"{found.where} exists" + (" and is finished" if found.final else "")
        raise TargetExists(msg, where=found.where)
    if not found.ours:
        msg = f"{found.where} exists and carries no owner tag of this appliance"
        raise NotOurs(msg, where=found.where)
    if found.final and not can_replace:
        msg = f"{found.where} cannot be replaced in place: this kind of target has no rename"
        raise IfExistsUnsupported(msg, where=found.where)
    return found.final
