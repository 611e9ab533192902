"""The data plane of EBS direct: put, list and get blocks of 512 KiB, signed here, over raw HTTP.

API reference of EBS direct (2019-11-02): the body is not signed, its SHA-256 is a signed header that the service
checks. That SHA-256 is the digest that the pump computed anyway.
"""

import asyncio
import hashlib
import json
import math
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from agent.errors import AgentError, first_failure
from agent.retry import Retrier
from agent.targets.aws.control import AwsControl
from agent.targets.aws.failures import failure
from agent.targets.aws.sigv4 import Keys, Signer, encode_query
from agent.targets.errors import CredentialRefused, DiskLost, TargetUnavailable
from agent.targets.http.body import whole
from agent.targets.http.failures import CONNECTION_ERRORS, connection_failure
from agent.targets.http.sender import SEND_ERRORS, Sender, StopFlag
from agent.threads import Pool, Stop, run_blocking
from imaging.digest import DigestBuilder
from imaging.extent import Extent, Kind
from imaging.units import KiB

BLOCK = 512 * KiB
UNSEEN_S = 180.0
"""The service may not know a snapshot for two minutes after it made it (coldsnap issue 43)."""
_PAGE = 1000
_PAGES_KEPT = 4
_MAX_ANSWER = 4 * 1024 * 1024
_CREATED = 201


@dataclass(slots=True)
class EbsWire:
    """The blocks of one snapshot.

    Attributes:
        control: Whose credentials sign.
        session: For reading; owned by the target.
        sender: For writing; owned by the target.
        signer: For the region.
        endpoint: Of the service, without a slash at its end.
        snapshot: Its id.
        now_ms: Signed time.
        clock: Monotonic seconds.
        unseen_until: Until then the service may not know the snapshot yet.
        retrier: For the blocks of a read.
    """

    control: AwsControl
    session: aiohttp.ClientSession
    sender: Sender
    signer: Signer
    endpoint: str
    snapshot: str
    now_ms: Callable[[], int]
    clock: Callable[[], float]
    unseen_until: float
    retrier: Retrier
    _pool: Pool = field(default_factory=lambda: Pool("aws-keys", 1))
    _tokens: dict[int, dict[int, str]] = field(default_factory=dict)
    """First block of a page -> block -> token; the last pages only."""

    # --- writing, from worker threads ---------------------------------------------------------------------

    def put(self, index: int, data: memoryview, checksum: str, stop: Stop) -> None:
        """Write one block; `checksum` is its SHA-256 in base64. Blocking."""
        keys = self.control.keys()
        try:
            self._put_once(index, data, checksum, keys, stop)
        except CredentialRefused:
            if not self.control.refused(keys):
                raise
            self._put_once(index, data, checksum, self.control.keys(), stop)

    def _put_once(
        self, index: int, data: memoryview, checksum: str, keys: Keys, stop: Stop
    ) -> None:
        what = f"write block {index} of {self.snapshot}"
        path = f"/snapshots/{self.snapshot}/blocks/{index}"
        wanted = {
            "x-amz-Data-Length": str(len(data)),
            "x-amz-Checksum": checksum,
            "x-amz-Checksum-Algorithm": "SHA256",
        }
        headers = self._signed("PUT", path, {}, wanted, keys)
        flag = StopFlag()
        try:
            with stop.waking(flag.set):
                answer = self.sender.put(self.endpoint + path, headers, data, stop=flag)
        except SEND_ERRORS as err:
            raise connection_failure(err, what=what) from err
        if answer.status != _CREATED:
            raise self._refusal(answer.status, dict(answer.headers), answer.body, what)

    # --- reading, on the loop -----------------------------------------------------------------------------

    async def extents(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """Describe the blocks of the completed snapshot, in order and without gaps."""
        cursor, end = offset, offset + length
        start: int | None = offset // BLOCK
        while start is not None:
            page, start = await self._list(start)
            for index in page:
                at = index * BLOCK
                if at >= end:
                    start = None
                    break
                if at > cursor:
                    yield Extent(cursor, at - cursor, Kind.HOLE)
                data = max(at, cursor)
                if min(at + BLOCK, end) > data:
                    yield Extent(data, min(at + BLOCK, end) - data, Kind.DATA)
                cursor = max(cursor, min(at + BLOCK, end))
        if cursor < end:
            yield Extent(cursor, end - cursor, Kind.HOLE)

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; its blocks are asked for at once. What was never written reads as zeros.

        Each block is tried again by itself: of eight, one would nearly always fail on a bad day.
        """
        first, last = offset // BLOCK, (offset + len(buffer) - 1) // BLOCK
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(first, last + 1):
                    group.create_task(
                        self.retrier.call(partial(self._read_block, index, offset, buffer))
                    )
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from failures

    async def _read_block(self, index: int, offset: int, buffer: memoryview) -> None:
        start = max(offset, index * BLOCK)
        end = min(offset + len(buffer), (index + 1) * BLOCK)
        room = buffer[start - offset : end - offset]
        token = await self._token(index)
        if token is None:
            room[:] = bytes(len(room))
            return
        what = f"read block {index} of {self.snapshot}"
        path = f"/snapshots/{self.snapshot}/blocks/{index}"
        body = await self._get(path, {"blockToken": token}, what)
        if len(body) != BLOCK:
            msg = f"{what}: {len(body)} bytes came, expected {BLOCK}"
            raise TargetUnavailable(msg)
        room[:] = memoryview(body)[start - index * BLOCK : end - index * BLOCK]

    async def _token(self, index: int) -> str | None:
        for page in self._tokens.values():
            if index in page:
                return page[index]
        found, _ = await self._list(index, least=True)
        return found.get(index)

    async def _list(self, start: int, *, least: bool = False) -> tuple[dict[int, str], int | None]:
        """Return (block -> token of one page, where the next page begins); keeps the last pages' tokens."""
        what = f"list the blocks of {self.snapshot}"
        path = f"/snapshots/{self.snapshot}/blocks"
        query = {"startingBlockIndex": str(start), "maxResults": str(100 if least else _PAGE)}
        document = _object(await self._get(path, query, what))
        try:
            page = {int(b["BlockIndex"]): str(b["BlockToken"]) for b in document.get("Blocks", [])}
        except (KeyError, TypeError, ValueError) as err:
            msg = f"{what}: the answer describes no blocks"
            raise TargetUnavailable(msg) from err
        if list(page) != sorted(page) or (page and min(page) < start):
            msg = f"{what}: the blocks are not in order"
            raise TargetUnavailable(msg)
        self._tokens[start] = page
        while len(self._tokens) > _PAGES_KEPT:
            del self._tokens[next(iter(self._tokens))]
        more = bool(document.get("NextToken")) and bool(page)
        return page, max(page) + 1 if more else None

    async def _get(self, path: str, query: dict[str, str], what: str) -> bytes:
        keys = await run_blocking(self._pool, self.control.keys)
        try:
            return await self._get_once(path, query, what, keys)
        except CredentialRefused:
            if not await run_blocking(self._pool, lambda: self.control.refused(keys)):
                raise
        keys = await run_blocking(self._pool, self.control.keys)
        return await self._get_once(path, query, what, keys)

    async def _get_once(self, path: str, query: dict[str, str], what: str, keys: Keys) -> bytes:
        url = f"{self.endpoint}{path}?{encode_query(query)}"
        headers = self._signed("GET", path, query, {}, keys)
        try:
            async with self.session.get(
                URL(url, encoded=True), headers=headers, allow_redirects=False
            ) as response:
                body = await whole(response, _MAX_ANSWER, what=what)
        except CONNECTION_ERRORS as err:
            raise connection_failure(err, what=what) from err
        if response.status != 200:
            raise self._refusal(response.status, dict(response.headers), body, what)
        return body

    # --- both ---------------------------------------------------------------------------------------------

    def _signed(
        self, method: str, path: str, query: dict[str, str], wanted: dict[str, str], keys: Keys
    ) -> dict[str, str]:
        host = urlsplit(self.endpoint).netloc
        return self.signer.sign(
            method, host, path, query=query, headers=wanted, keys=keys, now_ms=self.now_ms()
        )

    def _refusal(self, status: int, headers: dict[str, str], body: bytes, what: str) -> AgentError:
        lower = {name.lower(): value for name, value in headers.items()}
        document = _object(body)
        code = lower.get("x-amzn-errortype", "").split(":")[0]
        message, reason = str(document.get("Message", "")), str(document.get("Reason", ""))
        request_id = lower.get("x-amzn-requestid", "")
        err = failure(
            status, code, message, what=what, reason=reason, request_id=request_id, headers=lower
        )
        if isinstance(err, DiskLost) and self.clock() < self.unseen_until:
            return TargetUnavailable(
                f"{err} (it may be known later)", retry_after=1.0, **err.fields
            )
        return err


def _object(body: bytes) -> dict[str, Any]:
    try:
        plain = json.loads(body) if body.strip() else {}
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) else {}


def volume_gib(padded_size: int) -> int:
    """Return the GiB of the volume that holds a disk."""
    return math.ceil(padded_size / (1024 * 1024 * KiB))


def linear_checksum(digest: DigestBuilder) -> tuple[int, str]:
    """Return (blocks that were written, checksum over their digests in order): CompleteSnapshot's LINEAR."""
    total, count = hashlib.sha256(), 0
    for index in digest.data_blocks(0, digest.count):
        total.update(digest.blocks(index, 1))
        count += 1
    return count, b64encode(total.digest()).decode()
