"""What stages that look at the whole appliance need beyond their own job. Values only; app.py fills them in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agent.journal.leftovers import Leftover

Checks = Callable[[tuple[str, ...]], Awaitable[list[dict[str, Any]]]]
"""Names of checks (none: all) -> one JSON-able finding each."""


@dataclass(frozen=True, slots=True)
class Services:
    """The appliance as `sweep` and `diagnostics` see it.

    Attributes:
        leftovers: Lists objects that nobody works on any more.
        mark_removed: Notes that one of them is gone.
        checks: The doctor's checks; None where the agent was started without them.
    """

    leftovers: Callable[[], Awaitable[list[Leftover]]]
    mark_removed: Callable[[Leftover], Awaitable[None]]
    checks: Checks | None = None
