"""Follow a job to its end over broken connections: the SDK's side of the event stream."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from protocol.jobs import FINAL
from relay.client_http import Transport
from relay.errors import ClientError
from relay.sse import EventReader, ServerEvent

IDLE_S = 45.0
"""Three heartbeats."""
OUTAGE_ATTEMPTS = 40
"""Failures in a row, with waits of 0 to 8 s: some minutes, which a relay's update takes."""
UNKNOWN_ATTEMPTS = 60
"""A job that was just ordered reaches the relay when the signer's outbox brings it: 404 until then."""
UNKNOWN_WAIT_S = 0.5

_FINAL = frozenset(state.value for state in FINAL)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event: `kind` is "state" or "progress", `data` the relay's JSON."""

    id: int
    kind: str
    data: dict[str, Any]

    @property
    def state(self) -> str:
        """The job's state."""
        return str(self.data.get("state", ""))

    @property
    def final(self) -> bool:
        """Whether this is the job's end."""
        return self.kind == "state" and self.state in _FINAL


async def watch(http: Transport, path: str, *, just_ordered: bool) -> AsyncIterator[JobEvent]:
    """Yield the events of one job; ends after the final one.

    Args:
        http: An open session.
        path: The stream's path.
        just_ordered: The signer accepted the job a moment ago: wait for it to reach the relay.

    Raises:
        ClientError: The job does not exist, the key is refused.
        Unreachable: The relay could not be reached for minutes.
    """
    reader = EventReader()
    failed = unknown = 0
    while True:
        try:
            async with http.stream(path, _resume(reader), idle_s=IDLE_S) as response:
                async for chunk in response.content.iter_any():
                    for raw in reader.feed(chunk):
                        failed, event = 0, _event(raw)
                        yield event
                        if event.final:
                            return
                if response.status == 204:  # ended before, and everything was seen
                    return
            wait = http.backoff(1)
        except (aiohttp.ClientError, TimeoutError, OSError):
            wait = http.backoff(failed + 1)
        except ClientError as err:
            coming = just_ordered and not reader.last_id and unknown < UNKNOWN_ATTEMPTS
            if err.status == 404 and coming:
                unknown, failed, wait = unknown + 1, 0, UNKNOWN_WAIT_S
            elif not err.fields.get("again") or failed >= OUTAGE_ATTEMPTS:
                raise
            else:
                wait = err.fields.get("retry_after") or http.backoff(failed + 1)
        failed += 1
        reader.cut()
        await asyncio.sleep(wait)


def _resume(reader: EventReader) -> dict[str, str]:
    headers = {"Accept": "text/event-stream"}
    return headers | {"Last-Event-ID": reader.last_id} if reader.last_id else headers


def _event(raw: ServerEvent) -> JobEvent:
    try:
        data = msgspec.json.decode(raw.data, type=dict[str, Any])
        return JobEvent(int(raw.id), raw.kind, data)
    except (msgspec.DecodeError, ValueError) as err:
        raise ClientError(f"an event of the stream cannot be read: {err}") from err
