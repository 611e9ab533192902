"""The connections of one job to Azure: an aiohttp session for control and reading, a page sender for writing."""

import asyncio
from dataclasses import dataclass, field

import aiohttp

from agent.targets.azure.authorizer import Authorizer, BlockingAuthorizer
from agent.targets.azure.pages import PageWire, usable_crc64
from agent.targets.http.sender import Sender
from agent.targets.http.settings import HttpSettings, make_session

_READERS = 16
_CONTROL = 4
"""Connections beside those."""


@dataclass(slots=True)
class Connections:
    """Made for one job, closed with its target; nothing is sent before the first request.

    Attributes:
        settings: Proxy and trust.
        checksums: Send the service's checksum with every write, where both sides can.
        sender: For page writes.
    """

    settings: HttpSettings
    checksums: bool = True
    sender: Sender = field(init=False)
    _session: aiohttp.ClientSession | None = None

    def __post_init__(self) -> None:
        self.sender = Sender(self.settings)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The job's session; made on first use, on the job's loop."""
        if self._session is None:
            self._session = make_session(self.settings, connections=_READERS + _CONTROL)
        return self._session

    def wire(self, authorizer: Authorizer, name: str) -> PageWire:
        """Return the data plane of one blob. On the job's loop."""
        crc64 = usable_crc64() if self.checksums else None
        blocking = BlockingAuthorizer(authorizer, asyncio.get_running_loop())
        return PageWire(self.session, self.sender, authorizer, blocking, name, crc64)

    async def close(self) -> None:
        """Close both."""
        self.sender.close()
        if self._session is not None:
            await self._session.close()
