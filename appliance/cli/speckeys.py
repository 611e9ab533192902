"""The names in a job's spec: which are known, and which was meant. Reads nothing and knows no op."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from appliance.cli.exits import CliError, Exit


class BadSpec(CliError):
    """The job's spec cannot be used."""

    code = "cli.bad-spec"
    exit_code = Exit.BAD_DATA
    http_status = 422
    fix = "Correct the named key; docs/jobspec.md lists them all."


def in_file(path: Path, err: Exception) -> BadSpec:
    """Return what is wrong with a spec, with the file that it came from."""
    return BadSpec(f"{path}: {err}", **getattr(err, "fields", {}) | {"path": str(path)})


def check_names(given: Iterable[str], known: Iterable[str], where: str, what: str = "key") -> None:
    """Raise BadSpec for the first name that is not known, with the one that was probably meant.

    Only names are shown, never values: what is under a misspelled name may be a secret.
    """
    names = tuple(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}"
            msg = f"{where} has an unknown {what} {name!r}{hint}"
            raise BadSpec(msg, key=str(name))
