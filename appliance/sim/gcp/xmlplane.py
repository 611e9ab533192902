"""XmlPlane: the XML API of Cloud Storage as far as multipart uploads and ranged reads need it; errors in XML.

Rules from "XML API multipart uploads" and its reference: parts of 5 MiB or more but the last, numbers 1 to 10,000,
ascending in the completion, an ETag for each; the service checks `x-goog-hash: crc32c=` where it is sent and tells its
own in the answer.
"""

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from urllib.parse import unquote
from xml.sax.saxutils import escape

import google_crc32c

from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.gcp.shelf import Shelf, encoded_crc
from appliance.sim.gcp.state import Part, Upload
from appliance.sim.gcp.tokens import Tokens
from appliance.sim.stats import Stats

PART_MIN = 5 * 1024 * 1024
PARTS_MOST = 10_000
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")
_CRC = re.compile(r"crc32c=([A-Za-z0-9+/=]+)")

_Handler = Callable[[Call, list[bytes]], Reply]


class XmlPlane:
    """Objects by path: `/BUCKET/OBJECT`."""

    def __init__(self, shelf: Shelf, tokens: Tokens, stats: Stats) -> None:
        self._shelf = shelf
        self._tokens = tokens
        self._stats = stats
        self._handlers: dict[str, _Handler] = {
            "initiate": self._initiate,
            "put-part": self._put_part,
            "list-parts": self._list_parts,
            "complete": self._complete,
            "abort": self._abort,
            "list-uploads": self._list_uploads,
            "get": self._get,
        }

    def operation(self, call: Call) -> str:
        """Name the operation: gcs.*."""
        return f"gcs.{_name(call)}"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        chunks = await call.body.read()
        self._tokens.check(call)
        handler = self._handlers.get(_name(call))
        if handler is None:
            raise Refusal(405, "MethodNotAllowed", f"{call.method} {call.path} is not simulated.")
        return handler(call, chunks)

    def refuse(self, _call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into XML."""
        text = (
            f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{escape(refusal.code)}</Code>"
            f"<Message>{escape(refusal.message)}</Message>"
            f"<Details>{escape(refusal.detail)}</Details></Error>"
        )
        headers = {"Content-Type": "application/xml; charset=UTF-8", **refusal.headers}
        return Reply(refusal.status, headers, text.encode())

    # --- uploads ------------------------------------------------------------------------------------------

    def _initiate(self, call: Call, _chunks: list[bytes]) -> Reply:
        bucket, name = _place(call)
        self._tokens.allow("storage.objects.create", name)
        self._tokens.allow("storage.multipartUploads.create", name)
        self._shelf.bucket(bucket)
        if not 0 < len(name.encode()) <= 1024:
            raise Refusal(400, "InvalidObjectName", f"{len(name.encode())} bytes")
        prefix = "x-goog-meta-"
        metadata = {
            key.lower().removeprefix(prefix): value
            for key, value in call.headers.items()
            if key.lower().startswith(prefix)
        }
        upload_id = uuid.uuid4().hex
        kind = call.header("Content-Type") or "application/octet-stream"
        self._shelf.state.uploads[upload_id] = Upload(bucket, name, call.now, kind, metadata)
        self._shelf.save()
        inner = (
            f"<Bucket>{bucket}</Bucket><Key>{escape(name)}</Key><UploadId>{upload_id}</UploadId>"
        )
        return _xml(200, "InitiateMultipartUploadResult", inner)

    def _put_part(self, call: Call, chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._tokens.allow("storage.objects.create", upload.name)
        number = _number(call, "partNumber", 0)
        if not 1 <= number <= PARTS_MOST:
            raise Refusal(400, "InvalidArgument", f"partNumber {number}: 1 to {PARTS_MOST}.")
        data = b"".join(chunks)
        self._stats.bytes_received += len(data)
        if call.length != len(data):
            raise Refusal(400, "IncompleteBody", f"{len(data)} bytes of {call.length}")
        crc = encoded_crc(int(google_crc32c.value(data)))
        told = _CRC.search(call.header("x-goog-hash"))
        if told and told[1] != crc:
            message = f"The CRC32C you specified did not match what we computed: {crc}."
            raise Refusal(400, "BadDigest", message)
        stored = bytes(len(data)) if "lose-write" in call.marks else data
        if "flip-stored" in call.marks:
            middle = len(data) // 2
            stored = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        part = self._shelf.store(stored)
        replaced = upload.parts.get(number)
        upload.parts[number] = part
        self._shelf.save()
        if replaced is not None:
            self._shelf.forget(replaced)
        self._stats.bytes_stored += len(data)
        return Reply(200, {"ETag": part.etag, "x-goog-hash": f"crc32c={crc}"})

    def _list_parts(self, call: Call, _chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._tokens.allow("storage.multipartUploads.listParts", upload.name)
        after, most = _number(call, "part-number-marker", 0), _number(call, "max-parts", 1000)
        numbers = [number for number in sorted(upload.parts) if number > after]
        shown, rest = numbers[:most], numbers[most:]
        inner = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(upload.parts[number].etag)}</ETag>"
            f"<Size>{upload.parts[number].size}</Size></Part>"
            for number in shown
        )
        inner += f"<IsTruncated>{'true' if rest else 'false'}</IsTruncated>"
        if rest:
            inner += f"<NextPartNumberMarker>{shown[-1]}</NextPartNumberMarker>"
        return _xml(200, "ListPartsResult", inner)

    def _complete(self, call: Call, chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._tokens.allow("storage.objects.create", upload.name)
        parts = _wanted_parts(b"".join(chunks), upload)
        made = self._shelf.complete(upload, parts, call.now)
        left = [part for part in upload.parts.values() if part not in parts]
        del self._shelf.state.uploads[call.query["uploadId"]]
        self._shelf.save()
        for part in left:
            self._shelf.forget(part)
        inner = f"<Bucket>{made.bucket}</Bucket><Key>{escape(made.name)}</Key><ETag>&quot;x&quot;</ETag>"
        reply = _xml(200, "CompleteMultipartUploadResult", inner)
        reply.headers |= {
            "x-goog-generation": str(made.generation),
            "x-goog-hash": f"crc32c={encoded_crc(made.crc32c)}",
        }
        return reply

    def _abort(self, call: Call, _chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._tokens.allow("storage.multipartUploads.abort", upload.name)
        del self._shelf.state.uploads[call.query["uploadId"]]
        self._shelf.save()
        for part in upload.parts.values():
            self._shelf.forget(part)
        return Reply(204)

    def _list_uploads(self, call: Call, _chunks: list[bytes]) -> Reply:
        bucket, _ = _place(call)
        self._shelf.bucket(bucket)
        self._tokens.allow("storage.multipartUploads.list", bucket)
        prefix = call.query.get("prefix", "")
        inner = "".join(
            f"<Upload><Key>{escape(upload.name)}</Key><UploadId>{upload_id}</UploadId></Upload>"
            for upload_id, upload in self._shelf.state.uploads.items()
            if upload.bucket == bucket and upload.name.startswith(prefix)
        )
        inner += "<IsTruncated>false</IsTruncated>"
        return _xml(200, "ListMultipartUploadsResult", inner)

    def _upload(self, call: Call) -> Upload:
        bucket, name = _place(call)
        self._shelf.bucket(bucket)
        found = self._shelf.state.uploads.get(call.query.get("uploadId", ""))
        if found is None or (found.bucket, found.name) != (bucket, name):
            raise Refusal(404, "NoSuchUpload", "The requested upload was not found.")
        return found

    # --- objects ------------------------------------------------------------------------------------------

    def _get(self, call: Call, _chunks: list[bytes]) -> Reply:
        found = self._shelf.find(*_place(call))
        self._tokens.allow("storage.objects.get", found.name)
        wanted = call.query.get("generation")
        if wanted and wanted != str(found.generation):
            raise Refusal(404, "NoSuchKey", f"No such generation: {wanted}")
        headers = {
            "Content-Type": found.content_type,
            "x-goog-generation": str(found.generation),
            "x-goog-hash": f"crc32c={encoded_crc(found.crc32c)}",
        }
        offset, length, status = 0, found.size, 200
        if text := call.header("Range"):
            matched = _RANGE.fullmatch(text)
            if matched is None or int(matched[1]) >= found.size:
                raise Refusal(416, "InvalidRange", "The requested range cannot be satisfied.")
            offset = int(matched[1])
            last = min(int(matched[2] or found.size - 1), found.size - 1)
            length, status = last - offset + 1, 206
            headers["Content-Range"] = f"bytes {offset}-{last}/{found.size}"
        self._stats.bytes_read += length
        if call.method == "HEAD":
            return Reply(status, headers)
        if length <= PART_MIN:
            return Reply(status, headers, b"".join(self._shelf.read(found, offset, length)))
        stream = self._shelf.read(found, offset, length)
        return Reply(status, headers, stream=stream, stream_length=length)


def _wanted_parts(body: bytes, upload: Upload) -> list[Part]:
    """Return the parts that a completion names, checked."""
    try:
        document = ET.fromstring(body)  # noqa: S314 - of a test's client
    except ET.ParseError as err:
        raise Refusal(400, "MalformedXML", str(err)) from err
    named = [
        (int(one.findtext("{*}PartNumber") or one.findtext("PartNumber") or 0),
         one.findtext("{*}ETag") or one.findtext("ETag") or "")
        for one in document
    ]  # fmt: skip
    numbers = [number for number, _ in named]
    if not named or numbers != sorted(set(numbers)):
        raise Refusal(400, "InvalidPartOrder", "The parts are not in ascending order.")
    parts = []
    for index, (number, etag) in enumerate(named):
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag.strip('"'):
            raise Refusal(400, "InvalidPart", f"Part {number} was not found, or its ETag differs.")
        if part.size < PART_MIN and index < len(named) - 1:
            raise Refusal(400, "EntityTooSmall", f"Part {number} is of {part.size} bytes.")
        parts.append(part)
    return parts


def _name(call: Call) -> str:
    query, key = call.query, bool(_place(call)[1])
    names = {
        ("POST", "uploads" in query and key): "initiate",
        ("PUT", "partNumber" in query and "uploadId" in query): "put-part",
        ("POST", "uploadId" in query): "complete",
        ("DELETE", "uploadId" in query): "abort",
    }
    if found := names.get((call.method, True)):
        return found
    if call.method in ("GET", "HEAD"):
        if not key:
            return "list-uploads" if "uploads" in query else "unknown"
        return "list-parts" if "uploadId" in query else "get"
    return "unknown"


def _place(call: Call) -> tuple[str, str]:
    bucket, _, name = call.path.removeprefix("/").partition("/")
    return bucket, unquote(name)


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "")
    return int(text) if text.isdecimal() else default


def _xml(status: int, root: str, inner: str) -> Reply:
    text = f"<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='{_NAMESPACE}'>{inner}</{root}>"
    return Reply(status, {"Content-Type": "application/xml; charset=UTF-8"}, text.encode())
