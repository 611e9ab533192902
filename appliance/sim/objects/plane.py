"""ObjectPlane: the XML API that Cloud Storage and S3 share, as far as multipart uploads and ranged reads need it.

Rules from "XML API multipart uploads" of Cloud Storage and "Multipart upload limits" of S3, which are the same: parts
of 5 MiB or more but the last, numbers 1 to 10,000, ascending in the completion, an ETag for each. Who may, which
checksum and which headers is a service's own.
"""

import re
import uuid
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import unquote
from xml.sax.saxutils import escape

import google_crc32c

from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.objects.records import Object, Part, Upload
from appliance.sim.objects.shelf import Shelf, encoded_crc
from appliance.sim.stats import Stats

PART_MIN = 5 * 1024 * 1024
PARTS_MOST = 10_000
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")
_XML = "application/xml; charset=UTF-8"

Handler = Callable[[Call, list[bytes]], Reply]


class ObjectPlane(ABC):
    """Objects by path: `/BUCKET/OBJECT`."""

    service: ClassVar[str]
    meta: ClassVar[str]
    """What metadata headers begin with."""

    def __init__(self, shelf: Shelf, stats: Stats) -> None:
        self._shelf = shelf
        self._stats = stats
        self._handlers: dict[str, Handler] = {
            "initiate": self._initiate,
            "put-part": self._put_part,
            "list-parts": self._list_parts,
            "complete": self._complete,
            "abort": self._abort,
            "list-uploads": self._list_uploads,
            "get": self._get,
            "head": self._get,
            **self._more(),
        }

    # --- of the service -----------------------------------------------------------------------------------

    def _more(self) -> dict[str, Handler]:
        """Return handlers of further operations."""
        return {}

    @abstractmethod
    def _check(self, call: Call, body: bytes) -> None:
        """Verify who asks; raises Refusal."""

    @abstractmethod
    def _allow(self, what: str, name: str) -> None:
        """Raise Refusal unless the caller may do an operation ("initiate") on an object."""

    @abstractmethod
    def _check_sum(self, call: Call, crc: str) -> None:
        """Raise Refusal if the caller sent another CRC-32C than that of its part."""

    @abstractmethod
    def _sum_headers(self, crc: str) -> dict[str, str]:
        """Return how the service tells a CRC-32C."""

    @abstractmethod
    def _object_headers(self, call: Call, found: Object) -> dict[str, str]:
        """Return the headers that describe an object; raises Refusal if the caller wants another version."""

    @abstractmethod
    def _begun(self, call: Call) -> None:
        """Raise Refusal if an upload cannot be begun like that."""

    # --- requests -----------------------------------------------------------------------------------------

    def operation(self, call: Call) -> str:
        """Name the operation: gcs.* or s3.*."""
        return f"{self.service}.{self._name(call)}"

    async def answer(self, call: Call) -> Reply:
        """Do it."""
        chunks = await call.body.read()
        self._check(call, b"" if self._name(call) == "put-part" else b"".join(chunks))
        handler = self._handlers.get(self._name(call))
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
        headers = {"Content-Type": _XML, **refusal.headers}
        return Reply(refusal.status, headers, text.encode())

    def _name(self, call: Call) -> str:
        query, key = call.query, bool(place_of(call)[1])
        names = {
            ("POST", "uploads" in query and key): "initiate",
            ("PUT", "partNumber" in query and "uploadId" in query): "put-part",
            ("POST", "uploadId" in query): "complete",
            ("DELETE", "uploadId" in query): "abort",
        }
        if found := names.get((call.method, True)):
            return found
        if call.method == "HEAD" and key:
            return "head"
        if call.method == "GET" and key:
            return "list-parts" if "uploadId" in query else "get"
        if call.method == "GET" and "uploads" in query:
            return "list-uploads"
        return "unknown"

    # --- uploads ------------------------------------------------------------------------------------------

    def _initiate(self, call: Call, _chunks: list[bytes]) -> Reply:
        bucket, name = place_of(call)
        self._allow("initiate", name)
        self._shelf.bucket(bucket)
        if not 0 < len(name.encode()) <= 1024:
            raise Refusal(400, "InvalidObjectName", f"{len(name.encode())} bytes")
        metadata = {
            key.lower().removeprefix(self.meta): value
            for key, value in call.headers.items()
            if key.lower().startswith(self.meta)
        }
        self._begun(call)
        upload_id = uuid.uuid4().hex
        kind = call.header("Content-Type") or "application/octet-stream"
        self._shelf.state.uploads[upload_id] = Upload(bucket, name, call.now, kind, metadata)
        self._shelf.save()
        inner = (
            f"<Bucket>{bucket}</Bucket><Key>{escape(name)}</Key><UploadId>{upload_id}</UploadId>"
        )
        return xml_reply(200, "InitiateMultipartUploadResult", inner)

    def _put_part(self, call: Call, chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._allow("put-part", upload.name)
        number = _number(call, "partNumber", 0)
        if not 1 <= number <= PARTS_MOST:
            raise Refusal(400, "InvalidArgument", f"partNumber {number}: 1 to {PARTS_MOST}.")
        data = b"".join(chunks)
        self._stats.bytes_received += len(data)
        if call.length != len(data):
            raise Refusal(400, "IncompleteBody", f"{len(data)} bytes of {call.length}")
        crc = encoded_crc(int(google_crc32c.value(data)))
        self._check_sum(call, crc)
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
        return Reply(200, {"ETag": part.etag, **self._sum_headers(crc)})

    def _list_parts(self, call: Call, _chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._allow("list-parts", upload.name)
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
        return xml_reply(200, "ListPartsResult", inner)

    def _complete(self, call: Call, chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._allow("complete", upload.name)
        parts = _wanted_parts(b"".join(chunks), upload)
        made = self._shelf.complete(upload, parts, call.now)
        left = [part for part in upload.parts.values() if part not in parts]
        del self._shelf.state.uploads[call.query["uploadId"]]
        self._shelf.save()
        for part in left:
            self._shelf.forget(part)
        inner = f"<Bucket>{made.bucket}</Bucket><Key>{escape(made.name)}</Key><ETag>&quot;x&quot;</ETag>"
        reply = xml_reply(200, "CompleteMultipartUploadResult", inner)
        reply.headers |= self._object_headers(call, made)
        reply.headers["Content-Type"] = _XML
        return reply

    def _abort(self, call: Call, _chunks: list[bytes]) -> Reply:
        upload = self._upload(call)
        self._allow("abort", upload.name)
        del self._shelf.state.uploads[call.query["uploadId"]]
        self._shelf.save()
        for part in upload.parts.values():
            self._shelf.forget(part)
        return Reply(204)

    def _list_uploads(self, call: Call, _chunks: list[bytes]) -> Reply:
        bucket, _ = place_of(call)
        self._shelf.bucket(bucket)
        self._allow("list-uploads", bucket)
        prefix = call.query.get("prefix", "")
        inner = "".join(
            f"<Upload><Key>{escape(upload.name)}</Key><UploadId>{upload_id}</UploadId></Upload>"
            for upload_id, upload in self._shelf.state.uploads.items()
            if upload.bucket == bucket and upload.name.startswith(prefix)
        )
        inner += "<IsTruncated>false</IsTruncated>"
        return xml_reply(200, "ListMultipartUploadsResult", inner)

    def _upload(self, call: Call) -> Upload:
        bucket, name = place_of(call)
        self._shelf.bucket(bucket)
        found = self._shelf.state.uploads.get(call.query.get("uploadId", ""))
        if found is None or (found.bucket, found.name) != (bucket, name):
            raise Refusal(404, "NoSuchUpload", "The requested upload was not found.")
        return found

    # --- objects ------------------------------------------------------------------------------------------

    def _get(self, call: Call, _chunks: list[bytes]) -> Reply:
        found = self._shelf.find(*place_of(call))
        self._allow("get", found.name)
        headers = {
            "Content-Type": found.content_type,
            "ETag": found.etag,
            **self._object_headers(call, found),
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
        if call.method == "HEAD":
            return Reply(status, {**headers, "Content-Length": str(length)})
        self._stats.bytes_read += length
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


def place_of(call: Call) -> tuple[str, str]:
    """Return bucket and object."""
    bucket, _, name = call.path.removeprefix("/").partition("/")
    return bucket, unquote(name)


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "")
    return int(text) if text.isdecimal() else default


def xml_reply(status: int, root: str, inner: str) -> Reply:
    """Return an XML document."""
    text = f"<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='{_NAMESPACE}'>{inner}</{root}>"
    return Reply(status, {"Content-Type": _XML}, text.encode())
