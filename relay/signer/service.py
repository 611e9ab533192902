"""The signer's work as awaitable calls: one transaction each, then what it wants to happen. No sockets.

Both doors (the local socket, the relay's passed-through calls) and the control channel lead here.
"""

import asyncio
import sqlite3
from dataclasses import dataclass
from typing import Protocol

import structlog

from protocol.control import Statement, TimeWanted
from protocol.errors import ProtocolError
from relay.errors import RelayError
from relay.signer.authority import Authority, Effects, Outgoing
from relay.signer.database import Database
from relay.signer.errors import Unavailable
from relay.signer.handler import handle, refusal
from relay.signer.http import Request, Response
from relay.signer.statements import answer_time, hear, sign_receipt

log = structlog.get_logger(__name__)


class Courier(Protocol):
    """Where effects go: the control channel while it is attached."""

    async def deliver(self, effects: Effects) -> None:
        """Push what is durable now; what cannot be pushed follows at the next attachment."""
        ...


@dataclass(slots=True)
class Service:
    """The signer.

    Attributes:
        db: Its database.
        authority: What it signs with.
        courier: The attached control channel, None while there is none.
    """

    db: Database
    authority: Authority
    requests: asyncio.Semaphore
    courier: Courier | None = None

    async def answer(self, request: Request) -> Response:
        """Answer one request of a caller, an appliance or the administrator; never raises for what they sent."""
        if self.requests.locked():
            return refusal(Unavailable("the signer answers too many requests already"))
        async with self.requests:
            try:
                response, effects = await self.db.run(
                    lambda conn: handle(conn, self.authority, request)
                )
            except (RelayError, ProtocolError) as err:
                log.info("request refused", path=request.path, code=err.code, via=request.via)
                return refusal(err)
            except sqlite3.Error as err:
                log.error("the database failed", error=str(err), path=request.path)
                return refusal(Unavailable("the signer's database failed; nothing was signed"))
            await self.deliver(effects)
            return response

    async def hear(self, statement: Statement) -> None:
        """Take one statement of an appliance; what is not believed is logged and changes nothing."""
        try:
            effects = await self.db.run(lambda conn: hear(conn, self.authority, statement))
        except (RelayError, ProtocolError) as err:
            log.warning(
                "statement not believed",
                appliance=statement.appliance,
                kind=statement.kind,
                code=err.code,
                why=str(err),
            )
            return
        await self.deliver(effects)

    async def time(self, wanted: TimeWanted) -> Outgoing | None:
        """Sign the time for an appliance, None if it gets none (and why is logged)."""
        try:
            return await self.db.run(
                lambda conn: answer_time(
                    conn,
                    self.authority,
                    tenant=wanted.tenant,
                    appliance=wanted.appliance,
                    nonce=wanted.nonce,
                )
            )
        except (RelayError, ProtocolError) as err:
            log.warning("time not signed", appliance=wanted.appliance, code=err.code)
            return None

    async def receipt(self, appliance: str, *, again: bool = False) -> Outgoing | None:
        """Sign which results are durable here, None if there is nothing to tell."""
        try:
            return await self.db.run(
                lambda conn: sign_receipt(conn, self.authority, appliance, again=again)
            )
        except (RelayError, ProtocolError) as err:
            log.warning("receipt not signed", appliance=appliance, code=err.code)
            return None

    async def deliver(self, effects: Effects) -> None:
        """Log the notes of a durable transaction and push what it wants pushed."""
        for event, fields in effects.notes:
            log.info(event, **fields)
        if self.courier is not None:
            await self.courier.deliver(effects)
