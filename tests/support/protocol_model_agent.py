"""The agent of the protocol model: acceptor, inbox and job rules over a journal with explicit commits. No I/O.

Every public method is one step between two crash points; `outbox` is memory, `rows` is the journal.
"""

import copy
from collections.abc import Callable

from protocol.acceptor import Accept, Again, Facts, Gap, Hold, Refuse, Reject, judge
from protocol.clock import SignedClock
from protocol.codec import decode
from protocol.errors import ProtocolError
from protocol.ids import KeyId, key_id
from protocol.inbox import (
    EPOCH_CAS,
    EpochAgain,
    EpochRaise,
    InboxState,
    begin,
    confirm,
    consume,
    judge_epoch,
    lock_notice,
    number_result,
    on_time,
    open_receipt,
    open_time,
)
from protocol.jobs import FINAL, JobEvent, State, advance
from protocol.keys import KeyRing
from protocol.messages import (
    MAX_COMMAND,
    Ack,
    Hello,
    Kind,
    Layout,
    Nack,
    Output,
    Result,
)
from protocol.ops import CancelArgs
from protocol.outcomes import Close, Step, cancel_target, on_epoch, on_revoked, resume
from protocol.signed import parse_envelope, sign
from tests.support import protocol_world as w
from tests.support.protocol_model_rows import Effects, Job, Rows, inventory_of


class Agent:
    """One appliance. `say` hands a signed statement to the relay."""

    def __init__(self, effects: Effects, say: Callable[[Kind, bytes], None]) -> None:
        self.rows = Rows(begin(w.record(), w.RECORD_PAYLOAD, journal=b"J" * 16), w.ring())
        self.effects = effects
        self.say = say
        self.boot_s = 0.0
        self.sessions = 0
        self.notes: dict[bytes, frozenset[bytes]] = {}
        self.backup = copy.deepcopy(self.rows)
        self._forget()

    def _forget(self) -> None:
        self.clock = SignedClock(floor=self.rows.floor)
        self.outbox: list[tuple[Kind, Layout]] = []
        self.running: set[bytes] = set()
        self.nonce = b""
        self.proven = False
        self.may_not_run: frozenset[bytes] = frozenset()

    # --- session

    def connect(self) -> None:
        """Begin a session: nothing is proven in it yet."""
        self.sessions += 1
        self.outbox.clear()
        self.proven = False
        self.nonce = self.sessions.to_bytes(16)
        self.clock.ask(self.nonce, boot_s=self.boot_s)
        state = self.rows.state
        hello = w.hello(
            challenge=bytes(32),
            nonce=self.nonce,
            link=self.rows.link,
            epoch=state.head.epoch,
            have=state.head.have,
            head=state.head.hash,
            journal=state.journal,
            results_last=state.results_last,
            confirmed=state.confirmed,
            manifest_serial=self.rows.ring.manifest.serial,
        )
        self._say(Kind.HELLO, hello)
        if state.locked:
            self.outbox.append((Kind.NACK, lock_notice(state)))
        if state.inventory_due or state.locked:
            self._queue_inventory()

    def flush(self) -> None:
        """Send what waits in memory."""
        while self.outbox:
            self._say(*self.outbox.pop(0))

    def send_results(self, above: int) -> None:
        """Send every result after number `above`."""
        for result in self.rows.results:
            if result.n > above:
                self._say(Kind.RESULT, result)

    def _say(self, kind: Kind, layout: Layout | Hello) -> None:
        self.say(kind, sign(kind, layout, w.DEVICE))

    # --- what comes

    def take(self, kind: Kind, data: bytes) -> None:
        """Take one thing from the relay as `kind`, whatever it is."""
        take = {
            Kind.COMMAND: self._command,
            Kind.EPOCH: self._epoch,
            Kind.RECEIPT: self._receipt,
            Kind.TIME: self._time,
            Kind.MANIFEST: self._manifest,
        }[kind]
        try:
            take(data)
        except ProtocolError:
            return

    def facts(self) -> Facts:
        """Return what the acceptor may know."""
        rows = self.rows
        epoch = rows.state.head.epoch
        return Facts(
            tenant=w.TENANT,
            appliance=w.APPLIANCE,
            ring=rows.ring,
            head=rows.state.head,
            clock=self.clock,
            boot_s=self.boot_s,
            proven=self.proven,
            manifest_wanted=rows.manifest_wanted,
            accept_unproven=False,
            digest_at=lambda seq: rows.by_seq.get((epoch, seq)),
            digest_of_id=rows.by_id.get,
            policy=lambda _command: None,
            room=True,
            locked=rows.state.locked,
        )

    def _command(self, data: bytes) -> None:
        match judge(data, self.facts()):
            case Accept() | Refuse() as verdict:
                self._consume(verdict, parse_envelope(data, limit=MAX_COMMAND).k)
                self._queue_ack()
            case Again():
                self._queue_ack()
            case Reject() as verdict:
                self._queue_nack(verdict)
            case Gap() | Hold():
                return

    def _consume(self, verdict: Accept | Refuse, kid: bytes) -> None:
        command, rows = verdict.command, self.rows
        after = rows.state.head.hash
        rows.state = consume(rows.state, verdict)
        rows.by_seq[command.epoch, command.seq] = verdict.digest
        rows.by_id.setdefault(command.id, verdict.digest)
        job = Job(command, verdict.digest, kid, after=after)
        if verdict.digest in rows.jobs:
            self.effects.broken.append("a command was consumed twice")
        rows.jobs[verdict.digest] = job
        self.effects.consumed.add(verdict.digest)
        if command.results_through is not None:
            rows.state = confirm(rows.state, command.results_through)
        if isinstance(verdict, Refuse):
            job.code = verdict.code
            self._end(job, JobEvent.REFUSE)
        elif command.op == "cancel":
            self._cancel(job)

    def _cancel(self, job: Job) -> None:
        args = decode(job.command.args, CancelArgs, limit=MAX_COMMAND)
        target = self.rows.jobs.get(args.digest)
        found = cancel_target(target.state if target else None, same_digest=target is not None)
        if target is not None and found.step is not None:
            target.code = found.step.code
            self._end(target, found.step.event)
        job.state = advance(job.state, JobEvent.START)
        job.attempt = 1
        self._end(job, JobEvent.SUCCEED)

    def _epoch(self, data: bytes) -> None:
        verdict = judge_epoch(data, self.rows.state, self.facts())
        match verdict:
            case EpochRaise():
                self._raise(verdict)
                self._queue_ack()
                self._queue_inventory()
            case EpochAgain():
                self._queue_ack()
                self._queue_inventory()
            case Reject():
                self._queue_nack(verdict)
                if verdict.code == EPOCH_CAS:
                    self._queue_inventory()
            case Hold():
                return

    def _raise(self, verdict: EpochRaise) -> None:
        rows = self.rows
        kept = [r for r in rows.results if r.n > rows.state.confirmed] if verdict.new_life else []
        rows.state = verdict.state
        if verdict.new_life:
            rows.results = []
            for result in kept:
                self._number(result)
        open_ = [(j.command.id, j.digest, j.state) for j in self._unfinished()]
        what = on_epoch(verdict.epoch, open_)
        for job in self._unfinished():
            step = what.get(job.command.id)
            if isinstance(step, Close):
                job.state = State(step.mark.status)
                self.effects.final_here.add(job.command.id)
                self.running.discard(job.digest)
            elif isinstance(step, Step):
                job.code = step.code
                self._end(job, step.event)

    def _receipt(self, data: bytes) -> None:
        before = self.rows.state
        self.rows.state = confirm(before, open_receipt(data, self.facts()))
        self._tell_lock(before)

    def _time(self, data: bytes) -> None:
        time, exp = open_time(data, self.facts())
        ours = time.nonce == self.nonce
        self.clock.feed(time, key_exp=exp, boot_s=self.boot_s, wall_s=self.boot_s)
        before = self.rows.state
        self.rows.floor = self.clock.floor
        self.rows.link = time.link
        self.rows.manifest_wanted = max(self.rows.manifest_wanted, time.manifest_serial)
        self.rows.state = on_time(before, time)
        if ours:
            self.proven = True
            self.may_not_run = self.notes.get(data, frozenset())
        self._tell_lock(before)

    def _tell_lock(self, before: InboxState) -> None:
        if self.rows.state.locked and not before.locked:
            self.outbox.append((Kind.NACK, lock_notice(self.rows.state)))
            self._queue_inventory()

    def _manifest(self, data: bytes) -> None:
        self.rows.ring = KeyRing.open(data, root=w.ROOT.public, trusted=self.rows.ring)
        self._look_at_revocation()

    # --- jobs

    def start_next(self) -> None:
        """Start or resume one job that may run: committed before any effect."""
        if not self.may_run():
            return
        self._look_at_revocation()
        for job in self._unfinished():
            if job.digest in self.running:
                continue
            if job.state is State.CANCELLING:
                self._end(job, JobEvent.STOPPED)
                return
            if job.state is State.RUNNING:
                step = resume(attempt=job.attempt, checkpoint_attempt=job.checkpoint)
                if step.event is JobEvent.FAIL:
                    job.code = step.code
                    self._end(job, step.event)
                    return
            event = JobEvent.RESUME if job.state is State.RUNNING else JobEvent.START
            job.state = advance(job.state, event)
            job.attempt += 1
            self.running.add(job.digest)
            self._note_run(job)
            return

    def may_run(self) -> bool:
        """Whether anything may be started."""
        behind = self.rows.manifest_wanted > self.rows.ring.manifest.serial
        return self.proven and not self.rows.state.locked and not behind

    def effect(self) -> None:
        """Let every running job do its (repeatable) work on the target."""
        for digest in sorted(self.running):
            job = self.rows.jobs[digest]
            self.effects.ran[job.command.id] = self.effects.ran.get(job.command.id, 0) + 1
            self.effects.done.add(job.command.id)

    def checkpoint(self) -> None:
        """Store that the running jobs got somewhere."""
        for digest in self.running:
            self.rows.jobs[digest].checkpoint = self.rows.jobs[digest].attempt

    def finish(self) -> None:
        """End every running job whose work is done."""
        for digest in sorted(self.running):
            job = self.rows.jobs[digest]
            if job.state is State.CANCELLING:
                self._end(job, JobEvent.STOPPED)
            elif job.command.id in self.effects.done:
                self._end(job, JobEvent.SUCCEED)

    def _note_run(self, job: Job) -> None:
        if job.command.id in self.effects.final_here:
            self.effects.broken.append("a final command ran again")
        if job.digest in self.may_not_run:
            self.effects.broken.append("a command ran whose result the signer had verified")

    def _look_at_revocation(self) -> None:
        revoked = {key_id(k.pub): k.revoked for k in self.rows.ring.manifest.keys if k.revoked}
        for job in self._unfinished():
            revocation = revoked.get(KeyId(job.kid))
            step = on_revoked(job.state, running=revocation.running) if revocation else None
            if step is not None:
                job.code = step.code
                self._end(job, step.event)

    def _end(self, job: Job, event: JobEvent) -> None:
        job.state = advance(job.state, event)
        if job.state not in FINAL:
            return
        self.running.discard(job.digest)
        self.effects.final_here.add(job.command.id)
        command = job.command
        self._number(
            Result(
                v=1,
                tenant=w.TENANT,
                appliance=w.APPLIANCE,
                journal=self.rows.state.journal,
                n=1,
                id=command.id,
                digest=job.digest,
                epoch=command.epoch,
                seq=command.seq,
                op=command.op,
                status=job.state.value,
                code=job.code or None,
                attempt=job.attempt,
                ended=self.clock.best(boot_s=self.boot_s),
                outputs=(Output(name="found", type="text", value={"as": job.state.value}),),
            )
        )

    def _number(self, result: Result) -> None:
        self.rows.state, n = number_result(self.rows.state)
        numbered = w.changed(result, {"n": n, "journal": self.rows.state.journal})
        self.rows.results.append(numbered)

    def _unfinished(self) -> list[Job]:
        return [job for job in self.rows.jobs.values() if job.state not in FINAL]

    # --- statements

    def _queue_ack(self) -> None:
        head = self.rows.state.head
        self.effects.acked = max(self.effects.acked, (head.epoch, head.have))
        self.outbox.append((Kind.ACK, Ack(epoch=head.epoch, have=head.have, head=head.hash)))

    def _queue_nack(self, verdict: Reject) -> None:
        head = self.rows.state.head
        nack = Nack(epoch=head.epoch, have=head.have, digest=verdict.digest, code=verdict.code)
        self.outbox.append((Kind.NACK, nack))

    def _queue_inventory(self) -> None:
        self.outbox.append((Kind.INVENTORY, inventory_of(self.rows)))

    # --- accidents

    def crash(self) -> None:
        """Lose what is not durable."""
        self._forget()

    def save(self) -> None:
        """Make a backup of the journal."""
        self.backup = copy.deepcopy(self.rows)

    def restore(self) -> None:
        """Come back with the backup; what was final since then is no longer known here."""
        self.rows = copy.deepcopy(self.backup)
        finals = {job.command.id for job in self.rows.jobs.values() if job.state in FINAL}
        self.effects.final_here &= finals
        self._forget()
