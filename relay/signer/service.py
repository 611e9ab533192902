"""The signer at work: requests and statements go into the database, what they cause goes to the relay and the log.

The one place where a refused transaction becomes an answer. Knows neither socket nor websocket: both call it.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from protocol.errors import ProtocolError
from relay.errors import RelayError
from relay.signer.authority import Authority, Effects
from relay.signer.database import Database
from relay.signer.errors import SignerError, Unavailable
from relay.signer.handler import Answered, handle, refusal
from relay.signer.http import Request, Response
from relay.signer.statements import sign_receipt

log = structlog.get_logger(__name__)

RECEIPT_DELAY_S = 1.0
"""Results of one moment share a receipt; PROTOCOL 5 allows 60 s."""


@dataclass(slots=True)
class Service:
    """Database and authority, joined.

    Attributes:
        due: Appliances that are to get a receipt: True to sign it again although they were told.
    """

    database: Database
    authority: Authority
    due: dict[str, bool] = field(default_factory=dict)
    _due_set: asyncio.Event = field(default_factory=asyncio.Event)
    _listener: Callable[[Effects], None] | None = None

    def subscribe(self, listener: Callable[[Effects], None]) -> None:
        """Let the relay's session hear what is to be pushed."""
        self._listener = listener
        self._due_set.set()

    def unsubscribe(self) -> None:
        """The session ended; what it did not push, the next one finds in the database."""
        self._listener = None

    def submit(self, request: Request) -> "asyncio.Future[Answered]":
        """Queue a request for the database; `outcome` makes an answer of it. Raises Unavailable."""
        return self.database.submit(lambda conn: handle(conn, self.authority, request))

    async def outcome(self, work: "asyncio.Future[Answered]") -> Response:
        """Wait for a request's transaction and return the answer; spreads what it caused."""
        try:
            response, effects = await work
        except (RelayError, ProtocolError) as err:
            log.info("request refused", code=err.code, error=str(err))
            return refusal(err)
        except sqlite3.Error:
            log.exception("database failed")
            return refusal(Unavailable("the signer's database failed; nothing was done"))
        except Exception:  # a defect must not end the channel
            log.exception("request failed")
            return refusal(SignerError("the signer has a defect; its log says more"))
        self.spread(effects)
        return response

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        try:
            work = self.submit(request)
        except Unavailable as err:
            return refusal(err)
        return await self.outcome(work)

    def spread(self, effects: Effects) -> None:
        """Log what happened and hand on what is to be pushed."""
        for event, fields in effects.notes:
            log.info(event, **fields)
        if effects.receipts:
            self._mark(effects.receipts, again=False)
        if self._listener is not None:
            self._listener(effects)

    def receipts_again(self, names: Iterable[str]) -> None:
        """Sign all receipts anew: a restored relay may have lost them."""
        self._mark(names, again=True)

    async def run_receipts(self) -> None:
        """Sign receipts a moment after results came; ends by cancellation only."""
        while True:
            await self._due_set.wait()
            await asyncio.sleep(RECEIPT_DELAY_S)
            self._due_set.clear()
            if self._listener is None:  # they stay due
                continue
            due, self.due = self.due, {}
            for name, again in due.items():
                await self._sign_receipt(name, again=again)

    async def _sign_receipt(self, name: str, *, again: bool) -> None:
        try:
            receipt = await self.database.run(
                lambda conn: sign_receipt(conn, self.authority, name, again=again)
            )
        except (RelayError, ProtocolError) as err:
            log.warning("receipt not signed", appliance=name, code=err.code)
            return
        if receipt is not None:
            self.spread(Effects(outgoing=[receipt]))

    def _mark(self, names: Iterable[str], *, again: bool) -> None:
        for name in names:
            self.due[name] = again or self.due.get(name, False)
        self._due_set.set()
