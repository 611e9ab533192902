"""One attachment to the relay: the control channel of protocol.control over one websocket, from attach to its end.

Three things happen at once: frames of the relay are taken in their order, the outbox is emptied appliance by appliance,
and receipts are signed a moment after results came in. Nothing here is remembered: a new attachment starts from what
both databases say.
"""

import asyncio
from dataclasses import dataclass, field

import aiohttp
import structlog

from protocol.control import (
    Attach,
    Attached,
    Call,
    Push,
    Pushed,
    Quarantined,
    Reply,
    Statement,
    TimeWanted,
    ToSigner,
    parse_to_signer,
)
from protocol.errors import FrameError
from protocol.frames import Frame, frame_bytes
from relay.signer import outbox
from relay.signer.authority import Effects, Outgoing
from relay.signer.http import Request
from relay.signer.service import Service

RECEIPT_DELAY_S = 1.0
"""Results come in rows; one receipt tells of all."""
COMPARE_EVERY_S = 60.0
CONFIRM_S = 30.0
"""The relay stores a push in milliseconds; longer means that it is stuck, and the next attachment starts anew."""
RETRY_S = 5.0
_WAIT = frozenset({"relay.backlog"})

log = structlog.get_logger(__name__)


class LinkBroken(Exception):
    """The relay answers no more; attach again."""


@dataclass(slots=True)
class Link:
    """One attached websocket.

    Attributes:
        service: The signer.
        socket: Open, nothing sent yet.
        token: Our API key at the relay.
    """

    service: Service
    socket: aiohttp.ClientWebSocketResponse
    token: str = field(repr=False)
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _dirty: set[str] = field(default_factory=set)
    _receipts: set[str] = field(default_factory=set)
    _waiting: dict[int, asyncio.Future[Pushed]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _pushes: int = 0
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _due: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Attach, bring both sides to the same state, then serve until the connection ends.

        Raises:
            LinkBroken, FrameError, aiohttp.ClientError.
        """
        mine = await self.service.db.run(outbox.heads)
        await self._send(Attach(token=self.token, appliances=mine))
        attached = await self._next()
        if not isinstance(attached, Attached):
            msg = (
                f"the relay answered {type(attached).__name__ if attached else 'nothing'} to attach"
            )
            raise LinkBroken(msg)
        self._places = {
            head.appliance: (head.epoch, head.seq) for head in attached.appliances if head.epoch
        }
        self.service.courier = self
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._push_orders()),
                    group.create_task(self._sign_receipts()),
                    group.create_task(self._compare()),
                ]
                await self._begin([head.appliance for head in mine])
                await self._serve(group)
                for helper in helpers:
                    helper.cancel()
        finally:
            self.service.courier = None

    async def deliver(self, effects: Effects) -> None:
        """See `service.Courier`. What has to come before an answer is sent here, in order; the rest by the tasks."""
        if effects.manifest:
            self._told.clear()
            for tenant in await self.service.db.run(outbox.tenants):
                await self._tell_manifest(tenant)
        for appliance in sorted(effects.replay):
            await self._replay(appliance)
        for outgoing in effects.outgoing:
            await self._push(outgoing)
        for appliance, first in effects.refill.items():
            epoch, seen = await self.service.db.run(
                lambda conn, name=appliance: outbox.unacknowledged(conn, name)  # type: ignore[misc]
            )
            self._places[appliance] = (epoch, min(first - 1, seen))
        self._dirty |= effects.poke | effects.replay | set(effects.refill)
        self._receipts |= effects.receipts
        if self._dirty:
            self._work.set()
        if self._receipts:
            self._due.set()

    # --- frames of the relay ------------------------------------------------------------------------------

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        while (frame := await self._next()) is not None:
            match frame:
                case Statement():
                    await self.service.hear(frame)
                case TimeWanted():
                    outgoing = await self.service.time(frame)
                    if outgoing is not None:
                        await self._push(outgoing)
                case Pushed():
                    self._confirmed(frame)
                case Call():
                    group.create_task(self._answer(frame))
                case Quarantined():
                    log.warning(
                        "relay quarantined an envelope",
                        appliance=frame.appliance,
                        epoch=frame.epoch,
                        seq=frame.seq,
                        digest=frame.digest,
                    )
                case Attached():
                    raise LinkBroken("the relay sent `attached` twice")

    async def _next(self) -> ToSigner | None:
        message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return parse_to_signer(message.data)
        if message.type is aiohttp.WSMsgType.TEXT:
            raise FrameError("a text message on the control channel")
        log.info("control channel closed", code=self.socket.close_code, reason=message.extra)
        return None

    async def _answer(self, call: Call) -> None:
        headers = {name.lower(): value for name, value in call.headers.items()}
        request = Request(call.method, call.path, headers, call.body, "relay")
        response = await self.service.answer(request)
        await self._send(
            Reply(
                call=call.call,
                status=response.status,
                headers=dict(response.headers),
                body=response.body,
            )
        )

    # --- pushes -------------------------------------------------------------------------------------------

    async def _begin(self, names: list[str]) -> None:
        for name in names:
            await self._replay(name)
            receipt = await self.service.receipt(name, again=True)
            if receipt is not None:
                await self._push(receipt)
        self._dirty |= set(names)
        self._work.set()

    async def _replay(self, appliance: str) -> None:
        for outgoing in await self.service.db.run(
            lambda conn: outbox.standing_orders(conn, appliance)
        ):
            await self._tell_manifest(outgoing.tenant)
            await self._push(outgoing)

    async def _tell_manifest(self, tenant: str) -> None:
        if tenant not in self._told:
            self._told.add(tenant)
            await self._push(Outgoing("manifest", tenant, "*", self.service.authority.ring.raw))

    async def _push_orders(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            retry = False
            while self._dirty:
                retry |= not await self._push_all(self._dirty.pop())
            if retry:
                await asyncio.sleep(RETRY_S)

    async def _push_all(self, appliance: str) -> bool:
        """Push every envelope that the relay lacks; False if it asked to come again later."""
        while True:
            place = self._places.get(appliance, (0, 0))
            batch = await self.service.db.run(
                lambda conn, at=place: outbox.next_batch(conn, appliance, at)  # type: ignore[misc]
            )
            if not batch.envelopes:
                return True
            answers = [
                await self._push(Outgoing("command", batch.tenant, appliance, env))
                for env in batch.envelopes
            ]
            for number, answer in enumerate(answers):
                code = await self._outcome(answer)
                if code:
                    return self._refused(appliance, batch.first + number, code)
                self._places[appliance] = (batch.epoch, batch.first + number)

    def _refused(self, appliance: str, seq: int, code: str) -> bool:
        if code in _WAIT:
            self._dirty.add(appliance)
            self._work.set()
            return False
        # Anything else is mended by what the appliance states next (hello, nack), not by pushing again.
        log.error("relay refused an envelope", appliance=appliance, seq=seq, code=code)
        return True

    async def _push(self, outgoing: Outgoing) -> "asyncio.Future[Pushed]":
        self._pushes += 1
        answer: asyncio.Future[Pushed] = asyncio.get_running_loop().create_future()
        self._waiting[self._pushes] = answer
        await self._send(
            Push(
                push=self._pushes,
                kind=outgoing.kind,  # type: ignore[arg-type]  # one of Push's kinds
                tenant=outgoing.tenant,
                appliance=outgoing.appliance,
                env=outgoing.env,
            )
        )
        return answer

    async def _outcome(self, answer: "asyncio.Future[Pushed]") -> str:
        try:
            async with asyncio.timeout(CONFIRM_S):
                return (await answer).code
        except TimeoutError as err:
            msg = f"the relay confirmed no push for {CONFIRM_S:.0f} s"
            raise LinkBroken(msg) from err

    def _confirmed(self, pushed: Pushed) -> None:
        answer = self._waiting.pop(pushed.push, None)
        if pushed.code:
            log.warning("push refused", push=pushed.push, code=pushed.code, why=pushed.detail)
        if answer is not None and not answer.done():
            answer.set_result(pushed)

    # --- receipts and comparing ---------------------------------------------------------------------------

    async def _sign_receipts(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await asyncio.sleep(RECEIPT_DELAY_S)
            names, self._receipts = self._receipts, set()
            for name in sorted(names):
                receipt = await self.service.receipt(name)
                if receipt is not None:
                    await self._push(receipt)

    async def _compare(self) -> None:
        """Push again what no appliance acknowledged: a relay that lost it takes it, any other just says so."""
        while True:
            await asyncio.sleep(COMPARE_EVERY_S)
            for head in await self.service.db.run(outbox.heads):
                self._places[head.appliance] = await self.service.db.run(
                    lambda conn, name=head.appliance: outbox.unacknowledged(conn, name)  # type: ignore[misc]
                )
                self._dirty.add(head.appliance)
            self._work.set()

    async def _send(self, frame: Frame) -> None:
        await self.socket.send_bytes(frame_bytes(frame))
