"""Session: keeps the agent connected to its relay, for ever. Judges nothing; one connection is `agent.connection`.

Full-jitter back-off, reset only by a connection that lasted; `going_away` is honoured; when a newer connection took
over (somebody runs this identity twice), it comes back slowly and says so.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from websockets.exceptions import ConnectionClosed, WebSocketException

from agent import dial
from agent.backoff import Backoff
from agent.config import AgentConfig, ConfigError
from agent.connection import Connection, SessionOver, Standing
from agent.log import clean_text
from agent.orders import Orders
from agent.statements import event_frame
from protocol.frames import CLOSE_REFUSED, CLOSE_SUPERSEDED
from protocol.ids import KeyId
from protocol.jobs import EventBody

SLOW_RETRY_S = 30.0
"""After `superseded` or `refused`: trying harder would only fight another agent or an administrator."""
CLOSE_S = 2.0
"""Patience for the other side's half of the closing handshake."""
CLOSE_GOING = 1001
"""RFC 6455 7.4.1: this endpoint is going away."""


_SLOW = {CLOSE_REFUSED, CLOSE_SUPERSEDED}
E = TypeVar("E", bound=Exception)


@dataclass(slots=True)
class Health:
    """How the channel is, for status and doctor.

    Attributes:
        state: offline, connecting, connected or proven.
        problem: Why it is not connected, or what is odd about it; "" if all is well.
        path: How the relay was last reached.
        attempts: Dials since the last good connection.
    """

    state: str = "offline"
    problem: str = ""
    path: dial.PathSeen | None = None
    attempts: int = 0


@dataclass(slots=True)
class Session:
    """The reconnect loop and what the rest of the agent may say while a connection lasts.

    Attributes:
        config: Where the relay is.
        orders: Judges and remembers.
        seal_kid: Id of the seal key to announce.
        random: Uniform in [0, 1).
        changed: Called when `health` or `caught_up` changed.
        caught_up: Set once a proven session of this process has shown its backlog.
    """

    config: AgentConfig
    orders: Orders
    seal_kid: KeyId
    random: Callable[[], float]
    changed: Callable[[], None]
    health: Health = field(default_factory=Health)
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    _connection: Connection | None = None
    _log: structlog.typing.FilteringBoundLogger = field(
        default_factory=lambda: structlog.get_logger("session")
    )

    async def run(self) -> None:
        """Connect and reconnect until cancelled."""
        relay = self.config.relay
        backoff = Backoff(relay.backoff_base_s, relay.backoff_cap_s, self.random)
        while True:
            self.health.attempts += 1
            self.health.state = "connecting"
            began = self.orders.trust.clocks.mono()
            delay = await self._once(backoff)
            self.orders.trust.fresh = False
            self.health.state = "offline"
            self.changed()
            lasted = self.orders.trust.clocks.mono() - began
            self._log.info("disconnected", problem=self.health.problem, lasted=round(lasted, 3))
            await asyncio.sleep(backoff.next() if delay is None else delay)

    def emit(self, command: bytes, n: int, body: EventBody) -> None:
        """Tell what a job does; dropped while there is no connection, because the next report replaces it."""
        connection = self._connection
        if connection is not None and connection.standing.welcomed:
            orders = self.orders
            connection.send_event(
                event_frame(orders.author, orders.state, command=command, n=n, body=body)
            )

    def results_changed(self) -> None:
        """Send the journal's new results, now or with the next connection."""
        if self._connection is not None:
            self._connection.results_changed()

    async def _once(self, backoff: Backoff) -> float | None:
        """Have one connection; return the wait that its end asks for, None for the back-off's own."""
        try:
            async with dial.open_socket(self.config.relay) as socket:
                self.health.path = dial.path_seen(socket, self.config.relay)
                connection = Connection(
                    socket, self.orders, self.seal_kid, self._log, self._on_change
                )
                self._connection = connection
                began = self.orders.trust.clocks.mono()
                try:
                    return await self._serve(connection)
                finally:
                    self._connection = None
                    if connection.standing.proven:
                        backoff.ended(self.orders.trust.clocks.mono() - began)
        except (OSError, TimeoutError, EOFError, WebSocketException) as err:
            self.health.problem = (
                f"cannot reach the relay: {clean_text(str(err) or type(err).__name__)}"
            )
        except ConfigError as err:
            self.health.problem = str(err)
        return None

    async def _serve(self, connection: Connection) -> float | None:
        """Run the connection and turn its end into a wait; anything but the end of a connection goes up."""
        code, reason = 0, ""
        try:
            await self._run(connection)
        except* SessionOver as group:
            over = _first(group)
            code, reason = over.code, over.reason
            async with asyncio.timeout(CLOSE_S):
                await connection.socket.close(code, reason)
        except* ConnectionClosed as group:
            close = _first(group).rcvd
            code, reason = (close.code, close.reason) if close else (0, "the connection was lost")
        self.health.problem = _explain(code, reason)
        comeback = connection.standing.comeback
        if comeback is not None:
            return comeback.after + self.random() * comeback.spread
        return SLOW_RETRY_S * (1 + self.random()) if code in _SLOW else None

    @staticmethod
    async def _run(connection: Connection) -> None:
        try:
            await connection.run()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await connection.socket.close(CLOSE_GOING, "the agent stops")
            raise

    def _on_change(self) -> None:
        standing = self._connection.standing if self._connection else Standing()
        if standing.welcomed:
            self.health.state = "proven" if standing.proven else "connected"
            self.health.problem = ""
            self.health.attempts = 0
        if standing.caught_up:
            self.caught_up.set()
        self.changed()


def _first(group: ExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _explain(code: int, reason: str) -> str:
    if code == CLOSE_SUPERSEDED:
        return "another connection of this appliance took over: is its identity used twice?"
    if code == CLOSE_REFUSED:
        return f"the relay refused this appliance ({clean_text(reason)})"
    return f"closed: {clean_text(reason)} ({code})" if code else clean_text(reason)
