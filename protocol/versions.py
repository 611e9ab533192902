"""What this release can read, as it says so in `hello.caps`; and what another one said. Values only.

A header change is a new version, announced here at least one release before anybody signs it (PROTOCOL 1). A wire
change of any kind changes this file and SPEC.md in the same commit.
"""

from collections.abc import Collection

from protocol.ops import OPS

COMMAND_HEADERS = (1,)
"""Versions of the command header that this release consumes."""


def own_caps() -> tuple[str, ...]:
    """Return this release's `hello.caps`: `command/<header version>` and `<op>/<args_v>` of every op."""
    headers = tuple(f"command/{version}" for version in COMMAND_HEADERS)
    return headers + tuple(f"{op}/{args_v}" for op, args_v in OPS)


def understands(caps: Collection[str], *, op: str, args_v: int, header: int = 1) -> bool:
    """Whether an appliance that announced `caps` can do this op; the signer asks before it signs."""
    return f"command/{header}" in caps and f"{op}/{args_v}" in caps
