"""`GET /v1/control`: the signer's websocket. Pushes are stored and confirmed, statements go out untouched.

On every attachment both sides say what they hold; then the relay sends what lies above: the newest statements of each
appliance, hello first, and the results that the signer did not verify yet; what an appliance states meanwhile waits
behind them. So neither side's restored database loses anything.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from protocol.control import (
    MAX_CONTROL_FRAME,
    ApplianceHead,
    Attach,
    Attached,
    Push,
    Pushed,
    Reply,
    Statement,
    parse_from_signer,
)
from protocol.errors import FrameError, ProtocolError
from protocol.frames import (
    CLOSE_GOING_AWAY,
    CLOSE_PROTOCOL,
    CLOSE_REFUSED,
    CLOSE_SUPERSEDED,
    frame_bytes,
)
from protocol.messages import ResultsThrough
from relay.api.auth import Keys
from relay.errors import Forbidden, RelayError
from relay.intake import Intake
from relay.lobby import Lobby
from relay.mailbox import Mailbox
from relay.metrics import Metrics
from relay.signers import Attachment, Signers
from relay.store.base import Head, KeptKind, Store
from relay.wire import cut, vouch

HEARTBEAT_S = 20.0
ATTACH_S = 10.0
MAX_UNATTACHED = 16
OVERLOAD_S = 5.0
CLEANUP_S = 5.0
INBOX_ITEMS = 512
INBOX_BYTES = 16 * 1024 * 1024
PUSHES_AT_ONCE = 64
"""Commands stored together: they share a commit. Every other kind waits for those before it and goes alone."""
RESULTS_A_READ = 64
STATEMENTS: tuple[KeptKind, ...] = ("hello", "ack", "nack", "inventory")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Control:
    """The door for signers."""

    store: Store
    intake: Intake
    signers: Signers
    keys: Keys
    metrics: Metrics
    now_ms: Callable[[], int]
    _waiting: Lobby = field(default_factory=lambda: Lobby(MAX_UNATTACHED, 0))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Run one signer's connection to its end."""
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_CONTROL_FRAME, compress=False
        )
        # Whoever says nothing must not keep the signer out: it has its frame ready.
        stranger = self._waiting.enter(request.remote or "", lambda why: cut(request, why))
        try:
            await socket.prepare(request)
            attach = await _first_frame(socket)
        finally:
            self._waiting.leave(stranger)
        if attach is None:
            await socket.close(code=CLOSE_PROTOCOL, message=b"protocol.out-of-order")
            return socket
        try:
            caller = self.keys.control(attach.token)
        except RelayError as err:
            log.warning("signer refused", code=err.code, peer=request.remote)
            await socket.close(code=CLOSE_REFUSED, message=err.code.encode())
            return socket
        vouch(request)
        await SignerConnection(self, socket, caller.tenant, caller.id).run(attach)
        return socket

    def close(self) -> None:
        """End every attachment: the relay stops."""
        for attachment in self.signers:
            attachment.close(CLOSE_GOING_AWAY, "relay.going-away")


async def _first_frame(socket: web.WebSocketResponse) -> Attach | None:
    try:
        async with asyncio.timeout(ATTACH_S):
            message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            return None
        frame = parse_from_signer(message.data)
    except (TimeoutError, FrameError):
        return None
    return frame if isinstance(frame, Attach) else None


class SignerConnection:
    """One attached signer and its three tasks: receive, work, send."""

    def __init__(
        self, control: Control, socket: web.WebSocketResponse, scope: str, actor: str
    ) -> None:
        self._control = control
        self._socket = socket
        self._inbox = Mailbox(INBOX_ITEMS, INBOX_BYTES)
        self._ended: tuple[int, str] | None = None
        self.attachment = Attachment(scope, actor, self.end)

    async def run(self, attach: Attach) -> None:
        """Bring both sides to the same state, then move frames until one side ends it."""
        control = self._control
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send())
                worker = group.create_task(self._work(attach))
                await self._receive()
                self.end(WSCloseCode.OK, "closed by the signer")
                await worker
                sender.cancel()
        finally:
            control.signers.remove(self.attachment)
            self.attachment.end()
            control.metrics.signers.set(len(list(control.signers)))
            log.info("signer gone", scope=self.attachment.scope, reason=(self._ended or (0, ""))[1])

    def end(self, code: int, reason: str) -> None:
        """End the connection; the first reason counts."""
        if self._ended is None:
            self._ended = (code, reason)
        self._inbox.due.set()

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return
            if self._ended is None and not await self._inbox.put(message.data, seconds=OVERLOAD_S):
                self.end(WSCloseCode.TRY_AGAIN_LATER, "relay.overload")

    async def _send(self) -> None:
        outbox = self.attachment.outbox
        try:
            while True:
                await outbox.due.wait()
                outbox.due.clear()
                while outbox:
                    await self._socket.send_bytes(outbox.take())
        except ConnectionError:
            self.end(WSCloseCode.GOING_AWAY, "connection lost")

    async def _work(self, attach: Attach) -> None:
        try:
            await self._synchronise(attach)
            while self._ended is None:
                await self._inbox.due.wait()
                self._inbox.due.clear()
                while self._inbox and self._ended is None:
                    await self._take()
        except FrameError as err:
            self.end(CLOSE_PROTOCOL, err.code)
        except Exception as err:  # whatever failed ends this connection, not the relay
            log.exception("signer connection failed", scope=self.attachment.scope)
            self.end(WSCloseCode.TRY_AGAIN_LATER, getattr(err, "code", "relay.internal"))
        await self._close()

    async def _close(self) -> None:
        code, reason = self._ended or (WSCloseCode.OK, "")
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(CLEANUP_S):
                await self._socket.close(code=code, message=reason.encode())

    # --- what the signer sends ---

    async def _take(self) -> None:
        """Take what waits: commands in a row together, anything else alone and in its place."""
        pushes: list[Push] = []
        while self._inbox and len(pushes) < PUSHES_AT_ONCE:
            frame = parse_from_signer(self._inbox.take())
            if isinstance(frame, Push) and frame.kind == "command":
                pushes.append(frame)
                continue
            await self._store(pushes)
            pushes = []
            await self._take_other(frame)
        await self._store(pushes)

    async def _take_other(self, frame: Attach | Push | Reply) -> None:
        match frame:
            case Push():
                await self._push(frame)
            case Reply():
                self.attachment.reply(frame)
            case Attach():
                self.end(CLOSE_PROTOCOL, "protocol.out-of-order")

    async def _store(self, pushes: list[Push]) -> None:
        async with asyncio.TaskGroup() as group:
            for push in pushes:
                group.create_task(self._push(push))

    async def _push(self, push: Push) -> None:
        """Store one push and say how it went; nothing that is wrong with it ends the connection."""
        try:
            if not self.attachment.covers(push.tenant):
                raise Forbidden(f"this key may not speak for tenant {push.tenant}")
            await self._control.intake.push(push, actor=self.attachment.actor)
        except (RelayError, ProtocolError) as err:
            log.warning(
                "push refused",
                kind=push.kind,
                appliance=push.appliance,
                code=err.code,
                why=str(err),
            )
            self.attachment.send(Pushed(push=push.push, code=err.code, detail=str(err)[:4096]))
        else:
            self.attachment.send(Pushed(push=push.push))

    # --- what the signer is told ---

    async def _synchronise(self, attach: Attach) -> None:
        heads = await self._control.store.heads(self.attachment.scope)
        self.attachment.send(Attached(appliances=tuple(_wire_head(head) for head in heads)))
        self.attachment.hold((head.tenant, head.appliance) for head in heads)
        self._register()  # only now: the signer takes no frame before `attached`
        known = {(head.tenant, head.appliance): head.results for head in attach.appliances}
        for head in heads:
            if self._ended is not None:
                return
            hello, place = b"", (head.tenant, head.appliance)
            for kind in STATEMENTS:
                kept = await self._control.store.kept(*place, kind)
                if kept is not None:
                    hello = kept.env if kind == "hello" else hello
                    await self._tell(head, kind, kept.env)
            await self._tell_results(head, known.get(place))
            self.attachment.release(place, hello)

    def _register(self) -> None:
        control = self._control
        old = control.signers.add(self.attachment)
        if old is not None:
            old.close(CLOSE_SUPERSEDED, "relay.superseded")
        control.metrics.signers.set(len(list(control.signers)))
        log.info("signer attached", scope=self.attachment.scope, key=self.attachment.actor)

    async def _tell_results(self, head: Head, verified: ResultsThrough | None) -> None:
        store, place = self._control.store, (head.tenant, head.appliance)
        for journal in await store.journals(*place):
            after = verified.n if verified is not None and verified.journal == journal else 0
            while rows := await store.results(
                *place, journal=journal, after=after, limit=RESULTS_A_READ
            ):
                for row in rows:
                    await self._tell(head, "result", row.env, row.report)
                after = rows[-1].n

    async def _tell(self, head: Head, kind: str, env: bytes, report: bytes = b"") -> None:
        """Queue a statement and wait for room: this is a refill, not news."""
        frame = Statement(
            kind=kind,  # type: ignore[arg-type]  # one of STATEMENTS or "result"
            tenant=head.tenant,
            appliance=head.appliance,
            env=env,
            report=report,
        )
        if not await self.attachment.outbox.put(frame_bytes(frame), seconds=60):
            self.end(WSCloseCode.TRY_AGAIN_LATER, "relay.signer-slow")


def _wire_head(head: Head) -> ApplianceHead:
    results = ResultsThrough(journal=head.journal, n=head.n) if head.journal else None
    return ApplianceHead(
        tenant=head.tenant,
        appliance=head.appliance,
        epoch=head.epoch,
        seq=head.seq,
        results=results,
        connected=head.connected,
    )
