"""The attached signers, by the tenants that they speak for, and the calls that wait for their answers.

Knows frames, not sockets: `relay.control` moves the bytes. The newest attachment of a scope (one tenant, or `*`) wins.
A signer that does not read is let go: what it misses it gets on its next attachment, because the store has it.
While a signer is brought up to date, nothing that an appliance states overtakes what the store has of it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from protocol.control import Call, Quarantined, Reply, Statement, TimeWanted
from protocol.frames import Frame, frame_bytes
from relay.errors import NoSigner, SignerAway, SignerSlow
from relay.mailbox import Mailbox
from relay.store.base import EVERYWHERE

OUTBOX_ITEMS = 20_000
OUTBOX_BYTES = 64 * 1024 * 1024

Place: TypeAlias = tuple[str, str]
"""(tenant, appliance)"""


@dataclass(slots=True, eq=False)
class Attachment:
    """One signer's connection. `close` ends it; calls that wait then fail."""

    scope: str
    actor: str
    close: Callable[[int, str], None]
    outbox: Mailbox = field(default_factory=lambda: Mailbox(OUTBOX_ITEMS, OUTBOX_BYTES))
    _calls: dict[int, asyncio.Future[Reply]] = field(default_factory=dict)
    _last_call: int = 0
    _held: dict[Place, list[Statement]] = field(default_factory=dict)
    _held_bytes: int = 0

    def covers(self, tenant: str) -> bool:
        """Whether this signer may speak for a tenant."""
        return self.scope in (EVERYWHERE, tenant)

    def send(self, frame: Frame) -> None:
        """Queue a frame; a signer that lets 64 MiB pile up is disconnected."""
        if not self.outbox.offer(frame_bytes(frame)):
            self.close(1013, "relay.signer-slow")

    def hold(self, places: Iterable[Place]) -> None:
        """Keep back what these appliances state until `release`.

        A result or an ack that came before the hello behind it would look like a restored journal
        (`protocol.standing`).
        """
        self._held = {place: [] for place in places}

    def release(self, place: Place, hello: bytes) -> None:
        """Send what an appliance stated meanwhile; nothing up to `hello`, which was sent: the store had that too."""
        held = self._held.pop(place, [])
        self._held_bytes -= sum(map(_size, held))
        envelopes = [statement.env for statement in held]
        first = envelopes.index(hello) + 1 if hello in envelopes else 0
        for statement in held[first:]:
            self.send(statement)

    def tell(self, frame: Statement | TimeWanted | Quarantined) -> None:
        """Send what an appliance wants or states, in its turn."""
        held = self._held.get((frame.tenant, frame.appliance))
        if held is None or not isinstance(frame, Statement):
            self.send(frame)
            return
        held.append(frame)
        self._held_bytes += _size(frame)
        if self._held_bytes > OUTBOX_BYTES:
            self.close(1013, "relay.signer-slow")

    async def call(self, request: Call, *, seconds: float) -> Reply:
        """Pass a request on and wait for its answer.

        Raises:
            SignerSlow: No answer in time, or the connection ended; the signer may have done the work.
        """
        self._last_call += 1
        number = self._last_call
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self.send(
                Call(
                    call=number,
                    method=request.method,
                    path=request.path,
                    headers=request.headers,
                    body=request.body,
                )
            )
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError as err:
            raise SignerSlow(f"the signer did not answer within {seconds:g} s") from err
        finally:
            del self._calls[number]

    def reply(self, reply: Reply) -> None:
        """Hand an answer to whoever waits for it; a late one is dropped."""
        answer = self._calls.get(reply.call)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def end(self) -> None:
        """Fail what waits."""
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(SignerSlow("the signer's connection ended before it answered"))


@dataclass(slots=True)
class Signers:
    """All attachments. `expected`: the configuration has a key for a signer."""

    expected: bool
    _by_scope: dict[str, Attachment] = field(default_factory=dict)

    def add(self, attachment: Attachment) -> Attachment | None:
        """Register; return the older attachment of the same scope, which must go."""
        old = self._by_scope.get(attachment.scope)
        self._by_scope[attachment.scope] = attachment
        return old

    def remove(self, attachment: Attachment) -> None:
        """Forget, unless a newer one has taken the place."""
        if self._by_scope.get(attachment.scope) is attachment:
            del self._by_scope[attachment.scope]

    def __iter__(self) -> Iterator[Attachment]:
        return iter(tuple(self._by_scope.values()))

    def of(self, tenant: str) -> Attachment | None:
        """Return who speaks for a tenant now: its own signer before everybody's."""
        return self._by_scope.get(tenant) or self._by_scope.get(EVERYWHERE)

    def any(self) -> Attachment | None:
        """Return the one signer that is attached, if there is exactly one: for requests that name no tenant."""
        attached = list(self._by_scope.values())
        return attached[0] if len(attached) == 1 else self._by_scope.get(EVERYWHERE)

    def need(self, attachment: Attachment | None) -> Attachment:
        """Return the attachment, or say why there is none.

        Raises:
            NoSigner: This relay was set up without one.
            SignerAway: It is not connected.
        """
        if attachment is not None:
            return attachment
        if self.expected:
            raise SignerAway("the signer of this tenant is not connected at the moment")
        raise NoSigner("this relay has no signer: it takes finished envelopes at /v1/commands")

    def tell(self, tenant: str, frame: Statement | TimeWanted | Quarantined) -> None:
        """Send a frame to whoever speaks for a tenant, if anybody does."""
        attachment = self.of(tenant)
        if attachment is not None:
            attachment.tell(frame)


def _size(statement: Statement) -> int:
    return len(statement.env) + len(statement.report)
