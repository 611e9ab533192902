"""The reference store: plain dicts in one process. Keeps nothing over a restart; the contract suite's first subject.

Every method is atomic because it does not await.
"""

import hashlib
from dataclasses import replace
from typing import Literal

from relay.errors import EnvelopeQuarantined
from relay.store import rules
from relay.store.base import (
    EVERYWHERE,
    RESPONSE_KEPT_MS,
    Answer,
    Appliance,
    Artifact,
    AuditEntry,
    Command,
    Head,
    Job,
    Kept,
    KeptKind,
    Link,
    LogEvent,
    Result,
    ResultsKept,
    Update,
)
from relay.store.memory_state import State


class MemoryStore:
    """See `relay.store.base.Store`."""

    def __init__(self) -> None:
        self._s = State()

    async def keep(
        self, tenant: str, appliance: str, item: Kept, *, actor: str, now: int
    ) -> Literal["new", "same", "stale"]:
        """See Store."""
        shelf: dict[str, Kept] = (
            {"manifest": self._s.manifests[tenant]} if tenant in self._s.manifests else {}
        )
        if item.kind != "manifest":
            shelf = self._s.site(tenant, appliance).kept
        old = shelf.get(item.kind)
        verdict = rules.keeps(old, item)
        if verdict != "new":
            return verdict
        if item.kind == "manifest":
            self._s.manifests[tenant] = item
        else:
            shelf[item.kind] = item
        if item.kind == "epoch":
            self._s.delivered(self._s.site(tenant, appliance), item.serial, 0, now)
        if item.kind in ("manifest", "record", "epoch"):
            self._s.note(
                tenant, actor, f"{item.kind}.kept", appliance, f"serial {item.serial}", now
            )
        return "new"

    async def kept(self, tenant: str, appliance: str, kind: KeptKind) -> Kept | None:
        """See Store."""
        if kind == "manifest":
            return self._s.manifests.get(tenant)
        site = self._s.sites.get((tenant, appliance))
        return None if site is None else site.kept.get(kind)

    async def open_link(
        self,
        tenant: str,
        appliance: str,
        *,
        epoch: int,
        have: int,
        journal: bytes,
        confirmed: int,
        now: int,
    ) -> Link:
        """See Store."""
        site = self._s.site(tenant, appliance)
        site.through[journal] = max(site.through.get(journal, 0), confirmed)
        site.walk(journal)
        self._s.delivered(site, epoch, have, now)
        generation = site.view.generation + 1
        site.view = replace(
            site.view,
            generation=generation,
            connected=True,
            since=now,
            last_seen=now,
            epoch=epoch,
            have=have,
            journal=journal,
        )
        self._s.presence_event(site.view, now)
        return Link(generation, site.through[journal])

    async def close_link(self, tenant: str, appliance: str, *, generation: int, now: int) -> bool:
        """See Store."""
        site = self._s.sites.get((tenant, appliance))
        if site is None or site.view.generation != generation or not site.view.connected:
            return False
        site.view = replace(site.view, connected=False, since=now, last_seen=now)
        self._s.presence_event(site.view, now)
        return True

    async def add_command(
        self, command: Command, *, actor: str, answer: Answer | None, now: int
    ) -> Literal["new", "same"]:
        """See Store."""
        site = self._s.site(command.tenant, command.appliance)
        known = site.commands.get(command.digest)
        if known is not None and known[1] == "quarantined":
            raise EnvelopeQuarantined(
                f"{command.appliance} refused envelope {command.digest.hex()} before",
                digest=command.digest.hex(),
            )
        if known is None:
            self._s.place(site, command, now)
            self._s.note(
                command.tenant, actor, "command.stored", command.id.hex(), command.digest.hex(), now
            )
        if answer is not None:
            await self.save_answer(command.tenant, answer, now=now)
        return "new" if known is None else "same"

    async def commands(
        self, tenant: str, appliance: str, *, epoch: int, seq: int, limit: int
    ) -> tuple[Command, ...]:
        """See Store."""
        site = self._s.sites.get((tenant, appliance))
        if site is None:
            return ()
        offered = site.offered(epoch)
        found: list[Command] = []
        while seq in offered and len(found) < limit:
            found.append(offered[seq])
            seq += 1
        return tuple(found)

    async def ack(
        self, tenant: str, appliance: str, *, epoch: int, have: int, env: bytes, now: int
    ) -> bool:
        """See Store."""
        site = self._s.site(tenant, appliance)
        site.kept["ack"] = Kept("ack", have, env, now)
        known = (site.view.epoch, site.view.have) >= (epoch, have)
        site.view = replace(site.view, last_seen=now)
        if known:
            return False
        site.view = replace(site.view, epoch=epoch, have=have)
        self._s.delivered(site, epoch, have, now)
        return True

    async def quarantine(
        self, tenant: str, appliance: str, digest: bytes, *, code: str, nack: Kept, now: int
    ) -> Command | None:
        """See Store."""
        site = self._s.site(tenant, appliance)
        command, state = site.commands.get(digest, (None, "retired"))
        if command is None or state != "pending":
            return None
        site.commands[digest] = (command, "quarantined")
        site.kept["nack"] = nack
        job = self._s.jobs.get((tenant, command.id))
        if job is not None and job.digest == digest:
            self._s.save_job(job, rules.quarantined(job, code=code, now=now))
        self._s.note(tenant, appliance, "command.quarantined", command.id.hex(), code, now)
        return command

    async def drop_damaged(
        self, tenant: str, appliance: str, *, epoch: int, seq: int, name: bytes, now: int
    ) -> Command | None:
        """See Store."""
        site = self._s.site(tenant, appliance)
        for command in site.pending():
            if (command.epoch, command.seq) == (epoch, seq) and _name(command) == name:
                del site.commands[command.digest]
                self._s.note(
                    tenant, appliance, "command.damaged", command.id.hex(), name.hex(), now
                )
                return command
        return None

    async def add_results(
        self, tenant: str, appliance: str, results: tuple[Result, ...], *, now: int
    ) -> ResultsKept:
        """See Store."""
        site = self._s.site(tenant, appliance)
        clashes = []
        for result in results:
            numbered = site.results.setdefault(result.journal, {})
            first = numbered.setdefault(result.n, result)
            if not rules.same_statement(first.env, result.env):
                clashes.append(result)
                self._s.note(
                    tenant, appliance, "appliance.equivocation", result.id.hex(), str(result.n), now
                )
            elif first is result:
                self._s.note(
                    tenant, appliance, "result.stored", result.id.hex(), result.status, now
                )
                self._s.end_job(tenant, appliance, result, now)
            site.walk(result.journal)
        journal = results[-1].journal if results else site.view.journal
        return ResultsKept(site.through.get(journal, 0), tuple(clashes))

    async def results(
        self, tenant: str, appliance: str, *, journal: bytes, after: int, limit: int
    ) -> tuple[Result, ...]:
        """See Store."""
        site = self._s.sites.get((tenant, appliance))
        numbered = {} if site is None else site.results.get(journal, {})
        return tuple(numbered[n] for n in sorted(numbered) if n > after)[:limit]

    async def journals(self, tenant: str, appliance: str) -> tuple[bytes, ...]:
        """See Store."""
        site = self._s.sites.get((tenant, appliance))
        return () if site is None else tuple(site.through)

    async def update(self, tenant: str, appliance: str, update: Update, *, now: int) -> bool:
        """See Store."""
        job = self._s.jobs.get((tenant, update.id))
        new = None if job is None else rules.updated(job, appliance, update, now=now)
        if job is None or new is None:
            return False
        if new.progress != job.progress:
            new = replace(new, progress_event=self._s.event_id(now))
        self._s.save_job(job, new)
        return True

    async def job(self, tenant: str, job: bytes) -> Job | None:
        """See Store."""
        return self._s.jobs.get((tenant, job))

    async def jobs(
        self, tenant: str, *, before: int, limit: int, appliance: str = "", state: str = ""
    ) -> tuple[Job, ...]:
        """See Store."""
        found = [
            replace(job, report=b"")
            for job in self._s.jobs.values()
            if job.tenant == tenant
            and (not before or job.order < before)
            and appliance in ("", job.appliance)
            and state in ("", job.state)
        ]
        return tuple(sorted(found, key=lambda job: -job.order)[:limit])

    async def events(
        self, tenant: str, *, after: int, limit: int, job: bytes = b""
    ) -> tuple[LogEvent, ...]:
        """See Store."""
        found: list[LogEvent] = [
            event for event in self._s.events.get(tenant, []) if event.id > after
        ]
        found += [
            LogEvent(row.progress_event, "progress", row.updated, row.id, rules.progress_data(row))
            for row in self._s.jobs.values()
            if row.tenant == tenant and row.progress_event > after
        ]
        wanted = [event for event in found if job in (b"", event.job)]
        return tuple(sorted(wanted, key=lambda event: event.id)[:limit])

    async def appliance(self, tenant: str, appliance: str) -> Appliance | None:
        """See Store."""
        site = self._s.sites.get((tenant, appliance))
        return None if site is None else site.shown()

    async def appliances(self, tenant: str, *, after: str, limit: int) -> tuple[Appliance, ...]:
        """See Store."""
        ids = sorted(key[1] for key in self._s.sites if key[0] == tenant and key[1] > after)
        return tuple(self._s.sites[tenant, id_].shown() for id_ in ids[:limit])

    async def heads(self, tenant: str) -> tuple[Head, ...]:
        """See Store."""
        return tuple(
            site.head()
            for key, site in sorted(self._s.sites.items())
            if tenant in (EVERYWHERE, key[0])
        )

    async def save_answer(self, tenant: str, answer: Answer, *, now: int) -> None:
        """See Store."""
        old = await self.answer(tenant, answer.caller, answer.key, now=now)
        if old is None:
            self._s.answers[tenant, answer.caller, answer.key] = (answer, now)

    async def answer(self, tenant: str, caller: str, key: str, *, now: int) -> Answer | None:
        """See Store."""
        answer, at = self._s.answers.get((tenant, caller, key), (None, 0))
        return answer if now - at < RESPONSE_KEPT_MS else None

    async def put_artifact(
        self, tenant: str, artifact: Artifact, *, actor: str, now: int
    ) -> Literal["new", "same"]:
        """See Store."""
        if (tenant, artifact.sha256) in self._s.artifacts:
            return "same"
        self._s.artifacts[tenant, artifact.sha256] = artifact
        self._s.note(
            tenant, actor, "artifact.stored", artifact.sha256.hex(), f"{artifact.size} bytes", now
        )
        return "new"

    async def artifact(self, tenant: str, sha256: bytes) -> Artifact | None:
        """See Store."""
        return self._s.artifacts.get((tenant, sha256))

    async def note(
        self, tenant: str, *, actor: str, action: str, subject: str, detail: str, now: int
    ) -> None:
        """See Store."""
        self._s.note(tenant, actor, action, subject, detail, now)

    async def audit(self, tenant: str, *, after: int, limit: int) -> tuple[AuditEntry, ...]:
        """See Store."""
        return tuple(self._s.audit.get(tenant, [])[after : after + limit])

    async def close(self) -> None:
        """See Store."""


def _name(command: Command) -> bytes:
    return hashlib.sha256(command.env).digest()
