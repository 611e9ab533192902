"""Keeping the signer attached: dial the relay, run the link, back off with full jitter, for ever."""

import asyncio
import random
import ssl
from dataclasses import dataclass

import aiohttp
import structlog

from protocol.control import MAX_CONTROL_FRAME
from protocol.errors import ProtocolError
from relay.signer.config import SignerConfig
from relay.signer.errors import BadConfig
from relay.signer.link import Link, LinkBroken
from relay.signer.service import Service

BASE_S = 0.5
CAP_S = 30.0
GOOD_AFTER_S = 10.0
"""An attachment that lasted so long was a good one: the next back-off starts small again."""
HEARTBEAT_S = 20.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Dialler:
    """Dials one relay."""

    service: Service
    config: SignerConfig
    token: str

    async def run(self) -> None:
        """Stay attached until cancelled."""
        failures = 0
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls()), trust_env=False
        ) as session:
            while True:
                began = loop.time()
                await self._attach(session)
                failures = 0 if loop.time() - began > GOOD_AFTER_S else failures + 1
                bound = min(CAP_S, BASE_S * 2.0 ** min(failures, 16))
                await asyncio.sleep(random.random() * bound)  # noqa: S311 - jitter

    async def _attach(self, session: aiohttp.ClientSession) -> None:
        url = self.config.relay.url.rstrip("/") + "/v1/control"
        try:
            async with session.ws_connect(
                url, heartbeat=HEARTBEAT_S, max_msg_size=MAX_CONTROL_FRAME, compress=0
            ) as socket:
                log.info("attaching to the relay", url=url)
                await Link(self.service, socket, self.token).run()
        except* (aiohttp.ClientError, OSError, TimeoutError, LinkBroken, ProtocolError) as group:
            first = group.exceptions[0]
            log.warning("not attached", url=url, why=f"{type(first).__name__}: {first}"[:300])

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.config.relay.ca:
            try:
                context.load_verify_locations(self.config.relay.ca)
            except (OSError, ssl.SSLError) as err:
                msg = f"relay.ca {self.config.relay.ca} cannot be used: {err}"
                raise BadConfig(msg) from err
        return context
