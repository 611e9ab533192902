"""Every error class keeps the promises that scripts rely on: a code of its own, mapped and documented."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol.verdicts import VERDICTS

_ROOT = Path(__file__).resolve().parents[2]
_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*")
# The command line's contract: 1 the answer is no, 2 usage, else sysexits.
_EXIT_CODES = {1, 2, 65, 66, 69, 70, 73, 74, 75, 76, 77, 78}

_AREAS = "agent|appliance|job|journal|policy|protocol|relay|secret|signer|target|upload|image"
_COUNTERS = {"protocol.old", "protocol.duplicate", "protocol.gap"}
"""Counted, never said to anybody."""
_DECIDERS = (
    "protocol/acceptor.py",
    "protocol/inbox.py",
    "protocol/issuer.py",
    "protocol/outcomes.py",
    "protocol/session.py",
    "protocol/standing.py",
    "agent/acceptance.py",
    "agent/attempt.py",
    "agent/policy.py",
    "agent/schedule.py",
    "agent/stages/upload.py",
    "relay/agents.py",
    "relay/channel.py",
    "relay/desk.py",
    "relay/signer/issue.py",
    "relay/signer/rebase.py",
    "relay/signer/statements.py",
)


def _load_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "error_table", _ROOT / "scripts" / "error_table.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_TABLE = _load_table()
_CLASSES: list[type[Any]] = _TABLE.error_classes()
_ABSTRACT = {cls for cls in _CLASSES if cls.__subclasses__()}
"""Roots of groups: what to do is said by the classes below them."""


def test_each_tree_has_its_root() -> None:
    names = {cls.__name__ for cls in _CLASSES}
    assert names >= {"ImagingError", "AgentError"}


@pytest.mark.parametrize("cls", _CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_class_states_its_own_well_formed_mapped_code(cls: type[Any]) -> None:
    assert "code" in vars(cls), "inherits its parent's code"
    assert _CODE.fullmatch(cls.code), "area.kebab-case"
    assert cls.exit_code in _EXIT_CODES
    assert 400 <= cls.http_status <= 599
    assert isinstance(cls.retryable, bool)
    assert isinstance(cls.fix, str)
    assert (cls.__doc__ or "").strip(), "the docstring is the documentation of the code"


@pytest.mark.parametrize(
    "cls", [c for c in _CLASSES if c not in _ABSTRACT], ids=lambda cls: str(cls.code)
)
def test_what_can_be_raised_says_what_to_do(cls: type[Any]) -> None:
    assert cls.fix


def test_a_code_is_a_class_or_a_verdict_and_not_both() -> None:
    assert {cls.code for cls in _CLASSES} & set(VERDICTS) == set()
    assert all(_CODE.fullmatch(code) for code in VERDICTS)


def test_every_verdict_that_is_decided_is_documented() -> None:
    documented = {cls.code for cls in _CLASSES} | set(VERDICTS)
    for module in _DECIDERS:
        text = (_ROOT / module).read_text(encoding="utf-8")
        used = set(re.findall(rf'"((?:{_AREAS})\.[a-z]+(?:-[a-z]+)*)"', text))
        assert used - documented - _COUNTERS == set(), module


def test_no_code_is_used_twice() -> None:
    twice = [code for code, count in Counter(cls.code for cls in _CLASSES).items() if count > 1]
    assert twice == []


def test_errors_page_is_what_the_classes_say() -> None:
    page = (_ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert page == _TABLE.render(_CLASSES), "run `make docs` and commit docs/errors.md"
