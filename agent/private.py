"""Private state: refuses a state folder that others own or may write to, and keys that others may read, as ssh does.

Changes nothing: who sees the keys was somebody's decision, right or wrong; the message has the command that mends it.
"""

import os
import stat
from pathlib import Path

from agent.errors import NeedsOperator

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class NotPrivate(NeedsOperator):
    """The state folder belongs to another user, others may write to it or read a key in it, or nobody can tell."""

    code = "identity.not-private"
    exit_code = 77
    http_status = 403
    fix = (
        "Run the command that the message names; if others could read a key, enrol anew with "
        "`--replaces`: nobody knows who has it."
    )


def require_private(state: Path, keys: Path) -> None:
    """Check a state folder and the private keys (`*.key`) in its folder `keys`; what is not there is fine.

    Raises:
        NotPrivate: With the path, and the chown or chmod that mends it.
    """
    for path in (state, keys):
        if path.exists():
            _require(path, _OTHERS_WRITE, "others may replace what is in it", "go-rwx")
    for path in _private_keys(keys):
        _require(path, _OTHERS, "others may read this private key", "600")


def _private_keys(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".key")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as err:  # ours (that was judged before), but closed to ourselves
        msg = f"{folder} cannot be listed: `chmod 700 {folder}`"
        raise NotPrivate(msg, path=str(folder)) from err


def _require(path: Path, forbidden: int, told: str, mode: str) -> None:
    found, user = path.stat(), os.geteuid()
    if found.st_uid != user:
        msg = (
            f"{path} belongs to user {found.st_uid}, the agent runs as user {user}: "
            f"run it as that user, or `chown -R {user}:{os.getegid()} {path}`"
        )
        raise NotPrivate(msg, path=str(path), owner=found.st_uid, user=user)
    if stat.S_IMODE(found.st_mode) & forbidden:
        shown = f"{stat.S_IMODE(found.st_mode):04o}"
        msg = f"{path} has mode {shown}, {told}: `chmod {mode} {path}`"
        raise NotPrivate(msg, path=str(path), mode=shown)
