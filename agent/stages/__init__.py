"""The stages of a job: what each op does with source, share and target. A registry, imported on first use."""

import importlib

from agent.stages.base import Stage, StageContext, StageOutcome

__all__ = ["Stage", "StageContext", "StageOutcome", "load"]

REGISTRY = {
    "upload": "agent.stages.upload",
    "sweep": "agent.stages.sweep",
    "diagnostics": "agent.stages.diagnostics",
}
"""op -> module with a `STAGE`."""


def load(op: str) -> Stage | None:
    """Return the stage of an op, None if this release has none."""
    module = REGISTRY.get(op)
    if module is None:
        return None
    stage: Stage = importlib.import_module(module).STAGE
    return stage
