"""The XML multipart upload that Cloud Storage and S3 share: begin, parts from worker threads, list, complete, abort.

"XML API multipart uploads" of Cloud Storage; "Multipart upload" of S3. What differs, who may and which checksum, is a
`Bucket`'s. A refused credential is renewed once and the request sent again; every other failure goes up by class.
"""

import base64
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote
from xml.sax.saxutils import escape

import aiohttp
from yarl import URL

from agent.errors import AgentError
from agent.targets.errors import ChecksumRefused, CredentialRefused, TargetUnavailable
from agent.targets.http.failures import CONNECTION_ERRORS, connection_failure
from agent.targets.http.sender import SEND_ERRORS, Sender, StopFlag
from agent.threads import Pool, Stop, run_blocking
from imaging.units import MiB, round_up

MAX_PARTS = 10_000
MIN_PART = 5 * MiB
_PART = 8 * MiB
_GROWS_EVERY, _GROWTHS = 2000, 3
"""Parts of one size, and how often they double: small archives cost little memory."""
_ALL_PARTS = _GROWS_EVERY * (1 + 2 + 4 + 8 * 2)
"""What 10,000 of them hold, in parts of the first size: 8 MiB are good for 359 GiB."""
_MAX_XML = 16 * MiB
_OK = (200, 201, 204, 206)


class Bucket(Protocol):
    """Where objects are, and how a request proves that it may touch them."""

    @property
    def url(self) -> str:
        """Of the bucket, without a slash at its end."""
        ...

    def authorize(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the headers to send. Blocking, from any thread but the loop's."""
        ...

    def refused(self) -> None:
        """Forget the credential of the last `authorize`; raises if there is no other. Blocking."""
        ...

    def failure(
        self, status: int, code: str, message: str, headers: Mapping[str, str], what: str
    ) -> AgentError:
        """Return the error of a refusal."""
        ...

    def checksum_headers(self, data: bytes) -> dict[str, str]:
        """Return what the service checks a part with."""
        ...

    def checksum_differs(self, sent: Mapping[str, str], answered: Mapping[str, str]) -> bool:
        """Whether the service says that it took other bytes than were sent."""
        ...


@dataclass(slots=True)
class Multipart:
    """The multipart uploads of one bucket.

    Attributes:
        bucket: Which.
        session: For all calls but parts; owned by the target.
        sender: For parts; owned by the target.
    """

    bucket: Bucket
    session: aiohttp.ClientSession
    sender: Sender
    _pool: Pool = field(default_factory=lambda: Pool("multipart", 2))

    # --- from worker threads ------------------------------------------------------------------------------

    def put_part(self, key: str, upload: str, number: int, data: bytes, stop: Stop) -> str:
        """Send one part and return its ETag; only when the service acknowledged the very bytes. Blocking."""
        try:
            return self._put_once(key, upload, number, data, stop)
        except CredentialRefused:
            self.bucket.refused()
            return self._put_once(key, upload, number, data, stop)

    def _put_once(self, key: str, upload: str, number: int, data: bytes, stop: Stop) -> str:
        what = f"write part {number} ({len(data)} bytes) of {key}"
        query = {"partNumber": str(number), "uploadId": upload}
        sums = self.bucket.checksum_headers(data)
        headers = self.bucket.authorize("PUT", _path(key), query, sums)
        flag = StopFlag()
        try:
            with stop.waking(flag.set):
                answer = self.sender.put(
                    self._url(key, query), headers, memoryview(data), stop=flag
                )
        except SEND_ERRORS as err:
            raise connection_failure(err, what=what) from err
        if answer.status not in _OK:
            raise self._refusal(answer.status, answer.headers, answer.body, what)
        etag = answer.headers.get("etag", "")
        if not etag:
            msg = f"{what}: the answer holds no ETag"
            raise TargetUnavailable(msg)
        if self.bucket.checksum_differs(sums, answer.headers):
            msg = f"{what}: the service took other bytes than were sent"
            raise ChecksumRefused(msg)
        return etag

    # --- on the loop --------------------------------------------------------------------------------------

    async def begin(self, key: str, headers: Mapping[str, str]) -> str:
        """Begin an upload and return its id."""
        what = f"begin the upload of {key}"
        document, _ = await self._xml("POST", key, {"uploads": ""}, what, headers=headers)
        upload = _text(document, "UploadId")
        if not upload:
            msg = f"{what}: the answer holds no UploadId"
            raise TargetUnavailable(msg)
        return upload

    async def parts(self, key: str, upload: str) -> dict[int, tuple[str, int]]:
        """Return part number -> (ETag, bytes) of what the service holds."""
        what, marker = f"list the parts of {key}", ""
        found: dict[int, tuple[str, int]] = {}
        while True:
            query = {"uploadId": upload} | ({"part-number-marker": marker} if marker else {})
            document, _ = await self._xml("GET", key, query, what)
            for part in document.iter():
                if _local(part) == "Part":
                    number, size = _text(part, "PartNumber"), _text(part, "Size")
                    if not (number.isdecimal() and size.isdecimal()):
                        msg = f"{what}: a part without numbers"
                        raise TargetUnavailable(msg)
                    found[int(number)] = (_text(part, "ETag"), int(size))
            after = _text(document, "NextPartNumberMarker")
            if _text(document, "IsTruncated") != "true" or not after or after == marker:
                return found
            marker = after

    async def complete(
        self, key: str, upload: str, parts: list[tuple[int, str]]
    ) -> Mapping[str, str]:
        """Make the object of its parts, ascending; return the answer's headers in lower case."""
        what = f"complete the upload of {key}"
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        document, headers = await self._xml("POST", key, {"uploadId": upload}, what, body=body)
        if _local(document) == "Error":  # S3 answers 200 before it knows
            code, message = _text(document, "Code"), _text(document, "Message")
            raise self.bucket.failure(500, code, message, headers, what)
        return headers

    async def abort(self, key: str, upload: str) -> None:
        """Give an upload and its parts up."""
        await self._call("DELETE", key, {"uploadId": upload}, f"give up the upload of {key}")

    async def uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Return (key, upload id) of every upload under way whose key begins so."""
        what = f"list the uploads of {prefix}"
        document, _ = await self._xml("GET", "", {"uploads": "", "prefix": prefix}, what)
        return [
            (_text(one, "Key"), _text(one, "UploadId"))
            for one in document.iter()
            if _local(one) == "Upload"
        ]

    async def read(self, key: str, offset: int, length: int, query: Mapping[str, str]) -> bytes:
        """Return a range of an object; a short answer is an error."""
        what = f"read {length} bytes at byte {offset} of {key}"
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        body, _ = await self._call("GET", key, query, what, headers=headers, most=length)
        if len(body) != length:
            msg = f"{what}: {len(body)} bytes came"
            raise TargetUnavailable(msg)
        return body

    async def _xml(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[ET.Element, Mapping[str, str]]:
        text, told = await self._call(method, key, query, what, headers=headers, body=body)
        try:
            return ET.fromstring(text), told  # noqa: S314 - bounded, over TLS, no entities in expat's default
        except ET.ParseError as err:
            msg = f"{what}: the answer is no XML"
            raise TargetUnavailable(msg) from err

    async def _call(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        most: int = _MAX_XML,
    ) -> tuple[bytes, Mapping[str, str]]:
        async def once() -> tuple[bytes, Mapping[str, str]]:
            signed = await run_blocking(
                self._pool, lambda: self.bucket.authorize(method, _path(key), query, headers or {})
            )
            return await self._once(
                method, self._url(key, query), signed, what=what, body=body, most=most
            )

        try:
            return await once()
        except CredentialRefused:
            await run_blocking(self._pool, self.bucket.refused)
        return await once()

    async def _once(
        self, method: str, url: str, headers: dict[str, str], *, what: str, body: bytes, most: int
    ) -> tuple[bytes, Mapping[str, str]]:
        try:
            async with self.session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
            ) as response:
                taken = bytearray()
                async for piece in response.content.iter_any():
                    taken += piece
                    if len(taken) > most:
                        msg = f"{what}: an answer of more than {most} bytes"
                        raise TargetUnavailable(msg)
        except CONNECTION_ERRORS as err:
            raise connection_failure(err, what=what) from err
        told = {name.lower(): value for name, value in response.headers.items()}
        if response.status not in _OK:
            raise self._refusal(response.status, told, bytes(taken), what)
        return bytes(taken), told

    def _url(self, key: str, query: Mapping[str, str]) -> str:
        text = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in sorted(query.items())
        )
        return self.bucket.url + _path(key) + (f"?{text}" if text else "")

    def _refusal(
        self, status: int, headers: Mapping[str, str], body: bytes, what: str
    ) -> AgentError:
        code = message = ""
        text = body.decode("utf-8", "replace").lstrip("\ufeff")
        if text.startswith("<"):
            try:
                document = ET.fromstring(text)  # noqa: S314 - bounded by the reader
                code, message = _text(document, "Code"), _text(document, "Message")
            except ET.ParseError:
                code = ""
        return self.bucket.failure(status, code, message.split("\n")[0], headers, what)


def part_size(number: int, disk_size: int) -> int:
    """Return the least bytes of a part: they grow with the archive, and 10,000 hold a disk that does not compress."""
    room = disk_size + disk_size // 64  # of what grows a little, and the format's own
    first = max(_PART, round_up(-(-room // _ALL_PARTS), MiB))
    return first << min(_GROWTHS, (number - 1) // _GROWS_EVERY)


def encoded_crc(value: int) -> str:
    """Return a CRC-32C as the services write it."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def _path(key: str) -> str:
    return "/" + quote(key, safe="/-_.~") if key else "/"


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ET.Element, name: str) -> str:
    return next((one.text or "" for one in element if _local(one) == name), "")
