"""The page wire: Put Page, Get Page Ranges and Get Blob over raw REST, for page blobs and for disks behind a SAS.

Limits by the service ("Put Page" REST reference): 4 MiB a write, 512-byte pages. A refused credential is renewed once
by the authorizer and the request sent again; every other failure goes to the caller by class.
"""

import base64
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from yarl import URL

from agent.bounded import read_up_to
from agent.errors import AgentError
from agent.targets.azure.authorizer import Authorizer, BlockingAuthorizer, Grant
from agent.targets.azure.failures import failure
from agent.targets.base import Checksum
from agent.targets.errors import CredentialRefused, TargetRefused, TargetUnavailable
from agent.targets.http.failures import CONNECTION_ERRORS, connection_failure
from agent.targets.http.sender import SEND_ERRORS, Sender, StopFlag
from agent.threads import Pool, Stop, run_blocking
from imaging.extent import Extent, Kind
from imaging.units import MiB

API_VERSION = "2021-12-02"
CREATED = 201
_MAX_XML = 16 * MiB
_MAX_ERROR = 64 * 1024
_NO_CHECKSUM = frozenset(
    {"FeatureNotSupported", "UnsupportedHeader", "InvalidHeaderValue", "NotImplemented"}
)


@dataclass(slots=True)
class PageWire:
    """The data plane of one blob.

    Attributes:
        session: For reads; owned by the target.
        sender: For writes; owned by the target.
        authorizer: For reads.
        blocking: The same for writes.
        name: How messages call the blob.
        crc64: Computes the checksum of a write; None: none is wanted, or it cannot be computed here.
        checksums: None until the first checked write was answered, then whether the service takes checksums.
    """

    session: aiohttp.ClientSession
    sender: Sender
    authorizer: Authorizer
    blocking: BlockingAuthorizer
    name: str
    crc64: Checksum | None = None
    checksums: bool | None = None

    @property
    def checksum(self) -> Checksum | None:
        """What computes the checksum that `put` takes; None once the service refused it."""
        return None if self.checksums is False else self.crc64

    @property
    def checksum_name(self) -> str:
        """Which checksum the service verified with every write."""
        return "crc64" if self.checksums else "none"

    async def put_footer(self, at: int, footer: bytes) -> None:
        """Write what makes a fixed VHD of the bytes before it."""
        data, stop, pool = memoryview(footer), Stop(), Pool("footer", 1)
        checksum = self.checksum(data, b"") if self.checksum else None
        try:
            await run_blocking(pool, lambda: self.put(at, data, checksum, stop), stop=stop)
        finally:
            pool.close()

    def put(self, offset: int, data: memoryview, checksum: str | None, stop: Stop) -> None:
        """Write pages; returns when the service has acknowledged them. Blocking, from any thread but the loop's."""
        what = f"write {len(data)} bytes at byte {offset} of {self.name}"
        headers = {
            "x-ms-page-write": "update",
            "x-ms-range": f"bytes={offset}-{offset + len(data) - 1}",
        }
        if checksum is not None and self.checksums is not False:
            headers["x-ms-content-crc64"] = checksum
        try:
            self._put(headers, data, what, stop)
        except TargetRefused as err:
            self._no_checksums(err, headers)
            raise TargetUnavailable(str(err), retry_after=0.0) from err
        except TargetUnavailable as err:
            self._no_checksums(err, headers, quiet=True)
            raise
        if "x-ms-content-crc64" in headers:
            self.checksums = True

    def _put(self, headers: dict[str, str], data: memoryview, what: str, stop: Stop) -> None:
        grant = self.blocking.grant(stop)
        try:
            self._put_once(grant, headers, data, what, stop)
        except CredentialRefused as err:
            self.blocking.refused(grant, err, stop)
            self._put_once(self.blocking.grant(stop), headers, data, what, stop)

    def _put_once(
        self, grant: Grant, headers: dict[str, str], data: memoryview, what: str, stop: Stop
    ) -> None:
        url = grant.url + ("&" if "?" in grant.url else "?") + "comp=page"
        full = {"x-ms-version": API_VERSION, **headers, **grant.headers}
        flag = StopFlag()
        try:
            with stop.waking(flag.set):
                answer = self.sender.put(url, full, data, stop=flag)
        except SEND_ERRORS as err:
            raise connection_failure(err, what=what) from err
        if answer.status != CREATED:
            raise refusal_of(answer.status, answer.headers, answer.body, what)

    def _no_checksums(
        self, err: AgentError, headers: dict[str, str], *, quiet: bool = False
    ) -> None:
        """Learn from the first checked write that the service takes no checksum; else let the error stand."""
        unsupported = err.fields.get("service_code") in _NO_CHECKSUM
        if (
            "x-ms-content-crc64" in headers and not self.checksums and unsupported
        ):  # False: others were on their way
            self.checksums = False
        elif not quiet:
            raise err

    async def read(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; a short answer is an error."""
        what = f"read {len(buffer)} bytes at byte {offset} of {self.name}"
        headers = {"x-ms-range": f"bytes={offset}-{offset + len(buffer) - 1}"}
        done = await self._get("", headers, what, into=buffer, expect=206)
        if done != len(buffer):
            msg = f"{what}: only {done} bytes came"
            raise TargetUnavailable(msg)

    async def ranges(self, offset: int, length: int) -> AsyncIterator[Extent]:
        """Describe which pages were written, in order, without gaps; what never was is HOLE."""
        cursor, end, marker = offset, offset + length, ""
        while True:
            document = await self._ranges_page(offset, length, marker)
            for start, stop in _page_ranges(document):
                if start > cursor:
                    yield Extent(cursor, start - cursor, Kind.HOLE)
                if min(stop, end) > start:
                    yield Extent(start, min(stop, end) - start, Kind.DATA)
                cursor = max(cursor, min(stop, end))
            marker = document.findtext("NextMarker") or ""
            if not marker:
                break
        if cursor < end:
            yield Extent(cursor, end - cursor, Kind.HOLE)

    async def _ranges_page(self, offset: int, length: int, marker: str) -> ET.Element:
        what = f"list page ranges of {self.name}"
        query = "comp=pagelist" + (f"&marker={quote(marker, safe='')}" if marker else "")
        headers = {"x-ms-range": f"bytes={offset}-{offset + length - 1}"}
        text = bytearray()
        await self._get(query, headers, what, collect=text, expect=200)
        try:
            return ET.fromstring(bytes(text))  # noqa: S314 - bounded, over TLS, no entities in Python's expat default
        except ET.ParseError as err:
            msg = f"{what}: the answer is no XML"
            raise TargetUnavailable(msg) from err

    async def _get(
        self,
        query: str,
        headers: Mapping[str, str],
        what: str,
        *,
        expect: int,
        into: memoryview | None = None,
        collect: bytearray | None = None,
    ) -> int:
        """Ask, renewing the credential once; return how many bytes of the answer's body were taken."""

        async def once() -> int:
            return await self._get_once(query, headers, what, expect, (into, collect))

        try:
            return await once()
        except CredentialRefused as err:
            await self.authorizer.refused(err)
        return await once()

    async def _get_once(
        self,
        query: str,
        headers: Mapping[str, str],
        what: str,
        expect: int,
        sinks: tuple[memoryview | None, bytearray | None],
    ) -> int:
        url, auth = await self.authorizer.request()
        if query:
            url += ("&" if "?" in url else "?") + query
        try:
            async with self.session.get(
                URL(url, encoded=True),  # a SAS is signed as it stands: no requoting
                headers={"x-ms-version": API_VERSION, **headers, **auth},
                allow_redirects=False,
            ) as response:
                if response.status != expect:
                    text = await read_up_to(response.content, _MAX_ERROR)
                    raise refusal_of(response.status, response.headers, text, what)
                return await _take(response, *sinks)
        except CONNECTION_ERRORS as err:
            raise connection_failure(err, what=what) from err


async def _take(
    response: aiohttp.ClientResponse, into: memoryview | None, collect: bytearray | None
) -> int:
    done = 0
    async for piece in response.content.iter_any():
        if into is not None:
            room = into[done : done + len(piece)]
            room[:] = piece[: len(room)]
        elif collect is not None:
            collect += piece
            if len(collect) > _MAX_XML:
                msg = f"an answer of more than {_MAX_XML} bytes"
                raise TargetRefused(msg)
        done += len(piece)
    return done


def refusal_of(status: int, headers: Mapping[str, str], body: bytes, what: str) -> AgentError:
    """Return the error for an answer that is no success (XML body or `x-ms-error-code`)."""
    code = next((v for k, v in headers.items() if k.lower() == "x-ms-error-code"), "")
    text, message = body.decode("utf-8", "replace").lstrip("\ufeff"), ""
    if text.startswith("<"):
        try:
            document = ET.fromstring(text)  # noqa: S314 - bounded by the reader
        except ET.ParseError:
            document = ET.Element("Error")
        code = code or document.findtext("Code") or ""
        message = (document.findtext("Message") or "").split("\n")[0]
    return failure(status, code, message, headers, what=what)


def _page_ranges(document: ET.Element) -> list[tuple[int, int]]:
    """Return [start, stop) of every written range, ordered; ClearRange elements are holes."""
    found = []
    for element in document.iter("PageRange"):
        try:
            start, last = int(element.findtext("Start") or ""), int(element.findtext("End") or "")
        except ValueError as err:
            raise TargetUnavailable("a page range without numbers") from err
        found.append((start, last + 1))
    return sorted(found)


def usable_crc64() -> Checksum | None:
    """Return a function for the value of `x-ms-content-crc64` (CRC-64/NVME, 8 little-endian bytes in base64).

    None where azure-storage-extensions is not installed: in Python it would be slower than the network.
    """
    try:
        from azure.storage.extensions.checksums import crc64  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return lambda data, _digests: base64.b64encode(
        crc64.compute(bytes(data), 0).to_bytes(8, "little")
    ).decode()
