"""Late: names that are imported when they are first asked for, so that a plug-in costs nothing until it is used."""

from functools import cache
from importlib import import_module
from typing import Any


@cache
def load(reference: str) -> Any:  # noqa: ANN401  (whatever it is)
    """Return what `reference`, "package.module:name", names; the module is imported at the first call.

    Only for tables in our own code: nothing from outside may name a module.
    """
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
