"""S3Plane: buckets and objects of S3 by path, as strict as its reference says; errors in XML.

"Checking object integrity" of the S3 user guide: a part's CRC-32C is checked where it is sent, and an upload that was
begun with the type FULL_OBJECT gets that of the whole. HEAD answers have no body, so they say no code.
"""

import uuid
from typing import ClassVar
from xml.sax.saxutils import escape

from appliance.sim.aws.access import Access
from appliance.sim.call import Call, Refusal, Reply
from appliance.sim.objects.plane import Handler, ObjectPlane, place_of, xml_reply
from appliance.sim.objects.records import Object
from appliance.sim.objects.shelf import Shelf, encoded_crc
from appliance.sim.stats import Stats

CRC = "x-amz-checksum-crc32c"
_ACTIONS = {
    "initiate": "s3:PutObject",
    "put-part": "s3:PutObject",
    "complete": "s3:PutObject",
    "list-parts": "s3:ListMultipartUploadParts",
    "list-uploads": "s3:ListBucketMultipartUploads",
    "abort": "s3:AbortMultipartUpload",
    "get": "s3:GetObject",
    "delete": "s3:DeleteObject",
    "list": "s3:ListBucket",
}
_CODES = {"UnauthorizedOperation": "AccessDenied", "InvalidClientTokenId": "InvalidAccessKeyId"}
_PAGE = 1000


class S3Plane(ObjectPlane):
    """Objects by path: `/BUCKET/KEY`."""

    service: ClassVar[str] = "s3"
    meta: ClassVar[str] = "x-amz-meta-"

    def __init__(self, shelf: Shelf, access: Access, stats: Stats) -> None:
        super().__init__(shelf, stats)
        self._access = access

    def refuse(self, call: Call, refusal: Refusal) -> Reply:
        """Put a refusal into XML."""
        code = _CODES.get(refusal.code, refusal.code)
        text = (
            f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{escape(code)}</Code>"
            f"<Message>{escape(refusal.message)}</Message><RequestId>{uuid.uuid4()}</RequestId></Error>"
        )
        body = b"" if call.method == "HEAD" else text.encode()
        return Reply(refusal.status, {"Content-Type": "application/xml", **refusal.headers}, body)

    def _more(self) -> dict[str, Handler]:
        return {"delete": self._delete, "list": self._list}

    def _name(self, call: Call) -> str:
        named = super()._name(call)
        if named != "unknown":
            return named
        _, key = place_of(call)
        if call.method == "DELETE" and key:
            return "delete"
        return "list" if call.method == "GET" and call.query.get("list-type") == "2" else "unknown"

    def _check(self, call: Call, body: bytes) -> None:
        if not call.header("X-Amz-Content-SHA256"):
            raise Refusal(400, "MissingSecurityHeader", "x-amz-content-sha256 is missing.")
        self._access.check(call, body, "s3")

    def _allow(self, what: str, name: str) -> None:  # noqa: ARG002 - policies are per account here
        self._access.allow(_ACTIONS[what])

    def _begun(self, call: Call) -> None:
        algorithm = call.header("x-amz-checksum-algorithm")
        kind = call.header("x-amz-checksum-type")
        if (algorithm, kind) not in (("", ""), ("CRC32C", "FULL_OBJECT")):
            message = f"Checksum algorithm {algorithm!r} of type {kind!r} is not simulated."
            raise Refusal(400, "InvalidRequest", message)

    def _check_sum(self, call: Call, crc: str) -> None:
        told = call.header(CRC)
        if told and told != crc:
            message = "The CRC32C you specified did not match the calculated checksum."
            raise Refusal(400, "BadDigest", message)

    def _sum_headers(self, crc: str) -> dict[str, str]:
        return {CRC: crc}

    def _object_headers(self, call: Call, found: Object) -> dict[str, str]:
        headers = {f"{self.meta}{name}": value for name, value in found.metadata.items()}
        if call.header("x-amz-checksum-mode") == "ENABLED":
            headers |= {CRC: encoded_crc(found.crc32c), "x-amz-checksum-type": "FULL_OBJECT"}
        return headers

    def _delete(self, call: Call, _chunks: list[bytes]) -> Reply:
        self._allow("delete", "")
        bucket, key = place_of(call)
        self._shelf.bucket(bucket)
        found = self._shelf.state.objects.get(f"{bucket}/{key}")
        if found is not None:
            self._shelf.delete(found)
        return Reply(204)

    def _list(self, call: Call, _chunks: list[bytes]) -> Reply:
        self._allow("list", "")
        bucket, _ = place_of(call)
        self._shelf.bucket(bucket)
        start = f"{bucket}/{call.query.get('prefix', '')}"
        found = [o for key, o in sorted(self._shelf.state.objects.items()) if key.startswith(start)]
        text = call.query.get("max-keys", "")
        most = min(_PAGE, int(text)) if text.isdecimal() else _PAGE
        inner = "".join(
            f"<Contents><Key>{escape(one.name)}</Key><ETag>{escape(one.etag)}</ETag>"
            f"<Size>{one.size}</Size></Contents>"
            for one in found[:most]
        )
        more = "true" if len(found) > most else "false"
        inner += f"<KeyCount>{min(len(found), most)}</KeyCount><IsTruncated>{more}</IsTruncated>"
        return xml_reply(200, "ListBucketResult", inner)
