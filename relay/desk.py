"""What one agent's frames mean for the relay: presence, stored statements, commands to send. Knows no socket.

The session (protocol.relay_session) verified everything before it gets here; `relay.channel` moves the bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from protocol.acceptor import POISON
from protocol.codec import decode
from protocol.control import Quarantined, Statement, TimeWanted
from protocol.errors import FrameError
from protocol.frames import (
    CLOSE_SUPERSEDED,
    CommandFrame,
    EpochFrame,
    Fetch,
    ManifestFrame,
    ReceiptFrame,
    RecordFrame,
    Stored,
    Welcome,
    frame_bytes,
)
from protocol.jobs import EventBody
from protocol.messages import (
    MAX_STATEMENT,
    Ack,
    Event,
    Hello,
    Inventory,
    Nack,
    Receipt,
    Result,
    ResultsThrough,
)
from protocol.relay_session import (
    Claimed,
    Fetched,
    RelayEvent,
    RelaySession,
    Stated,
    TimeAsked,
    Verified,
)
from protocol.session_events import Close
from protocol.signed import parse_envelope
from relay.agents import Agents, Link
from relay.hub import Hub
from relay.intake import Intake
from relay.metrics import Metrics
from relay.signers import Signers
from relay.store.base import EVERYWHERE, Kept, Store, Update
from relay.store.base import Command as Queued
from relay.store.base import Result as KeptResult

RESULT_WINDOW = 64
"""Results that an agent may have on their way: 8 MiB with their reports."""
SEND_AHEAD = 8
"""Messages ahead of the socket: 2 MiB of commands."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Shared:
    """What all connections use."""

    store: Store
    intake: Intake
    agents: Agents
    signers: Signers
    hub: Hub
    metrics: Metrics
    now_ms: Callable[[], int]


@dataclass(slots=True, eq=False)
class Desk:
    """One connection's side of the relay. All methods are called by one task.

    Attributes:
        session: The connection's state machine; what it wants to send is in `session.outgoing`.
        end: Ends the connection with a close code and a reason.
        due: Asks for another `pump`.
        link: The connection as others see it, once it is verified.
    """

    shared: Shared
    session: RelaySession
    end: Callable[[int, str], None]
    due: Callable[[], None]
    link: Link | None = None
    _results: list[KeptResult] = field(default_factory=list)
    _forward: list[Statement] = field(default_factory=list)

    async def act(self, event: RelayEvent) -> None:
        """Do what one event of the session asks for."""
        match event:
            case Claimed():
                await self._identify(event)
            case Verified():
                await self._welcome(event)
            case Stated():
                await self._stated(event)
            case TimeAsked():
                tenant, appliance = self.session.tenant, self.session.appliance
                wanted = TimeWanted(tenant=tenant, appliance=appliance, nonce=event.nonce)
                self.shared.signers.tell(tenant, wanted)
            case Close():
                self.end(event.code, event.reason)
            case Fetched():
                if self.link is not None:
                    self.link.look_back()  # the cursor moved; the pump follows

    async def _identify(self, claim: Claimed) -> None:
        record = await self.shared.intake.record(claim.tenant, claim.appliance)
        known = record is not None and record.revoked is None
        for event in self.session.identify(record.device_key if record and known else None):
            await self.act(event)

    async def _welcome(self, event: Verified) -> None:
        hello, shared = event.hello, self.shared
        now = shared.now_ms()
        opened = await shared.store.open_link(
            hello.tenant,
            hello.appliance,
            epoch=hello.epoch,
            have=hello.have,
            journal=hello.journal,
            confirmed=hello.confirmed,
            now=now,
        )
        self.link = Link(hello.tenant, hello.appliance, opened.generation, self.due, self.end)
        if not shared.agents.add(self.link):
            self.end(CLOSE_SUPERSEDED, "relay.superseded")
            return
        item = Kept("hello", 0, event.env, now)
        await shared.store.keep(hello.tenant, hello.appliance, item, actor="", now=now)
        ring = await shared.intake.ring(hello.tenant)
        self.session.welcome(
            Welcome(
                generation=opened.generation,
                results=ResultsThrough(journal=hello.journal, n=opened.through),
                manifest_serial=0 if ring is None else ring.manifest.serial,
                signer_online=shared.signers.of(hello.tenant) is not None,
            ),
            window=RESULT_WINDOW,
        )
        await self._bring_up_to_date(hello)
        self._tell("hello", event.env)
        shared.hub.poke(hello.tenant)
        log.info(
            "agent online",
            tenant=hello.tenant,
            appliance=hello.appliance,
            generation=opened.generation,
        )

    async def _bring_up_to_date(self, hello: Hello) -> None:
        """Send the signed things that came while the appliance was away."""
        store, place = self.shared.store, (hello.tenant, hello.appliance)
        manifest = await store.kept(hello.tenant, EVERYWHERE, "manifest")
        if manifest is not None and manifest.serial > hello.manifest_serial:
            self.session.send(ManifestFrame(env=manifest.env))
        record = await store.kept(*place, "record")
        if record is not None:
            self.session.send(RecordFrame(env=record.env))
        order = await store.kept(*place, "epoch")
        if order is not None and order.serial > hello.epoch:
            self.session.send(EpochFrame(env=order.env))
        receipt = await store.kept(*place, "receipt")
        if receipt is not None and _helps(receipt.env, hello):
            self.session.send(ReceiptFrame(env=receipt.env))

    # --- statements ---

    async def _stated(self, event: Stated) -> None:
        statement, shared, session = event.statement, self.shared, self.session
        kind = type(statement).__name__.lower()
        shared.metrics.statements.labels(kind=kind).inc()
        place, now = (session.tenant, session.appliance), shared.now_ms()
        if not isinstance(statement, Result):
            await self.flush()
        match statement:
            case Result():
                self._results.append(_kept(statement, event))
                self._forward.append(self._statement("result", event.env, event.report))
            case Ack():
                self._tell("ack", event.env)  # the device's own word: it needs nothing of ours
                await shared.store.ack(
                    *place, epoch=statement.epoch, have=statement.have, env=event.env, now=now
                )
                shared.hub.poke(session.tenant)
            case Nack():
                self._tell("nack", event.env)
                await self._nacked(statement, Kept("nack", statement.epoch, event.env, now))
            case Inventory():
                item = Kept("inventory", statement.epoch, event.env, now)
                await shared.store.keep(*place, item, actor="", now=now)
                self._tell("inventory", event.env)
            case Event():
                await self._progress(statement, now)

    async def flush(self) -> None:
        """Store the results that came together, then say so to the agent and hand them to the signer."""
        if not self._results:
            return
        batch, self._results = tuple(self._results), []
        forward, self._forward = self._forward, []
        shared, session = self.shared, self.session
        kept = await shared.store.add_results(
            session.tenant, session.appliance, batch, now=shared.now_ms()
        )
        journal = batch[-1].journal
        session.send(Stored(results=ResultsThrough(journal=journal, n=kept.through)))
        for statement in forward:
            shared.signers.tell(session.tenant, statement)
        shared.hub.poke(session.tenant)
        for clash in kept.clashes:
            log.error("appliance contradicts itself", appliance=session.appliance, n=clash.n)

    async def _nacked(self, nack: Nack, item: Kept) -> None:
        shared, session = self.shared, self.session
        log.warning("envelope refused", appliance=session.appliance, code=nack.code)
        if nack.code not in POISON:
            return
        place, now = (session.tenant, session.appliance), shared.now_ms()
        command = await shared.store.quarantine(
            *place, nack.digest, code=nack.code, nack=item, now=now
        )
        if command is None:
            await self._damaged(nack, now)
            return
        shared.hub.poke(session.tenant)
        shared.signers.tell(
            session.tenant,
            Quarantined(
                tenant=session.tenant,
                appliance=session.appliance,
                epoch=command.epoch,
                seq=command.seq,
                digest=command.digest,
            ),
        )
        await self._offer_again(command)

    async def _damaged(self, nack: Nack, now: int) -> None:
        """Look whether the appliance refused bytes that only this relay has: the signer's own are sound."""
        session = self.session
        command = await self.shared.store.drop_damaged(
            session.tenant,
            session.appliance,
            epoch=nack.epoch,
            seq=nack.have + 1,
            name=nack.digest,
            now=now,
        )
        if command is not None:
            log.error("stored envelope was damaged", appliance=session.appliance, seq=command.seq)
            await self._offer_again(command)

    async def _offer_again(self, command: Queued) -> None:
        # Its number is free: what is stored for it next has to go out, so the cursor returns there as if the agent,
        # which still waits for this number, had asked for it.
        for event in self.session.feed(frame_bytes(Fetch(epoch=command.epoch, seq=command.seq))):
            await self.act(event)

    async def _progress(self, event: Event, now: int) -> None:
        session = self.session
        try:
            body = decode(event.body, EventBody, limit=len(event.body))
        except FrameError as err:
            log.warning("event not understood", appliance=session.appliance, code=err.code)
            return
        update = Update(event.journal, event.id, event.n, body)
        if await self.shared.store.update(session.tenant, session.appliance, update, now=now):
            self.shared.hub.poke(session.tenant)

    def _tell(self, kind: str, env: bytes) -> None:
        self.shared.signers.tell(self.session.tenant, self._statement(kind, env))

    def _statement(self, kind: str, env: bytes, report: bytes = b"") -> Statement:
        return Statement(
            kind=kind,  # type: ignore[arg-type]  # one of the five that _stated and _welcome name
            tenant=self.session.tenant,
            appliance=self.session.appliance,
            env=env,
            report=report,
        )

    # --- send ---

    async def pump(self) -> None:
        """Queue offers and wanted commands, never more than SEND_AHEAD messages ahead of the socket."""
        session, link = self.session, self.link
        if link is None:
            return
        while link.offers:
            frame = link.offers.pop(0)
            session.send(frame)  # type: ignore[arg-type]  # relay.intake and go_away offer what agents take
        while len(session.outgoing) < SEND_AHEAD and (wanted := session.next_wanted()):
            fresh = link.fresh.pop(wanted, None)
            if fresh is not None:
                self._send((fresh,))
            elif link.behind:
                # Before the read: what is stored from now on is in `fresh`, or sets `behind` again.
                link.behind = False
                rows = await self._stored_commands(*wanted)
                sent = self._send(rows)
                link.behind |= sent < len(rows) or len(rows) == SEND_AHEAD
            else:
                break

    def _send(self, rows: tuple[Queued, ...]) -> int:
        """Send these as long as they are wanted; return how many were."""
        for sent, row in enumerate(rows):
            if self.session.next_wanted() != (row.epoch, row.seq):
                return sent
            self.session.send_command(CommandFrame(epoch=row.epoch, seq=row.seq, env=row.env))
            self.shared.metrics.commands.inc()
        return len(rows)

    async def _stored_commands(self, epoch: int, seq: int) -> tuple[Queued, ...]:
        tenant, appliance = self.session.tenant, self.session.appliance
        return await self.shared.store.commands(
            tenant, appliance, epoch=epoch, seq=seq, limit=SEND_AHEAD
        )

    async def leave(self) -> None:
        """Give the appliance's presence back; a newer connection's is not touched."""
        link, shared = self.link, self.shared
        if link is None:
            return
        self.link = None
        shared.agents.remove(link)
        await shared.store.close_link(
            link.tenant, link.appliance, generation=link.generation, now=shared.now_ms()
        )
        shared.hub.poke(link.tenant)


def _kept(result: Result, event: Stated) -> KeptResult:
    return KeptResult(
        journal=result.journal,
        n=result.n,
        id=result.id,
        digest=result.digest,
        epoch=result.epoch,
        seq=result.seq,
        op=result.op,
        status=result.status,
        code=result.code,
        workflow=result.workflow,
        env=event.env,
        report=event.report,
    )


def _helps(receipt_env: bytes, hello: Hello) -> bool:
    """Whether a kept receipt confirms more than the agent knows to be confirmed."""
    envelope = parse_envelope(receipt_env, limit=MAX_STATEMENT)
    receipt = decode(envelope.p, Receipt, limit=MAX_STATEMENT)
    return receipt.journal == hello.journal and receipt.n > hello.confirmed
