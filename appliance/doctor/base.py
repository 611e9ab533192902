"""What a check of the doctor is and what it says. Values only; appliance.doctor.run carries checks out.

A check is an async generator of findings: what it found before it crashed or ran out of time is kept.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from agent.config import AgentConfig, ConfigError, Loaded, load
from agent.shares.smb.ref import SmbCredential, SmbShareRef

DEFAULT_TIMEOUT_S = 20.0


class Status(Enum):
    """How a finding judges; the order is from harmless to bad."""

    PASS = "pass"  # noqa: S105 - a judgement
    SKIP = "skip"
    """Could not be looked at: what it needs failed, or there is nothing to look at."""
    WARN = "warn"
    """Works, but somebody should look."""
    FAIL = "fail"
    """Jobs cannot work like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Attributes:
        id: The check's name, or `check.part`.
        title: What was looked at, for people.
        status: The judgement.
        detail: What was seen.
        fix: What to do, "" where nothing is to be done.
        evidence: The facts behind it, JSON-able, no secrets.
        seconds: How long it took; set by the run where the check does not say.
    """

    id: str
    title: str
    status: Status
    detail: str
    fix: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def took(self, seconds: float) -> "Finding":
        """Return it with the time that it took."""
        return replace(self, seconds=round(seconds, 3))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "status": self.status.value}


def passed(id: str, title: str, detail: str, **evidence: Any) -> Finding:
    """Return a finding that is well."""
    return Finding(id, title, Status.PASS, detail, "", evidence)


def skipped(id: str, title: str, detail: str, **evidence: Any) -> Finding:
    """Return a finding that could not be looked at."""
    return Finding(id, title, Status.SKIP, detail, "", evidence)


def warned(id: str, title: str, detail: str, *, fix: str, **evidence: Any) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding(id, title, Status.WARN, detail, fix, evidence)


def failed(id: str, title: str, detail: str, *, fix: str, **evidence: Any) -> Finding:
    """Return a finding that keeps jobs from working."""
    return Finding(id, title, Status.FAIL, detail, fix, evidence)


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wants looked at beyond the configuration.

    Attributes:
        share: An SMB share to connect to, None for none.
        credential: Who logs on there.
        targets: URLs of targets to reach.
        of_job: Whether these are all that one job asks: what policy allows beside them is not tried.
    """

    share: SmbShareRef | None = None
    credential: SmbCredential | None = None
    targets: tuple[str, ...] = ()
    of_job: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What a check may look at.

    Attributes:
        loaded: The configuration, or why there is none.
        options: The caller's wishes.
        wall: Seconds since 1970 by this machine.
        found: Finished findings by check name; those that a check names in `needs` and `after` are there.
    """

    loaded: Loaded | ConfigError
    options: Options
    wall: Callable[[], float]
    found: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def config(self) -> AgentConfig:
        """The configuration; only for checks that need `config`."""
        if isinstance(self.loaded, ConfigError):
            raise self.loaded
        return self.loaded.config

    def evidence(self, check: str) -> dict[str, Any]:
        """Return all facts that a finished check found, {} if it did not run."""
        facts: dict[str, Any] = {}
        for finding in self.found.get(check, ()):
            facts.update(finding.evidence)
        return facts


Run = Callable[[Context], AsyncIterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: What the user types.
        title: One line for `--list`.
        run: Yields findings, in the order in which they should be read.
        needs: Checks without whose success this one is skipped.
        after: Checks whose facts this one uses if it can have them.
        limit_s: How long it may take once it has what it waits for.
    """

    name: str
    title: str
    run: Run
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    limit_s: float = 12.0


def read_config(file: Path | None) -> Loaded | ConfigError:
    """Read the configuration; what is wrong with it is a finding, not the end of the doctor."""
    try:
        return load(file)
    except ConfigError as err:
        return err
