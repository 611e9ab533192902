"""The dicts behind the memory store and the steps that its methods share. Nothing awaits, so each step is atomic."""

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from relay.errors import Backlog, SeqTaken
from relay.store import rules
from relay.store.base import (
    MAX_BACKLOG,
    MAX_BACKLOG_BYTES,
    Answer,
    Appliance,
    Artifact,
    AuditEntry,
    Command,
    Head,
    Job,
    Kept,
    LogEvent,
    Result,
)

CommandState: TypeAlias = Literal["pending", "acked", "quarantined", "retired"]


@dataclass(slots=True)
class Site:
    """Everything of one appliance."""

    view: Appliance
    kept: dict[str, Kept] = field(default_factory=dict)
    commands: dict[bytes, tuple[Command, CommandState]] = field(default_factory=dict)
    results: dict[bytes, dict[int, Result]] = field(default_factory=dict)
    through: dict[bytes, int] = field(default_factory=dict)

    def offered(self, epoch: int) -> dict[int, Command]:
        """Return what may be sent of one epoch, by seq."""
        return {
            command.seq: command
            for command, state in self.commands.values()
            if command.epoch == epoch and state in ("pending", "acked")
        }

    def pending(self) -> list[Command]:
        """Return what was not delivered yet."""
        return [command for command, state in self.commands.values() if state == "pending"]

    def shown(self) -> Appliance:
        """Return the view with its counts."""
        through = self.through.get(self.view.journal, 0)
        return replace(self.view, through=through, queued=len(self.pending()))

    def head(self) -> Head:
        """Return how far contiguous commands and results reach."""
        view = self.view
        epoch = max([view.epoch, *(command.epoch for command, _ in self.commands.values())])
        seq = view.have if epoch == view.epoch else 0
        offered = self.offered(epoch)
        while seq + 1 in offered:
            seq += 1
        n = self.through.get(view.journal, 0)
        return Head(view.tenant, view.id, epoch, seq, view.journal, n, view.connected)

    def walk(self, journal: bytes) -> None:
        """Move `through` over results that are there without a gap."""
        n = self.through.get(journal, 0)
        while n + 1 in self.results.get(journal, {}):
            n += 1
        self.through[journal] = n


@dataclass(slots=True)
class State:
    """All tenants."""

    manifests: dict[str, Kept] = field(default_factory=dict)
    sites: dict[tuple[str, str], Site] = field(default_factory=dict)
    jobs: dict[tuple[str, bytes], Job] = field(default_factory=dict)
    events: dict[str, list[LogEvent]] = field(default_factory=dict)
    answers: dict[tuple[str, str, str], tuple[Answer, int]] = field(default_factory=dict)
    artifacts: dict[tuple[str, bytes], Artifact] = field(default_factory=dict)
    audit: dict[str, list[AuditEntry]] = field(default_factory=dict)
    last_event: int = 0

    def site(self, tenant: str, appliance: str) -> Site:
        """Return an appliance's site, made on first use."""
        return self.sites.setdefault((tenant, appliance), Site(Appliance(tenant, appliance)))

    def note(  # noqa: PLR0917  # the columns of an audit entry, in their order
        self, tenant: str, actor: str, action: str, subject: str, detail: str, now: int
    ) -> None:
        """Append to the audit log."""
        log = self.audit.setdefault(tenant, [])
        before = log[-1].hash if log else rules.GENESIS
        fields = (len(log) + 1, now, actor, action, subject, detail)
        log.append(AuditEntry(*fields, rules.audit_hash(before, fields)))

    def event_id(self, now: int) -> int:
        """Allocate the next event id."""
        self.last_event = rules.next_event_id(self.last_event, now)
        return self.last_event

    def log(
        self,
        tenant: str,
        kind: Literal["state", "appliance"],
        job: Job | None,
        now: int,
        data: bytes,
    ) -> None:
        """Append to the event stream."""
        event = LogEvent(self.event_id(now), kind, now, b"" if job is None else job.id, data)
        self.events.setdefault(tenant, []).append(event)

    def save_job(self, old: Job | None, new: Job | None) -> None:
        """Store a job's next row and its event; None means that nothing changed."""
        if new is None:
            return
        self.jobs[new.tenant, new.id] = new
        if old is None or rules.is_news(old, new):
            self.log(new.tenant, "state", new, new.updated, rules.state_data(new))

    def presence_event(self, view: Appliance, now: int) -> None:
        """Tell that an appliance came or went."""
        data = rules.appliance_data(
            view.id, connected=view.connected, generation=view.generation, at=now
        )
        self.log(view.tenant, "appliance", None, now, data)

    def place(self, site: Site, command: Command, now: int) -> None:
        """Queue a command.

        Raises:
            SeqTaken, Backlog.
        """
        view = site.view
        ordered = site.kept.get("epoch")
        state: CommandState = "pending"
        if command.epoch < max(view.epoch, ordered.serial if ordered else 0):
            state = "retired"
        elif command.epoch == view.epoch and command.seq <= view.have:
            state = "acked"
        check_seq(site, command)
        if state == "pending":
            check_room(site, command)
        site.commands[command.digest] = (command, state)
        self._queue_job(command, now)
        if state == "acked":
            self.acknowledge(command, now)

    def _queue_job(self, command: Command, now: int) -> None:
        old = self.jobs.get((command.tenant, command.id))
        if old is None:
            order = self.event_id(now)
            self.save_job(None, rules.job_of_command(command, order=order, now=now))
        else:
            self.save_job(old, rules.requeued(old, command, now=now))

    def acknowledge(self, command: Command, now: int) -> None:
        """Move a delivered command's job on."""
        job = self.jobs.get((command.tenant, command.id))
        if job is not None and job.digest == command.digest:
            self.save_job(job, rules.acknowledged(job, now=now))

    def delivered(self, site: Site, epoch: int, have: int, now: int) -> None:
        """Mark commands up to `have` of `epoch` as delivered and those of lower epochs as retired."""
        for command in sorted(site.pending(), key=lambda command: command.seq):
            if command.epoch < epoch:
                site.commands[command.digest] = (command, "retired")
            elif command.epoch == epoch and command.seq <= have:
                site.commands[command.digest] = (command, "acked")
                self.acknowledge(command, now)

    def end_job(self, tenant: str, appliance: str, result: Result, now: int) -> None:
        """Give a job its result; make the job if this store never had it."""
        job = self.jobs.get((tenant, result.id))
        made = job or rules.job_of_result(
            tenant, appliance, result, order=self.event_id(now), now=now
        )
        self.save_job(job, rules.ended(made, appliance, result, now=now))


def check_seq(site: Site, command: Command) -> None:
    """Raise SeqTaken if another envelope that is not quarantined holds the command's number."""
    for other, state in site.commands.values():
        if (other.epoch, other.seq) == (command.epoch, command.seq) and state != "quarantined":
            raise SeqTaken(
                f"epoch {command.epoch} seq {command.seq} of {command.appliance} is another command",
                held=other.digest.hex(),
                offered=command.digest.hex(),
            )


def check_room(site: Site, command: Command) -> None:
    """Raise Backlog if too much waits already."""
    pending = site.pending()
    size = sum(len(waiting.env) for waiting in pending)
    if len(pending) >= MAX_BACKLOG or size + len(command.env) > MAX_BACKLOG_BYTES:
        raise Backlog(
            f"{len(pending)} commands ({size} bytes) wait for {command.appliance}, "
            f"at most {MAX_BACKLOG} and {MAX_BACKLOG_BYTES} bytes may",
            waiting=len(pending),
            bytes=size,
        )
