"""SMB links: the current link of one share, made anew when it is lost, and cut when the job is aborted."""

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import structlog

from agent.errors import AgentError, Cancelled
from agent.shares.errors import LogonFailed, ShareClosed, ShareDisconnected
from agent.shares.smb.link import Link, establish, new_connection
from agent.shares.smb.policy import SmbPolicy
from agent.shares.smb.recovery import LOST, Recovery, Timing
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.shares.smb.translate import WIRE_ERRORS, translate

if TYPE_CHECKING:
    from agent.shares.smb.connection import StrictConnection

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Links:
    """Runs operations on a live link. Thread-safe; one thread connects, the others wait for it."""

    def __init__(
        self, ref: SmbShareRef, credential: SmbCredential, policy: SmbPolicy, timing: Timing
    ) -> None:
        self._ref, self._credential, self._policy, self._timing = ref, credential, policy, timing
        self._connecting = threading.Lock()
        self._current: Link | None = None
        self._newest: StrictConnection | None = None
        self._was_connected = False
        self._refusal: LogonFailed | None = None
        self._aborted = threading.Event()
        self._closed = False

    def run(self, operation: Callable[[Link], T], doing: str) -> T:
        """Return `operation(link)`, repeated on a new link as long as the policy allows.

        Args:
            operation: May run several times, so it must be safe to repeat.
            doing: What this is, for messages.

        Raises:
            Cancelled: After `abort`.
            AgentError: What the operation means to the agent, by class.
        """
        recovery = Recovery(self._policy, self._timing)
        while True:
            first = not self._was_connected
            try:
                return self.once(operation, doing)
            except AgentError as err:
                self._require_usable(err)
                if first and isinstance(err, LOST):
                    raise  # A server that never answered is a wrong address rather than an outage.
                pause = recovery.pause_after(err)
            if self._aborted.wait(pause):
                self._require_usable(None)

    def once(self, operation: Callable[[Link], T], doing: str) -> T:
        """Return `operation(link)`, tried once; a broken link is dropped.

        Raises:
            As `run`.
        """
        self._require_usable(None)
        link = self._live_link()
        try:
            return operation(link)
        except (AgentError, *WIRE_ERRORS) as err:
            meaning = translate(err, doing, share=str(self._ref))
            if isinstance(meaning, LOST) or not link.alive:
                self._drop(link, meaning)
            if meaning is err:
                raise
            raise meaning from err

    def _live_link(self) -> Link:
        """Return the current link, connecting it first if need be."""
        with self._connecting:
            self._require_usable(None)
            if self._current is not None:
                if self._current.alive:
                    return self._current
                self._forget(ShareDisconnected("it ended between two requests"))
            self._current = self._connect()
            self._was_connected = True
            log.info("share connected", share=str(self._ref), **asdict(self._current.facts))
            return self._current

    def _connect(self) -> Link:
        """Make a new link; a refused logon is never repeated, or every thread would help to lock the account."""
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal), **self._refusal.fields)
        self._newest = new_connection(self._ref, self._policy)
        if self._aborted.is_set():
            self._newest.cut()
        try:
            return establish(self._newest, self._ref, self._credential, self._policy)
        except LogonFailed as err:
            self._refusal = err
            raise

    def _drop(self, link: Link, why: AgentError) -> None:
        """Give up a link: cut its socket, so that every thread on it fails and comes back for the next one."""
        with self._connecting:
            if self._current is link:
                self._forget(why)
        link.connection.cut()
        link.connection.disconnect(close=False)

    def _forget(self, why: AgentError) -> None:
        self._current = None
        log.warning("share lost", share=str(self._ref), code=why.code, error=str(why))

    def _require_usable(self, cause: AgentError | None) -> None:
        """Raise if the share is aborted or closed."""
        if self._aborted.is_set():
            raise Cancelled(f"the work on {self._ref} was cancelled") from cause
        if self._closed:
            raise ShareClosed(f"{self._ref} was used after it was closed") from cause

    def abort(self) -> None:
        """Make every blocked and every later call raise `job.cancelled`. From any thread, never blocks."""
        self._aborted.set()
        newest = self._newest
        if newest is not None:
            newest.cut()

    def close(self) -> None:
        """Log off. May be called twice; ends a connect that is under way."""
        self._closed = True
        if not self._connecting.acquire(blocking=False):
            if self._newest is not None:
                self._newest.cut()
            self._connecting.acquire()
        try:
            link, self._current = self._current, None
        finally:
            self._connecting.release()
        if link is not None:
            link.close()
