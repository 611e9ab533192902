"""Authorizer: where a blob is and how a request proves that it may touch it; on the loop, and for worker threads."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from agent.errors import Cancelled
from agent.targets.errors import CredentialRefused
from agent.threads import Stop

T = TypeVar("T")

FRESH_S = 60.0
"""A worker thread asks again after so long; every authorizer renews long before the end of what it gave."""


class Authorizer(Protocol):
    """One credential, used on the event loop."""

    async def request(self) -> tuple[str, dict[str, str]]:
        """Return (URL with its query, headers). May ask for a new credential first."""
        ...

    async def refused(self, error: CredentialRefused) -> None:
        """The service refused what `request` gave: make a new one, or raise `error`."""
        ...


@dataclass(frozen=True, slots=True)
class Grant:
    """What authorises requests: a URL with its query, and headers."""

    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    fresh_until: float


class BlockingAuthorizer:
    """An Authorizer for worker threads: asks on its loop, for all threads at once and not for every request."""

    def __init__(
        self,
        authorizer: Authorizer,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authorizer = authorizer
        self._loop = loop
        self._clock = clock
        self._grant: Grant | None = None
        self._lock = threading.Lock()

    def grant(self, stop: Stop) -> Grant:
        """Return what authorises a request now.

        Raises:
            Cancelled: `stop` was set first. AgentError: The authorizer's.
        """
        with self._lock:
            if self._grant is None or self._clock() >= self._grant.fresh_until:
                url, headers = self._ask(self._authorizer.request, stop)
                self._grant = Grant(url, headers, self._clock() + FRESH_S)
            return self._grant

    def refused(self, grant: Grant, error: CredentialRefused, stop: Stop) -> None:
        """The service refused `grant`; only the first thread that says so renews it, or raises `error`."""
        with self._lock:
            if self._grant is grant:
                self._grant = None
                self._ask(lambda: self._authorizer.refused(error), stop)

    def _ask(self, question: Callable[[], Coroutine[Any, Any, T]], stop: Stop) -> T:
        stop.check()
        asked = asyncio.run_coroutine_threadsafe(question(), self._loop)
        try:
            with stop.waking(asked.cancel):
                return asked.result()
        except CancelledError:
            raise Cancelled("the work was stopped") from None
