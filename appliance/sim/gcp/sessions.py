"""SessionPlane: resumable uploads of the JSON API (`/upload/storage/v1/`); errors in JSON.

"Resumable uploads" and "Perform resumable uploads" of Cloud Storage: chunks of whole 256 KiB but the last; 308 says in
`Range` what is persisted; bytes that are persisted already are ignored; an object appears when the last byte is there.
"""

import re
import uuid
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.gcp.jsonplane import json_error, json_reply, resource
from appliance.sim.gcp.shelf import GcpShelf
from appliance.sim.gcp.tokens import Tokens
from appliance.sim.objects.records import Upload
from appliance.sim.stats import Stats

PREFIX = "/upload/storage/v1/"
STEP = 256 * 1024
_PATH = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
_CHUNK = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
_STATUS = re.compile(r"bytes \*/([0-9]+|\*)")
_CANCELLED = 499


class SessionPlane:
    """Upload sessions of one project."""

    def __init__(self, shelf: GcpShelf, tokens: Tokens, stats: Stats) -> None:
        self._shelf = shelf
        self._tokens = tokens
        self._stats = stats
        self._done: dict[str, Any] = {}
        self.url = ""

    def operation(self, call: Call) -> str:
        """Name the operation: gcs.session-*."""
        if call.method == "POST":
            return "gcs.session-begin"
        if call.method == "DELETE":
            return "gcs.session-cancel"
        is_chunk = _CHUNK.fullmatch(call.header("Content-Range"))
        return "gcs.session-put" if is_chunk else "gcs.session-ask"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        body = b"".join(await call.body.read())
        self._tokens.check(call)
        place = _PATH.fullmatch(call.path)
        if place is None or call.query.get("uploadType") != "resumable":
            raise Refusal(400, "notSimulated", f"{call.method} {call.path} is not simulated.")
        self._tokens.allow("storage.objects.create", call.query.get("name", ""))
        bucket = unquote(place[1])
        if call.method == "POST":
            return self._begin(call, bucket, body)
        session = call.query.get("upload_id", "")
        if session in self._done and call.method == "PUT":
            return json_reply(200, self._done[session])
        found = self._shelf.state.sessions.get(session)
        if found is None or (found.bucket, found.name) != (bucket, call.query.get("name")):
            raise Refusal(404, "notFound", "No such upload session.")
        if call.method == "DELETE":
            self._end(session, found, keep=False)
            return Reply(_CANCELLED)
        return self._put(call, session, found, body)

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into JSON."""
        return json_error(refusal)

    def _begin(self, call: Call, bucket: str, body: bytes) -> Reply:
        self._shelf.bucket(bucket)
        try:
            told = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise Refusal(400, "parseError", str(err)) from err
        if unknown := set(told) - {"name", "metadata", "contentType"}:
            raise Refusal(400, "invalid", f"{sorted(unknown)} is not simulated.")
        name = call.query.get("name") or told.get("name") or ""
        if not 0 < len(name.encode()) <= 1024:
            raise Refusal(400, "required", "The object needs a name.")
        session = uuid.uuid4().hex
        kind = call.header("X-Upload-Content-Type") or "application/octet-stream"
        metadata = {str(k).lower(): str(v) for k, v in told.get("metadata", {}).items()}
        self._shelf.state.sessions[session] = Upload(bucket, name, call.now, kind, metadata)
        self._shelf.save()
        query = f"uploadType=resumable&name={quote(name, safe='')}&upload_id={session}"
        return Reply(200, {"Location": f"{self.url}{call.path}?{query}"})

    def _put(self, call: Call, session: str, found: Upload, body: bytes) -> Reply:
        text = call.header("Content-Range")
        if call.length != len(body):
            raise Refusal(400, "badRequest", f"{len(body)} bytes of {call.length}")
        if status := _STATUS.fullmatch(text):
            if body:
                raise Refusal(400, "invalid", f"Content-Range {text} with a body.")
            return self._answer(call, session, found, status[1])
        chunk = _CHUNK.fullmatch(text)
        if chunk is None:
            raise Refusal(400, "invalid", f"Content-Range {text!r}.")
        start, last, total = int(chunk[1]), int(chunk[2]), chunk[3]
        if last - start + 1 != len(body):
            raise Refusal(400, "invalid", f"{len(body)} bytes for Content-Range {text}.")
        if total == "*" and len(body) % STEP:
            raise Refusal(400, "invalid", f"A chunk of {len(body)} bytes, expected whole 256 KiB.")
        self._stats.bytes_received += len(body)
        persisted = _persisted(found)
        if start > persisted:
            message = f"Bytes from {start} on, and only {persisted} are persisted."
            raise Refusal(400, "invalid", message)
        if fresh := body[persisted - start :]:
            self._store(call, found, fresh)
        return self._answer(call, session, found, total)

    def _store(self, call: Call, found: Upload, data: bytes) -> None:
        stored = bytes(len(data)) if "lose-write" in call.marks else data
        if "flip-stored" in call.marks:
            middle = len(data) // 2
            stored = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        found.parts[len(found.parts) + 1] = self._shelf.store(stored)
        self._stats.bytes_stored += len(data)
        self._shelf.save()

    def _answer(self, call: Call, session: str, found: Upload, total: str) -> Reply:
        persisted = _persisted(found)
        if total != "*" and persisted > int(total):
            raise Refusal(400, "invalid", f"{persisted} bytes are persisted, the total is {total}.")
        if total != "*" and persisted == int(total):
            made = self._shelf.complete(found, list(found.parts.values()), call.now)
            self._done[session] = resource(made)
            self._end(session, found, keep=True)
            return json_reply(200, self._done[session])
        headers = {"Range": f"bytes=0-{persisted - 1}"} if persisted else {}
        return Reply(308, headers)

    def _end(self, session: str, found: Upload, *, keep: bool) -> None:
        del self._shelf.state.sessions[session]
        self._shelf.save()
        for part in () if keep else found.parts.values():
            self._shelf.forget(part)


def _persisted(found: Upload) -> int:
    return sum(part.size for part in found.parts.values())
