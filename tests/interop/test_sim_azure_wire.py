"""What no SDK does by default: bearer tokens on storage, Expect: 100-continue, IPv6, many small chunks, restarts."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from appliance.sim.azure import AzureSim
from appliance.sim.azure.tokens import STORAGE

pytestmark = pytest.mark.interop

MIB = 1 << 20
SIZE = 32 * MIB
VERSION = {"x-ms-version": "2021-12-02"}


@pytest.fixture
async def sim() -> AsyncIterator[AzureSim]:
    async with AzureSim() as sim:
        yield sim


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


def _write(length: int) -> dict[str, str]:
    return VERSION | {"x-ms-page-write": "update", "x-ms-range": f"bytes=0-{length - 1}"}


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 (the simulator's counters have no event)
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("audience", "version", "expected"),
    [
        (STORAGE, VERSION, (201, "")),
        (STORAGE, {}, (400, "MissingRequiredHeader")),
        ("https://management.azure.com", VERSION, (401, "InvalidAuthenticationTokenAudience")),
    ],
    ids=["storage", "no-version", "wrong-audience"],
)
async def test_bearer_token_on_storage(
    sim: AzureSim,
    http: aiohttp.ClientSession,
    audience: str,
    version: dict[str, str],
    expected: tuple[int, str],
) -> None:
    sim.make_container("images")
    create = {"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str(SIZE)}
    bearer = {"Authorization": f"Bearer {sim.token(audience)}"}
    async with http.put(f"{sim.blob_url}/images/x", headers=create | bearer | version) as answer:
        assert (answer.status, answer.headers.get("x-ms-error-code", "")) == expected


async def test_client_that_waits_for_continue_is_let_on(
    sim: AzureSim, http: aiohttp.ClientSession
) -> None:
    url = URL(f"{sim.upload_disk('golden', SIZE)}&comp=page", encoded=True)
    async with http.put(url, data=bytes(MIB), headers=_write(MIB), expect100=True) as answer:
        assert answer.status == 201


async def test_refused_client_never_sends_its_body(sim: AzureSim) -> None:
    url = URL(sim.upload_disk("golden", SIZE).partition("?")[0], encoded=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
    writer.write(
        f"PUT {url.raw_path}?comp=page HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        f"Content-Length: {MIB}\r\n\r\n".encode()
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
    writer.close()


async def test_body_in_single_bytes_arrives_whole(sim: AzureSim) -> None:
    url = URL(sim.upload_disk("golden", SIZE), encoded=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", url.port)
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = [f"PUT {url.raw_path_qs}&comp=page HTTP/1.1", "Host: x", "Content-Length: 4096"]
    head += [f"{name}: {value}" for name, value in _write(4096).items()]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
    for _ in range(4096):
        writer.write(b"s")
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
    assert sim.disk_blob("golden").file.read(0, 4608) == b"s" * 4096 + bytes(512)
    writer.close()


async def test_cut_body_writes_nothing(sim: AzureSim) -> None:
    url = URL(sim.upload_disk("golden", SIZE), encoded=True)
    _, writer = await asyncio.open_connection("127.0.0.1", url.port)
    head = [f"PUT {url.raw_path_qs}&comp=page HTTP/1.1", "Host: x", "Content-Length: 4096"]
    head += [f"{name}: {value}" for name, value in _write(4096).items()]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + b"s" * 4095)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await _until(lambda: sim.stats.requests["disk.put-page"] and not sim.stats.inflight)
    assert sim.disk_blob("golden").file.pages.total() == 0
    assert sim.stats.bytes_received == 0


async def test_blob_deleted_during_a_write_is_gone(sim: AzureSim) -> None:
    sim.make_container("images")
    sim.vault.put_blob("images/x", sim.vault.new_blob(SIZE, sim.clock()))
    port = URL(sim.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/{sim.account}/images/x?{sim.make_sas('images', 'x')}&comp=page"
    head = [f"PUT {path} HTTP/1.1", "Host: x", "Content-Length: 1024"]
    head += [f"{name}: {value}" for name, value in _write(1024).items()]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + b"s" * 512)
    await _until(lambda: sim.stats.inflight)
    sim.vault.drop_blob("images/x")
    writer.write(b"s" * 512)
    assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    writer.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_ipv6_address_is_written_in_brackets(http: aiohttp.ClientSession) -> None:
    async with AzureSim(host="::1") as sim:
        assert sim.url.startswith("http://[::1]:")
        async with http.get(f"{sim.url}/sim/stats") as answer:
            assert answer.status == 200


async def test_disk_is_found_by_its_host(http: aiohttp.ClientSession) -> None:
    async with AzureSim(disk_domain="blob.localhost") as sim:
        url = URL(sim.upload_disk("golden", SIZE), encoded=True)
        assert url.host is not None
        assert url.host.startswith("md-impexp-")
        assert url.host.endswith(".blob.localhost")
        by_address = URL(f"{sim.url}{url.raw_path_qs}", encoded=True)
        async with http.head(by_address, headers={"Host": f"{url.host}:{url.port}"}) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE + 512))


async def test_operations_of_before_a_restart_are_not_needed(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with AzureSim(state_dir=tmp_path) as sim:
        token = sim.token()
        url = sim.upload_disk("golden", SIZE).removeprefix(sim.url)
    async with AzureSim(state_dir=tmp_path) as sim:
        page = URL(f"{sim.url}{url}&comp=page", encoded=True)
        async with http.put(page, data=bytes(512), headers=_write(512)) as answer:
            assert answer.status == 201
        disk = (
            f"{sim.url}/subscriptions/{sim.subscription}/resourceGroups/imageport/providers"
            "/Microsoft.Compute/disks/golden?api-version=2024-03-02"
        )
        async with http.get(disk, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert (await answer.json())["properties"]["diskState"] == "ActiveUpload"
