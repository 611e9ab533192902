"""An HTTP answer's body, all of it and bounded.

`StreamReader.read(n)` of aiohttp returns what has just arrived, not n bytes: an answer that comes in two segments would
be cut, and read as something else.
"""

from aiohttp import StreamReader


async def read_up_to(content: StreamReader, most: int) -> bytes:
    """Return the body, at most its first `most` bytes; raises what aiohttp raises when it ends early."""
    body = bytearray()
    while len(body) < most and (piece := await content.read(most - len(body))):
        body += piece
    return bytes(body)
