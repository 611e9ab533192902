"""The stages of a job: what each op does with source, share and target. A registry, imported on first use."""

import importlib

from agent.stages.base import Stage, StageContext, StageOutcome
from agent.stages.services import Services

__all__ = ["Services", "Stage", "StageContext", "StageOutcome", "load"]

REGISTRY = {
    "upload": "agent.stages.upload",
    "preflight": "agent.stages.preflight",
    "sweep": "agent.stages.sweep",
    "diagnostics": "agent.stages.diagnostics",
}
"""op -> module with a `STAGE`, or with `make(services)` if it looks beyond its own job."""


def load(op: str, services: Services) -> Stage | None:
    """Return the stage of an op, None if this release has none."""
    name = REGISTRY.get(op)
    if name is None:
        return None
    module = importlib.import_module(name)
    stage: Stage = module.make(services) if hasattr(module, "make") else module.STAGE
    return stage
