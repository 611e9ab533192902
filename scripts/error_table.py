"""Write docs/errors.md: every error class of the five packages with its code, exit code and status; every verdict.

Not a checker: tests/unit/test_error_codes.py uses `error_classes()` and `render()` to hold the rules
and to notice a page that is out of date.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("protocol", "imaging", "agent", "relay", "appliance")
ROOTS = (
    ("protocol.errors", "ProtocolError"),
    ("imaging.errors", "ImagingError"),
    ("agent.errors", "AgentError"),
    ("relay.errors", "RelayError"),
    ("appliance.cli.exits", "CliError"),
)

_HEAD = """\
# Errors

Every error has a **code**. A code is for ever: scripts match on it, it travels in signed results, in `--json`
and in REST answers (RFC 9457 `type`). The text beside it may change. This page is made from the classes by
`make docs`; a test holds it up to date.

*exit* is the exit code of the command line (sysexits), *HTTP* the status over REST, *again* whether the same
call may succeed later without anybody acting.
"""

_VERDICTS = """\
## Verdicts

Codes that nobody raises: somebody decided, and signed it. They stand in results, nacks, warnings, close frames
and the audit log. A job that ends with one ends the command line with 1.
"""


def error_classes() -> list[type[Any]]:
    """Import every module of the product and return all classes of the four error trees, by name."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for info in pkgutil.walk_packages(module.__path__, f"{package}."):
            if not info.name.endswith("__main__"):
                importlib.import_module(info.name)
    found = {cls for root in _roots() for cls in _tree(root)}
    return sorted(found, key=lambda cls: (cls.code, cls.__module__, cls.__qualname__))


def render(classes: list[type[Any]]) -> str:
    """Return the text of docs/errors.md."""
    lines = [_HEAD, "| code | meaning | what to do | exit | HTTP | again | class |"]
    lines.append("|---|---|---|---|---|---|---|")
    for cls in classes:
        meaning = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
        again = "yes" if cls.retryable else "no"
        where = f"`{cls.__module__}.{cls.__qualname__}`"
        cells = (
            f"`{cls.code}`",
            meaning,
            cls.fix,
            int(cls.exit_code),
            cls.http_status,
            again,
            where,
        )
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += ["", _VERDICTS, "| code | meaning | what to do |", "|---|---|---|"]
    verdicts = importlib.import_module("protocol.verdicts").VERDICTS
    lines += [
        f"| `{code}` | {said.cause} | {said.fix} |" for code, said in sorted(verdicts.items())
    ]
    return "\n".join(lines) + "\n"


def _roots() -> Iterator[type[Any]]:
    for module, name in ROOTS:
        if importlib.util.find_spec(module) is not None:
            yield getattr(importlib.import_module(module), name)


def _tree(cls: type[Any]) -> Iterator[type[Any]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__.split(".")[0] in PACKAGES:  # not a test's own class
            yield from _tree(child)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(error_classes()), encoding="utf-8")
