"""Makes a StageContext for tests of stages: real configuration and clocks, a journal in memory, secrets as given."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import AgentConfig, parse
from agent.secrets import Secret
from agent.stages.base import StageContext
from agent.transfer.limiter import Limiter
from protocol.ops import OpArgs
from tests.support.job_store import MemoryJobStore

TAG_KEY = bytes(range(32))
ORIGIN = "0f" * 16


@dataclass
class Seen:
    """What a stage told about itself."""

    progress: list[tuple[str, int, int]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)


def config_for(
    *,
    share: Path | None = None,
    target: Path | None = None,
    endpoints: tuple[str, ...] = ("*",),
    **uploads: object,
) -> AgentConfig:
    """Return a configuration with the local folders `disks` (share) and `cloud` (target)."""
    values: dict[str, object] = {"policy": {"endpoints": list(endpoints)}, "uploads": dict(uploads)}
    if share is not None:
        values["shares"] = {"local": {"disks": str(share)}}
    if target is not None:
        values["targets"] = {"local": {"cloud": str(target)}}
    return parse(values)


def make_job(
    args: OpArgs,
    config: AgentConfig,
    *,
    store: MemoryJobStore | None = None,
    secrets: dict[str, dict[str, str]] | None = None,
    attempt: int = 1,
    origin: str = ORIGIN,
    seen: Seen | None = None,
    now_ms: Callable[[], int] | None = None,
) -> StageContext:
    """Return the context of one attempt."""
    seen = seen or Seen()
    opened = {p: {k: Secret(v) for k, v in m.items()} for p, m in (secrets or {}).items()}
    return StageContext(
        args=args,
        tenant="acme",
        appliance="site-1",
        command_id=origin,
        origin=origin,
        attempt=attempt,
        config=config,
        tag_key=TAG_KEY,
        journal=store or MemoryJobStore(),
        secret=lambda path: opened.get(path, {}),
        progress=lambda step, done, total, *, retries=0, slow=None: seen.progress.append(
            (step, done, total)
        ),
        warn=lambda code, message: seen.warnings.append((code, message)),
        limiter=Limiter(getattr(args, "bandwidth", None), now=time.monotonic),
        stop=threading.Event(),
        now_ms=now_ms or (lambda: time.time_ns() // 10**6),
        clock=time.monotonic,
    )
