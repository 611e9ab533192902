"""Page operations of the Blob service: Put Page, Clear Pages, Get Page Ranges, Get Blob, properties.

Used by the storage account's plane and by the managed disk's plane; each adds its own routes and refusals.
"""

import hashlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator
from email.utils import formatdate

from appliance.sim.azure.conditions import (
    PAGE,
    byte_range,
    check_conditions,
    invalid_header,
    page_range,
    whole_number,
    window,
)
from appliance.sim.azure.state import BlobRecord
from appliance.sim.azure.vault import PageBlob
from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.crc64 import crc64_header
from appliance.sim.stats import Stats

MAX_PAGE_WRITE = 4 << 20
MAX_BLOB = 8 << 40
"""Largest page blob of a storage account: 8 TiB."""

MAX_RANGES = 10_000
"""Most entries of one Get Page Ranges answer, and what it gives when not asked for fewer."""

MAX_HASHED_READ = 4 << 20

STREAM_ABOVE = 8 << 20
"""Larger answers are read and sent piece by piece."""


def missing_header(name: str) -> Refusal:
    """Make the 400 for a header that the operation needs."""
    return Refusal(
        400,
        "MissingRequiredHeader",
        "An HTTP header that's mandatory for this request is not specified.",
        detail=name,
    )


def write_operation(call: Call) -> str:
    """Name a comp=page request."""
    return "clear-page" if call.header("x-ms-page-write").lower() == "clear" else "put-page"


async def put_page(call: Call, blob: PageBlob, stats: Stats) -> Reply:
    """Write or clear pages."""
    kind = call.header("x-ms-page-write").lower()
    if not kind:
        raise missing_header("x-ms-page-write")
    if kind not in ("update", "clear"):
        raise invalid_header("x-ms-page-write", kind, "update or clear")
    if "x-ms-structured-body" in call.headers:
        raise Refusal(501, "FeatureNotSupported", "Structured message bodies are not simulated.")
    if call.length is None:
        raise Refusal(
            411, "MissingContentLengthHeader", "The Content-Length header was not specified."
        )
    offset, length = page_range(call, blob.size)
    if kind == "clear":
        return _clear(call, blob, offset, length)
    return await _update(call, blob, offset, length, stats)


def _clear(call: Call, blob: PageBlob, offset: int, length: int) -> Reply:
    if call.length:
        raise invalid_header("Content-Length", str(call.length), "a clear has no body")
    _check(call, blob)
    blob.file.clear(offset, length)
    blob.record.modified = call.now
    return Reply(201, written(blob))


async def _update(call: Call, blob: PageBlob, offset: int, length: int, stats: Stats) -> Reply:
    if length > MAX_PAGE_WRITE or (call.length or 0) > MAX_PAGE_WRITE:
        raise Refusal(
            413,
            "RequestBodyTooLarge",
            "The request body is too large and exceeds the maximum permissible limit.",
            detail=f"MaxLimit {MAX_PAGE_WRITE}",
        )
    if call.length != length:
        raise Refusal(
            416,
            "InvalidPageRange",
            "The page range specified is invalid.",
            detail=f"range of {length} bytes, body of {call.length}",
        )
    chunks = await call.body.read()
    stats.bytes_received += length
    checksum = verify_checksum(call, chunks)
    _check(call, blob)
    if "lose-write" in call.marks:
        blob.file.mark(offset, length)
    else:
        blob.file.write(offset, chunks)
    if "flip-stored" in call.marks:
        blob.file.flip(offset + length // 2)
    blob.record.modified = call.now
    stats.bytes_stored += length
    return Reply(201, written(blob) | checksum)


def copy_headers(record: BlobRecord, now: float) -> dict[str, str]:
    """Return the x-ms-copy- headers of a blob that was made by a server-side copy."""
    if record.copy is None:
        return {}
    pending = now < record.copy.due
    headers = {
        "x-ms-copy-id": record.copy.copy_id,
        "x-ms-copy-source": record.copy.source,
        "x-ms-copy-status": "pending" if pending else "success",
        "x-ms-copy-progress": f"{0 if pending else record.size}/{record.size}",
    }
    if not pending:
        headers["x-ms-copy-completion-time"] = formatdate(record.copy.due, usegmt=True)
    return headers


def check_not_copying(call: Call, blob: PageBlob) -> None:
    """Raise 409 while the blob is the destination of a copy."""
    if blob.record.copy is not None and call.now < blob.record.copy.due:
        raise Refusal(409, "PendingCopyOperation", "There is currently a pending copy operation.")


def _check(call: Call, blob: PageBlob) -> None:
    """Decide on a write at the last moment: while the body came, the blob may have changed or gone."""
    if blob.file.closed:
        raise Refusal(404, "BlobNotFound", "The specified blob does not exist.")
    check_not_copying(call, blob)
    check_conditions(
        call, etag=blob.etag, modified=blob.record.modified, sequence=blob.record.sequence
    )


def verify_checksum(call: Call, chunks: list[bytes]) -> dict[str, str]:
    """Compare the body with Content-MD5 or x-ms-content-crc64; return the header that answers it.

    Raises:
        Refusal: 400 Md5Mismatch, Crc64Mismatch, InvalidMd5, InvalidHeaderValue.
    """
    md5, crc = call.header("Content-MD5"), call.header("x-ms-content-crc64")
    if md5 and crc:
        raise invalid_header("x-ms-content-crc64", crc, "only one of Content-MD5 and this one")
    if md5:
        _decode(md5, 16, "InvalidMd5", "The MD5 value specified in the request is invalid.")
        found = _md5(chunks)
        if found != md5:
            raise _mismatch("Md5Mismatch", "MD5", md5, found)
        return {"Content-MD5": found}
    if crc:
        _decode(
            crc, 8, "InvalidHeaderValue", "The CRC64 value specified in the request is invalid."
        )
        found = crc64_header(chunks)
        if found != crc:
            raise _mismatch("Crc64Mismatch", "CRC64", crc, found)
        return {"x-ms-content-crc64": found}
    return {}


def _md5(chunks: list[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return b64encode(digest.digest()).decode()


def _decode(text: str, length: int, code: str, message: str) -> None:
    try:
        raw = b64decode(text, validate=True)
    except Base64Error as err:
        raise Refusal(400, code, message) from err
    if len(raw) != length:
        raise Refusal(400, code, message)


def _mismatch(code: str, name: str, sent: str, found: str) -> Refusal:
    return Refusal(
        400,
        code,
        f"The {name} value specified in the request did not match with the {name} value calculated by the server.",
        detail=f"UserSpecified {sent}, ServerCalculated {found}",
    )


def written(blob: PageBlob) -> dict[str, str]:
    """Return the headers of an answer to a write."""
    return versions(blob) | {
        "x-ms-blob-sequence-number": str(blob.record.sequence),
        "x-ms-request-server-encrypted": "true",
    }


def versions(blob: PageBlob) -> dict[str, str]:
    """Return ETag and Last-Modified."""
    return {"ETag": blob.etag, "Last-Modified": formatdate(blob.record.modified, usegmt=True)}


def properties(blob: PageBlob) -> dict[str, str]:
    """Return the headers that describe the blob, the same for Get Blob and Get Blob Properties."""
    record = blob.record
    found = versions(blob) | {
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "x-ms-blob-type": "PageBlob",
        "x-ms-blob-sequence-number": str(record.sequence),
        "x-ms-creation-time": formatdate(record.created, usegmt=True),
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
        "x-ms-server-encrypted": "true",
    }
    found |= record.content
    return found | {f"x-ms-meta-{name}": value for name, value in record.metadata.items()}


def head(call: Call, blob: PageBlob) -> Reply:
    """Answer Get Blob Properties; the length in the header is the blob's."""
    _check_read(call, blob)
    length = {"Content-Length": str(blob.size)}
    return Reply(200, properties(blob) | copy_headers(blob.record, call.now) | length)


def _check_read(call: Call, blob: PageBlob) -> None:
    check_conditions(call, etag=blob.etag, modified=blob.record.modified)


def get(call: Call, blob: PageBlob, stats: Stats) -> Reply:
    """Answer Get Blob, whole or a range."""
    _check_read(call, blob)
    ranged = byte_range(call) is not None
    offset, length = window(call, blob.size)
    wants_hash = _wants_hash(call, length if ranged else None)
    stats.bytes_read += length
    headers = properties(blob)
    if length > STREAM_ABOVE:
        reply = Reply(206 if ranged else 200, headers)
        reply.stream, reply.stream_length = _pieces(blob, offset, length), length
    else:
        reply = Reply(206 if ranged else 200, headers, blob.file.read(offset, length))
    if ranged:
        headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{blob.size}"
        whole_md5 = headers.pop("Content-MD5", "")
        if whole_md5:
            headers["x-ms-blob-content-md5"] = whole_md5
    if wants_hash == "md5":
        headers["Content-MD5"] = _md5([reply.body])
    elif wants_hash == "crc64":
        headers["x-ms-content-crc64"] = crc64_header([reply.body])
    return reply


def _pieces(blob: PageBlob, offset: int, length: int) -> Iterator[bytes]:
    end = offset + length
    for start in range(offset, end, MAX_HASHED_READ):
        if blob.file.closed:
            raise ConnectionResetError("the blob was deleted while it was read")
        yield blob.file.read(start, min(MAX_HASHED_READ, end - start))


def _wants_hash(call: Call, length: int | None) -> str:
    """Return md5, crc64 or "" for a read of `length` bytes (None: no range)."""
    for kind in ("md5", "crc64"):
        name = f"x-ms-range-get-content-{kind}"
        if call.header(name).lower() != "true":
            continue
        if length is None or length > MAX_HASHED_READ:
            raise invalid_header(name, "true", f"needs a range of at most {MAX_HASHED_READ} bytes")
        return kind
    return ""


def page_ranges(call: Call, blob: PageBlob) -> Reply:
    """Answer Get Page Ranges, `maxresults` entries at a time; the marker is the next offset."""
    if "prevsnapshot" in call.query or "x-ms-previous-snapshot-url" in call.headers:
        raise Refusal(501, "FeatureNotSupported", "Page range differences are not simulated.")
    _check_read(call, blob)
    offset, length = window(call, blob.size)
    most, start = _limit(call), _marker(call, offset, offset + length)
    entries: list[str] = []
    next_marker = ""
    for found, size in blob.file.pages.within(start, offset + length - start):
        if len(entries) == most:
            next_marker = str(found)
            break
        entries.append(
            f"<PageRange><Start>{found}</Start><End>{found + size - 1}</End></PageRange>"
        )
    body = (
        f"{''.join(entries)}<NextMarker>{next_marker}</NextMarker>"
        if next_marker
        else "".join(entries)
    )
    headers = versions(blob) | {
        "Content-Type": "application/xml",
        "x-ms-blob-content-length": str(blob.size),
    }
    return Reply(200, headers, xml(f"<PageList>{body}</PageList>"))


def _limit(call: Call) -> int:
    number = whole_number(call.query.get("maxresults", str(MAX_RANGES)))
    if not number:
        raise Refusal(
            400,
            "OutOfRangeQueryParameterValue",
            "One of the query parameters specified in the request URI is outside the permissible range.",
        )
    return min(number, MAX_RANGES)


def _marker(call: Call, first: int, end: int) -> int:
    text = call.query.get("marker", "")
    if not text:
        return first
    number = whole_number(text)
    if number is None or not first <= number <= end:
        raise Refusal(
            400,
            "InvalidQueryParameterValue",
            "Value for one of the query parameters specified in the request URI is invalid.",
            detail="marker",
        )
    return number


def xml(text: str) -> bytes:
    """Return a document as the service sends it."""
    return f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()


def check_size(text: str) -> int:
    """Return a page blob's length from x-ms-blob-content-length."""
    name = "x-ms-blob-content-length"
    if not text:
        raise missing_header(name)
    size = whole_number(text)
    if size is None or size % PAGE or size > MAX_BLOB:
        raise invalid_header(name, text, f"a multiple of {PAGE}, at most {MAX_BLOB}")
    return size
