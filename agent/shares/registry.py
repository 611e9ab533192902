"""Share registry: from the kind's name in a job's spec to the plug-in, imported on first use."""

from importlib import import_module
from typing import Any

from agent.shares.base import Share
from agent.shares.errors import UnknownShareKind

KINDS: dict[str, str] = {
    "local": "agent.shares.local",
    "smb": "agent.shares.smb.share",
}
"""Kind -> module with a `PLUGIN` factory."""


def open_share(kind: str, *args: Any, **options: Any) -> Share:
    """Return a share of `kind`.

    Args:
        kind: A name in `KINDS`.
        *args: What the plug-in's constructor takes: `root` (local); `ref, credential` (smb).
        **options: Its keyword arguments: `policy`, `timing` (smb).

    Raises:
        UnknownShareKind: There is no such kind.
    """
    module = KINDS.get(kind)
    if module is None:
        raise UnknownShareKind(
            f"there is no share kind {kind!r}, there is: {', '.join(sorted(KINDS))}"
        )
    share: Share = import_module(module).PLUGIN(*args, **options)
    return share
