"""Identity check: the one place that decides whether a file is still the file that a job began to read. Pure."""

from dataclasses import fields

from agent.shares.base import FileIdentity
from agent.shares.errors import FileChanged

_WORDS = {
    "size": "size",
    "write_time_ns": "time of last write",
    "change_time_ns": "time of last change",
    "file_id": "file number",
}


def require_unchanged(path: str, before: FileIdentity, now: FileIdentity) -> None:
    """Raise `share.file-changed`, naming every difference, if `now` is not the same version as `before`."""
    changed = [
        f.name for f in fields(FileIdentity) if getattr(before, f.name) != getattr(now, f.name)
    ]
    if changed:
        what = ", ".join(
            f"{_WORDS[name]} was {getattr(before, name)}, is {getattr(now, name)}"
            for name in changed
        )
        raise FileChanged(f"{path} changed during the job: {what}", path=path, changed=changed)
