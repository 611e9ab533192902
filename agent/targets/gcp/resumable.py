"""The other way into a bucket: one resumable upload of the JSON API, chunk after chunk in order.

For places where the XML API cannot be used. "Resumable uploads" and "Perform resumable uploads" of Cloud Storage:
chunks of whole 256 KiB but the last, 308 with what is persisted, `bytes */*` asks.
Whoever has the session's id may write this one object for a week: it stays in the journal and is never shown.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import msgspec

from agent.targets.base import StoredPart
from agent.targets.errors import CredentialRefused, DiskLost, TargetRefused, TargetUnavailable
from agent.targets.gcp.gcs import GcsBucket
from agent.targets.http.body import whole
from agent.targets.http.failures import CONNECTION_ERRORS, connection_failure
from agent.targets.http.sender import SEND_ERRORS, Answer, Sender, StopFlag
from agent.threads import Pool, Stop, run_blocking
from imaging.units import KiB

UPLOAD, SESSION = "gcp.upload", "gcp.session"
STEP = 256 * KiB
_MAX_ANSWER = 64 * KiB
_INCOMPLETE = 308
_COMPLETE = (200, 201)
_GONE = (404, 410)
_CANCELLED = 499
_RANGE = re.compile(r"bytes=0-([0-9]{1,18})")


@dataclass(slots=True)
class InOrder:
    """A resumable upload.

    Attributes:
        bucket: Where to.
        sender: Owned by the target.
        key: Of the object.
        upload: Id of the session.
    """

    MOST: ClassVar[int] = 1
    """Parts at a time."""

    bucket: GcsBucket
    sender: Sender
    key: str
    upload: str = field(repr=False)
    kind: str = SESSION
    _persisted: int = 0
    _tail: bytes = b""
    """What came behind the persisted bytes and is less than a step."""
    _unsure: bool = False
    """Whether a chunk was sent that was not answered."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: Pool = field(default_factory=lambda: Pool("gcs-session", 1))

    @property
    def held(self) -> int | None:
        """Bytes that the service has persisted."""
        return self._persisted

    # --- from a worker thread -----------------------------------------------------------------------------

    def put_part(self, number: int, offset: int, data: bytes, stop: Stop) -> str:
        """Send the archive's bytes from `offset` on, up to a whole step; the rest goes with the next part."""
        with self._lock:
            if self._unsure:
                self._ask(stop)
            self._take(offset, data)
            while len(self._tail) >= STEP:
                self._send(len(self._tail) // STEP * STEP, "*", stop)
        return str(number)

    def _take(self, offset: int, data: bytes) -> None:
        """Add what is not persisted of a part; it may have been given before, or be sent for the first time."""
        have = self._persisted + len(self._tail)
        if offset > have:
            msg = f"{self.key}: a part at byte {offset}, the session continues at byte {have}"
            raise DiskLost(msg)
        end = offset + len(data)
        if end > have:
            self._tail += data[have - offset :]

    def _send(self, count: int, total: str, stop: Stop) -> bool:
        """Send the first bytes of the tail; return whether that completed the object."""
        start, chunk = self._persisted, self._tail[:count]
        span = f"{start}-{start + count - 1}" if count else "*"
        what = f"write {count} bytes at byte {start} of {self.key}"
        self._unsure = True
        answer = self._put(chunk, f"bytes {span}/{total}", what, stop)
        self._unsure = False
        if answer.status in _COMPLETE:
            if total == "*":
                msg = f"{what}: the service says that the object is complete"
                raise TargetRefused(msg)
            return True
        persisted = _persisted_in(answer.headers, what)
        if count and persisted == start:
            msg = f"{what}: the service persisted nothing of it"
            raise TargetUnavailable(msg)
        self._advance(persisted, what)
        return False

    def _advance(self, persisted: int, what: str) -> None:
        step = persisted - self._persisted
        if not 0 <= step <= len(self._tail):
            most = self._persisted + len(self._tail)
            msg = f"{what}: the service holds {persisted} bytes, {self._persisted} to {most} were sent"
            raise DiskLost(msg)
        self._tail, self._persisted = self._tail[step:], persisted

    def _ask(self, stop: Stop, total: str = "*") -> bool:
        """Ask what is persisted; return whether the object is complete."""
        what = f"ask how far {self.key} is"
        answer = self._put(b"", f"bytes */{total}", what, stop)
        self._unsure = False
        if answer.status in _COMPLETE:
            return True
        self._advance(_persisted_in(answer.headers, what), what)
        return False

    def _put(self, chunk: bytes, content_range: str, what: str, stop: Stop) -> Answer:
        try:
            return self._put_once(chunk, content_range, what, stop)
        except CredentialRefused:
            self.bucket.refused()
            return self._put_once(chunk, content_range, what, stop)

    def _put_once(self, chunk: bytes, content_range: str, what: str, stop: Stop) -> Answer:
        url = session_url(self.bucket, self.key, self.upload)
        headers = self.bucket.authorize("PUT", "", {}, {"Content-Range": content_range})
        flag = StopFlag()
        try:
            with stop.waking(flag.set):
                answer = self.sender.put(url, headers, memoryview(chunk), stop=flag)
        except SEND_ERRORS as err:
            raise connection_failure(err, what=what) from err
        if answer.status in (_INCOMPLETE, *_COMPLETE):
            return answer
        if answer.status in _GONE:
            msg = f"{what}: the upload session is gone (HTTP {answer.status})"
            raise DiskLost(msg, status=answer.status)
        code, message = _error_of(answer.body)
        raise self.bucket.failure(answer.status, code, message, dict(answer.headers), what)

    # --- on the loop --------------------------------------------------------------------------------------

    async def resume(self) -> bool:
        """Ask what the service persisted of an earlier attempt; False if the session is gone or completed."""
        what = f"ask how far {self.key} is"

        def ask() -> bool:
            answer = self._put(b"", "bytes */*", what, Stop())
            if answer.status in _COMPLETE:
                return False
            self._persisted = _persisted_in(answer.headers, what)
            return self._persisted % STEP == 0  # what is no whole step nobody sent: begin anew

        try:
            return await run_blocking(self._pool, ask)
        except DiskLost:
            return False

    async def complete(self, parts: Sequence[StoredPart]) -> None:
        """Send the rest with the size of the whole."""
        total = sum(part.size for part in parts)

        def finish() -> None:
            with self._lock:
                stop = Stop()
                if self._unsure and self._ask(stop, str(total)):
                    return
                if self._persisted + len(self._tail) != total:
                    msg = f"{self.key}: {self._persisted + len(self._tail)} bytes of {total} are there"
                    raise DiskLost(msg)
                if not self._send(len(self._tail), str(total), stop):
                    msg = f"{self.key}: the service wants more than {total} bytes"
                    raise TargetUnavailable(msg)
                self._tail = b""

        await run_blocking(self._pool, finish)


async def begin_session(
    bucket: GcsBucket,
    session: aiohttp.ClientSession,
    pool: Pool,
    key: str,
    *,
    metadata: Mapping[str, str],
    content_type: str,
) -> str:
    """Begin an upload and return its session's id.

    Raises:
        TargetRefused: The service points to another origin.
    """
    what = f"begin the upload of {key}"
    url = f"{bucket.endpoint}/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name={quote(key, safe='')}"
    told = {"name": key, "contentType": content_type, "metadata": dict(metadata)}
    wanted = {"X-Upload-Content-Type": content_type, "Content-Type": "application/json"}
    headers = await run_blocking(pool, lambda: bucket.authorize("POST", "", {}, wanted))
    try:
        async with session.post(
            url, data=msgspec.json.encode(told), headers=headers, allow_redirects=False
        ) as response:
            body = await whole(response, _MAX_ANSWER, what=what)
    except CONNECTION_ERRORS as err:
        raise connection_failure(err, what=what) from err
    if response.status not in _COMPLETE:
        code, message = _error_of(body)
        raise bucket.failure(response.status, code, message, response.headers, what)
    place = urlsplit(response.headers.get("Location", ""))
    ours = urlsplit(bucket.endpoint)
    if (place.scheme, place.netloc) != (ours.scheme, ours.netloc):
        msg = (
            f"{what}: the service points to {place.netloc or 'nowhere'}, which is not {ours.netloc}"
        )
        raise TargetRefused(msg)
    found = parse_qs(place.query).get("upload_id", [""])[0]
    if not found:
        msg = f"{what}: the answer holds no upload_id"
        raise TargetUnavailable(msg)
    return found


async def end_session(
    bucket: GcsBucket, session: aiohttp.ClientSession, key: str, upload: str, pool: Pool
) -> None:
    """Cancel an upload; one that is gone is no error."""
    what = f"give up the upload of {key}"
    headers = await run_blocking(pool, lambda: bucket.authorize("DELETE", "", {}, {}))
    url = session_url(bucket, key, upload)
    try:
        async with session.delete(url, headers=headers, allow_redirects=False) as response:
            body = await whole(response, _MAX_ANSWER, what=what)
    except CONNECTION_ERRORS as err:
        raise connection_failure(err, what=what) from err
    if response.status not in (_CANCELLED, 204, *_GONE, *_COMPLETE):
        code, message = _error_of(body)
        raise bucket.failure(response.status, code, message, response.headers, what)


def session_url(bucket: GcsBucket, key: str, upload: str) -> str:
    """Return the address of a session."""
    query = f"uploadType=resumable&name={quote(key, safe='')}&upload_id={quote(upload, safe='')}"
    return f"{bucket.endpoint}/upload/storage/v1/b/{bucket.name}/o?{query}"


def _persisted_in(headers: Mapping[str, str], what: str) -> int:
    """Return the bytes that a 308 says are persisted."""
    text = headers.get("range", "")
    if not text:
        return 0
    found = _RANGE.fullmatch(text)
    if found is None:
        msg = f"{what}: the service holds {text[:40]!r}, which is no range"
        raise TargetUnavailable(msg)
    return int(found[1]) + 1


def _error_of(body: bytes) -> tuple[str, str]:
    """Return (code, message) of the JSON API's error."""
    try:
        error = msgspec.json.decode(body, type=dict[str, object]).get("error", {})
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", ""
    if not isinstance(error, dict):
        return "", str(error)[:200]
    reasons = error.get("errors")
    first = reasons[0] if isinstance(reasons, list) and reasons else {}
    code = str(first.get("reason", "")) if isinstance(first, dict) else ""
    return code, str(error.get("message", ""))[:200]
