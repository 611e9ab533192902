"""Every error class keeps the promises that scripts rely on: a code of its own, mapped and documented."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*")
# The command line's contract: 1 the answer is no, 2 usage, else sysexits.
_EXIT_CODES = {1, 2, 65, 66, 69, 70, 73, 74, 75, 76, 77, 78}


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


def test_no_code_is_used_twice() -> None:
    twice = [code for code, count in Counter(cls.code for cls in _CLASSES).items() if count > 1]
    assert twice == []


def test_errors_page_is_what_the_classes_say() -> None:
    page = (_ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert page == _TABLE.render(_CLASSES), "run `make docs` and commit docs/errors.md"
