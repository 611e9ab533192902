"""Simulator: what all simulated clouds share: the state folder, the server, the fault plan, the counters, one address.

Knows no cloud: a subclass opens its state and says which plane answers a request.
"""

import fcntl
import ssl
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from appliance.sim.call import Call, Plane, Refusal
from appliance.sim.faults import FaultPlan
from appliance.sim.server import BODY_MOST, SimServer
from appliance.sim.stats import Stats


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where and how a simulator is served.

    Attributes:
        state_dir: Keeps everything over restarts; a temporary directory without it.
        faults: Plan to begin with.
        host / port: Address to listen on; port 0 takes a free one.
        tls: Serve HTTPS with this context.
        public_url: What clients reach the simulator by, when it is not the listening address.
        clock: Seconds since the epoch.
    """

    state_dir: Path | None = None
    faults: FaultPlan | None = None
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    public_url: str = ""
    clock: Callable[[], float] = time.time


class Simulator(ABC):
    """One simulated account at one address; an async context manager. The only place of it that reads the clock."""

    kind: ClassVar[str]
    body_most: ClassVar[int] = BODY_MOST

    def __init__(self, served: Served) -> None:
        self._served = served
        self._plan = served.faults or FaultPlan()
        self._stack = AsyncExitStack()
        self.clock = served.clock
        self.url = served.public_url
        self.stats = Stats()

    async def __aenter__(self) -> Self:
        served = self._served
        async with AsyncExitStack() as stack:
            directory = served.state_dir or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="imageport-sim-"))
            )
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(directory))
            stack.callback(self._open(directory))
            self._server = SimServer(
                self._route,
                self._plan,
                stats=self.stats,
                expire=self.expire,
                clock=self.clock,
                busy=self._busy,
                body_most=self.body_most,
            )
            port = await self._server.start(served.host, served.port, served.tls)
            stack.push_async_callback(self._server.stop)
            scheme = "https" if served.tls else "http"
            self.url = self.url or f"{scheme}://{_reachable(served.host)}:{port}"
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()

    @property
    def plan(self) -> FaultPlan:
        """The fault plan at work."""
        return self._server.engine.plan

    def set_faults(self, plan: FaultPlan) -> None:
        """Replace the fault plan."""
        self._server.set_faults(plan)

    @abstractmethod
    def _open(self, directory: Path) -> Callable[[], object]:
        """Load the state and make the planes; return what closes them."""

    @abstractmethod
    def _route(self, call: Call) -> Plane:
        """Return the plane that a request is for."""

    @abstractmethod
    def _busy(self, operation: str) -> Refusal:
        """Return how the service says that an operation is too much."""

    @abstractmethod
    def expire(self) -> None:
        """Expire every temporary credential that was issued or seen so far; new ones work."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what a client needs, as `imageport sim` prints it."""


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep a second simulator out of the state directory; a killed one leaves no lock behind."""
    with (directory / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise OSError(err.errno, f"{directory} is in use by another simulator") from err
        yield


def _reachable(host: str) -> str:
    """Return how clients of this machine write a listening address in a URL."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"[{address}]" if ":" in address else address
