"""Page operations without a socket: checksums, limits, conditions, paging of the range list."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from appliance.sim.azure import pageblob
from appliance.sim.azure.state import State, new_identity
from appliance.sim.azure.vault import PageBlob, Vault
from appliance.sim.call import Call, Refusal
from appliance.sim.crc64 import crc64_header
from appliance.sim.stats import Stats
from tests.support.simcalls import NOW, call

DATA = bytes(range(256)) * 2
MD5 = base64.b64encode(hashlib.md5(DATA).digest()).decode()


@pytest.fixture
def blob(tmp_path: Path) -> PageBlob:
    return Vault(tmp_path, lambda: State(identity=new_identity("acc"))).new_blob(64 << 20, NOW)


def _write(*chunks: bytes, offset: int = 0, **headers: str) -> Call:
    length = sum(map(len, chunks))
    wanted = {"x-ms-page-write": "update", "x-ms-range": f"bytes={offset}-{offset + length - 1}"}
    wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
    return call("PUT", "/x?comp=page", wanted, *chunks)


async def _put(blob: PageBlob, wanted: Call) -> dict[str, str]:
    return (await pageblob.put_page(wanted, blob, Stats())).headers


async def _refused(blob: PageBlob, wanted: Call) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        await _put(blob, wanted)
    assert blob.file.read(0, 512) == bytes(512)
    assert blob.file.writes == 0
    return caught.value.status, caught.value.code


async def test_chunks_are_written_and_counted(blob: PageBlob) -> None:
    stats = Stats()
    before = blob.etag
    await pageblob.put_page(_write(DATA[:100], DATA[100:], offset=512), blob, stats)
    assert blob.file.read(512, 512) == DATA
    assert (stats.bytes_received, stats.bytes_stored) == (512, 512)
    assert blob.etag != before


async def test_right_checksums_are_answered(blob: PageBlob) -> None:
    assert (await _put(blob, _write(DATA, Content_MD5=MD5)))["Content-MD5"] == MD5
    crc = crc64_header([DATA])
    answered = await _put(blob, _write(DATA[:7], DATA[7:], x_ms_content_crc64=crc))
    assert answered["x-ms-content-crc64"] == crc


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content_MD5": base64.b64encode(bytes(16)).decode()}, 400, "Md5Mismatch"),
        ({"Content_MD5": "?"}, 400, "InvalidMd5"),
        ({"Content_MD5": base64.b64encode(bytes(15)).decode()}, 400, "InvalidMd5"),
        ({"x_ms_content_crc64": base64.b64encode(bytes(8)).decode()}, 400, "Crc64Mismatch"),
        ({"x_ms_content_crc64": base64.b64encode(bytes(7)).decode()}, 400, "InvalidHeaderValue"),
        (
            {"x_ms_content_crc64": crc64_header([DATA]), "Content_MD5": MD5},
            400,
            "InvalidHeaderValue",
        ),
        ({"x_ms_structured_body": "XSM/1.0; properties=crc64"}, 501, "FeatureNotSupported"),
        ({"x_ms_page_write": "append"}, 400, "InvalidHeaderValue"),
        ({"x_ms_page_write": ""}, 400, "MissingRequiredHeader"),
        ({"x_ms_page_write": "clear"}, 400, "InvalidHeaderValue"),
        ({"x_ms_range": "bytes=0-1023"}, 416, "InvalidPageRange"),
        ({"If_Match": '"other"'}, 412, "ConditionNotMet"),
        ({"x_ms_if_sequence_number_eq": "1"}, 412, "SequenceNumberConditionNotMet"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
async def test_wrong_write_changes_nothing(
    blob: PageBlob, headers: dict[str, str], status: int, code: str
) -> None:
    assert await _refused(blob, _write(DATA, **headers)) == (status, code)


async def test_write_above_four_mebibytes_is_refused(blob: PageBlob) -> None:
    assert await _refused(blob, _write(bytes((4 << 20) + 512))) == (413, "RequestBodyTooLarge")


async def test_write_without_length_is_refused(blob: PageBlob) -> None:
    wanted = _write(DATA)
    wanted.length = None
    assert await _refused(blob, wanted) == (411, "MissingContentLengthHeader")


async def test_clear_may_be_larger_than_a_write(blob: PageBlob) -> None:
    await _put(blob, _write(DATA))
    clear = {"x-ms-page-write": "clear", "x-ms-range": f"bytes=0-{(32 << 20) - 1}"}
    await _put(blob, call("PUT", "/x?comp=page", clear))
    assert blob.file.pages.total() == 0
    assert blob.file.read(0, 512) == bytes(512)


async def test_lost_and_flipped_writes_are_acknowledged(blob: PageBlob) -> None:
    lost, flipped = _write(DATA), _write(DATA, offset=512)
    lost.marks.add("lose-write")
    flipped.marks.add("flip-stored")
    await _put(blob, lost)
    await _put(blob, flipped)
    assert blob.file.read(0, 512) == bytes(512)
    assert sum(a != b for a, b in zip(blob.file.read(512, 512), DATA, strict=True)) == 1
    assert list(blob.file.pages.within(0, blob.size)) == [(0, 1024)]


async def _ranges(
    blob: PageBlob, query: str = "", **headers: str
) -> tuple[list[tuple[int, int]], str]:
    found = pageblob.page_ranges(call("GET", f"/x?comp=pagelist{query}", headers), blob)
    text = found.body.decode()
    assert found.headers["x-ms-blob-content-length"] == str(blob.size)
    pairs = re.findall(r"<Start>(\d+)</Start><End>(\d+)</End>", text)
    marker = re.search(r"<NextMarker>(\d+)</NextMarker>", text)
    return [(int(first), int(last)) for first, last in pairs], marker[1] if marker else ""


async def test_range_list_is_clipped_and_paged(blob: PageBlob) -> None:
    for number in range(5):
        await _put(blob, _write(DATA, offset=number * 2048))
    every = [(number * 2048, number * 2048 + 511) for number in range(5)]
    assert await _ranges(blob) == (every, "")
    assert await _ranges(blob, "&maxresults=2") == (every[:2], "4096")
    assert await _ranges(blob, "&maxresults=2&marker=4096") == (every[2:4], "8192")
    assert await _ranges(blob, "&maxresults=2&marker=8192") == (every[4:], "")
    assert (await _ranges(blob, **{"x-ms-range": "bytes=2048-4607"}))[0] == every[1:3]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("&maxresults=0", "OutOfRangeQueryParameterValue"),
        ("&maxresults=x", "OutOfRangeQueryParameterValue"),
        ("&marker=x", "InvalidQueryParameterValue"),
        ("&marker=99999999999", "InvalidQueryParameterValue"),
        ("&prevsnapshot=2020", "FeatureNotSupported"),
    ],
)
def test_wrong_range_list_query_is_refused(blob: PageBlob, query: str, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        pageblob.page_ranges(call("GET", f"/x?comp=pagelist{query}"), blob)
    assert caught.value.code == code


async def test_range_read_carries_the_hash_that_was_asked_for(blob: PageBlob) -> None:
    await _put(blob, _write(DATA))
    wanted = {"x-ms-range": "bytes=0-511", "x-ms-range-get-content-md5": "true"}
    reply = pageblob.get(call("GET", "/x", wanted), blob, Stats())
    assert (reply.status, reply.body, reply.headers["Content-MD5"]) == (206, DATA, MD5)
    assert reply.headers["Content-Range"] == f"bytes 0-511/{64 << 20}"


@pytest.mark.parametrize("text", ["", "bytes=0-4194304"], ids=["no-range", "too-long"])
def test_hash_of_too_much_is_refused(blob: PageBlob, text: str) -> None:
    headers = {"x-ms-range-get-content-md5": "true"} | ({"x-ms-range": text} if text else {})
    with pytest.raises(Refusal) as caught:
        pageblob.get(call("GET", "/x", headers), blob, Stats())
    assert caught.value.code == "InvalidHeaderValue"


def test_long_read_is_streamed(blob: PageBlob) -> None:
    blob.file.write(60 << 20, [b"end" + bytes(509)])
    reply = pageblob.get(call("GET", "/x"), blob, Stats())
    assert reply.stream is not None
    whole = b"".join(reply.stream)
    assert len(whole) == reply.stream_length == 64 << 20
    assert whole[60 << 20 :].startswith(b"end")
