"""The body of a service's answer."""

import aiohttp

from agent.bounded import read_up_to
from agent.targets.errors import TargetUnavailable


async def whole(response: aiohttp.ClientResponse, most: int, *, what: str) -> bytes:
    """Return an answer's body; `what` was asked.

    Raises:
        TargetUnavailable: It has more than `most` bytes.
    """
    body = await read_up_to(response.content, most + 1)
    if len(body) > most:
        msg = f"{what}: an answer of more than {most} bytes"
        raise TargetUnavailable(msg)
    return body
