"""gcp-storage-emulator, which others wrote: takes an archive by resumable upload; the official SDK reads it back.

It knows no Compute Engine and no XML multipart upload (it answers 501) and checks no token; so it proves the resumable
wire. The seam is `archive.Project`: what an archive needs of its target.
"""

import io
import random
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from agent.retry import Retrier, RetryPolicy
from agent.targets.base import DiskSpec, Intent
from agent.targets.gcp.archive import OBJECT, ArchiveUpload
from agent.targets.gcp.gcs import GcsBucket, GcsControl
from agent.targets.gcp.image import GcpImageTarget
from agent.targets.gcp.resumable import InOrder, begin_session
from agent.targets.http.sender import Sender
from agent.targets.http.settings import HttpSettings, make_session
from agent.targets.multipart import Multipart
from agent.targets.tags import Tagger
from agent.threads import Pool, run_blocking
from agent.transfer.limiter import Limiter
from agent.transfer.packer import Packer
from agent.transfer.unpack import ArchiveVerifier
from imaging.digest import DigestBuilder
from imaging.filedev import FileDevice
from imaging.units import GiB
from protocol.ops import GcpImage
from tests.support.azure_jobs import SIZE, write_source
from tests.support.job_store import MemoryJobStore

pytestmark = pytest.mark.interop

BUCKET, KEY = "images", "imageport/golden.tar.gz"
TAGGER = Tagger(bytes(32), "site-1", "0f" * 16, 1)


@pytest.fixture
def emulator() -> Iterator[str]:
    server = create_server("localhost", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    port = server._api._httpd.socket.getsockname()[1]
    yield f"http://localhost:{port}"
    server.stop()


class NoTokens:
    """The emulator asks for none."""

    def token(self) -> str:
        return "anonymous"

    def refused(self, _token: str) -> None:
        raise AssertionError

    def http_session(self) -> requests.Session:
        return requests.Session()


class Project:
    """See `archive.Project`; no image is made of the archive."""

    def __init__(self, url: str) -> None:
        self.ref = GcpImage(project="project", bucket=BUCKET, image="golden", upload="resumable")
        self.bucket = GcsBucket(url, BUCKET, NoTokens())
        self.control = GcsControl(self.bucket, "project")
        self.sender = Sender(HttpSettings())
        self.session = make_session(HttpSettings(), connections=4)
        self.multipart = Multipart(self.bucket, self.session, self.sender)

    def key(self, _name: str, _tagger: Tagger) -> str:
        return KEY

    def intent(self, kind: str, name: str) -> Intent:
        return Intent(kind, {"provider": "gcp", "account": "project", "region": BUCKET}, name)

    async def close(self) -> None:
        self.sender.close()
        await self.session.close()
        self.control.close()


async def test_the_emulator_gives_back_the_archive(emulator: str, tmp_path: Path) -> None:
    write_source(tmp_path)
    project, store, digest = Project(emulator), MemoryJobStore(), DigestBuilder(SIZE)
    retrier = Retrier(policy=RetryPolicy(), now=time.monotonic, random=random.random)
    tags = TAGGER.tags(project.intent(OBJECT, "golden").scope, "golden")
    upload = await begin_session(
        project.bucket, project.session, project.control.pool, KEY,
        metadata=tags, content_type="application/gzip",
    )  # fmt: skip
    way = InOrder(project.bucket, project.sender, KEY, upload)
    spec = DiskSpec(SIZE, GiB, "fail", TAGGER)
    archive = ArchiveUpload(project, "golden", spec, store, way=way, resumed=False)
    source = FileDevice(tmp_path / "golden.raw")
    packer = Packer(
        source=source,
        abort=lambda: None,
        disk=archive,
        limits=replace(GcpImageTarget.limits, inflight_start=1, inflight_max=InOrder.MOST),
        padded_size=GiB,
        digest=digest,
        receipts=store,
        limiter=Limiter(None, now=time.monotonic),
        retrier=retrier,
        progress=lambda _stats: None,
    )
    await packer.run()
    await archive.seal(packer.row.stored(), packer.row.crc32c())  # compares the emulator's CRC-32C
    check = archive.format.check(
        GiB, lambda: source.extents(0, source.size), packer.row.states(), digest
    )
    verifier = ArchiveVerifier(
        disk=archive, row=packer.row, check=check, expected=digest, root=digest.root(),
        retrier=retrier, progress=lambda _done: None,
    )  # fmt: skip
    assert (await verifier.full()).blocks_read == digest.count_data()
    state = await project.control.state(KEY)
    assert TAGGER.is_this_line(state.metadata, project.intent(OBJECT, "golden").scope, "golden")
    pool = Pool("emulator", 1)
    data = await run_blocking(pool, lambda: by_the_sdk(emulator))
    pool.close()
    await project.close()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        assert tar.extractfile(tar.next()).read(SIZE) == (tmp_path / "golden.raw").read_bytes()


def by_the_sdk(url: str) -> bytes:
    client = storage.Client(
        project="project", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    )
    return client.bucket(BUCKET).blob(KEY).download_as_bytes()
