"""Rigs: one source image, one simulator and how its target is judged, one class a kind of target.

A suite that runs over `RIGS` asks every target the same questions; what a rig cannot answer it does not have.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from agent.stages.base import StageContext
from agent.targets.aws import building
from agent.targets.azure import arm, gallery
from agent.targets.gcp import compute
from appliance.sim.aws import AwsSim
from appliance.sim.aws.app import BUCKET
from appliance.sim.azure import AzureSim
from appliance.sim.base import Simulator
from appliance.sim.faults import Fault, FaultPlan, Throttle
from appliance.sim.gcp import GcpSim
from imaging.units import GiB, MiB
from protocol.ops import AwsS3, LocalShare, LocalTarget, UploadArgs
from tests.support.aws_jobs import AwsJobs
from tests.support.azure_jobs import CONTAINER, SIZE, Uploads, self_signed, write_source
from tests.support.gcp_jobs import GcpJobs
from tests.support.stage_jobs import config_for, make_job

AZURE_PADDED = 34 * MiB


class Rig(ABC):
    """One kind of target over one simulator.

    Attributes:
        sim: The simulator; None for the reference target.
        share: Folder with `golden.raw`.
        padded: Bytes of the target disk.
        write / read / listing: Names of the simulator's operations that move bytes, for faults.
        checksum: What the result says that the service checked.
        name: Of the object that intents name.
        is_archive: Whether it gets parts of an archive; the source makes two.
    """

    kind: ClassVar[str]
    padded: ClassVar[int] = AZURE_PADDED
    write: ClassVar[str] = ""
    read: ClassVar[str] = ""
    listing: ClassVar[str] = ""
    checksum: ClassVar[str] = ""
    name: ClassVar[str] = "golden"
    is_archive: ClassVar[bool] = False

    def __init__(self, sim: Simulator | None, share: Path, ca_file: Path | None) -> None:
        self.sim = sim
        self.share = share
        self.ca_file = ca_file

    @classmethod
    @abstractmethod
    def make_sim(cls, **served: object) -> Simulator | None:
        """Return its simulator, not yet started."""

    @abstractmethod
    def job(self, **options: object) -> StageContext:
        """Return an upload of the source to the target."""

    @abstractmethod
    def stored(self) -> bytes:
        """Return the first AZURE_PADDED bytes that the target holds, and see that the rest is zeros."""

    @abstractmethod
    def left(self) -> list[str]:
        """Return what is left at the target, in short words."""

    def wrong_credential(self) -> dict[str, str]:
        """Return a credential that the service refuses; "wrong" is its secret."""
        raise AssertionError(self.kind)

    def expected(self) -> bytes:
        """Return the source disk, padded."""
        return (self.share / "golden.raw").read_bytes() + bytes(AZURE_PADDED - SIZE)

    def faults(self, *faults: Fault, throttle: Throttle | None = None) -> None:
        """Let things go wrong from here on."""
        assert self.sim is not None
        self.sim.set_faults(FaultPlan(seed=3, fault=list(faults), throttle=throttle or Throttle()))


class LocalRig(Rig):
    """The reference target."""

    kind = "local"

    @classmethod
    def make_sim(cls, **served: object) -> None:
        return None

    @property
    def folder(self) -> Path:
        folder = self.share.parent / "cloud"
        folder.mkdir(exist_ok=True)
        return folder

    def job(self, *, options=None, **job) -> StageContext:
        args = UploadArgs(
            source=LocalShare(name="disks"),
            path="golden.raw",
            format="raw",
            target=LocalTarget(name="cloud", disk="golden"),
            **(options or {}),
        )
        return make_job(args, config_for(share=self.share, target=self.folder), **job)

    def stored(self) -> bytes:
        found = (self.folder / "golden.raw").read_bytes()
        return found + bytes(AZURE_PADDED - len(found))

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class AzureRig(Rig):
    """What both Azure targets share."""

    checksum = "crc64"

    @classmethod
    def make_sim(cls, **served: object) -> AzureSim:
        return AzureSim(**served)

    @property
    def uploads(self) -> Uploads:
        return Uploads(self.sim, self.share, self.ca_file)

    def _checked(self, data: bytes) -> bytes:
        assert data[AZURE_PADDED : AZURE_PADDED + 8] == b"conectix"
        return data[:AZURE_PADDED]

    def left(self) -> list[str]:
        state = self.sim.vault.state
        made = [path for path in state.galleries if path.count("/") > 1]
        return [*state.blobs, *state.disks, *made]


class PageBlobRig(AzureRig):
    """A page blob."""

    kind, name = "azure-page-blob", "golden.vhd"
    write, read, listing = "blob.put-page", "blob.get", "blob.get-page-ranges"

    def job(self, **options) -> StageContext:
        return self.uploads.blob_job(**options)

    def stored(self) -> bytes:
        file = self.sim.blob(CONTAINER, "golden.vhd").file
        return self._checked(bytes(file.read(0, AZURE_PADDED + 512)))

    def wrong_credential(self) -> dict[str, str]:
        return {"account_key": "d3Jvbmc="}


class ManagedDiskRig(AzureRig):
    """A managed disk."""

    kind = "azure-disk"
    write, read, listing = "disk.put-page", "disk.get", "disk.get-page-ranges"

    def job(self, **options) -> StageContext:
        return self.uploads.disk_job(**options)

    def stored(self) -> bytes:
        return self._checked(bytes(self.sim.disk_blob("golden").file.read(0, AZURE_PADDED + 512)))

    def wrong_credential(self) -> dict[str, str]:
        return {**self.uploads.principal(), "client_secret": "wrong"}


class AwsRig(Rig):
    """An EBS snapshot."""

    kind, padded = "aws-snapshot", GiB
    write, read, listing = "ebs.put-block", "ebs.get-block", "ebs.list-blocks"
    checksum = "sha256-linear"

    @classmethod
    def make_sim(cls, **served: object) -> AwsSim:
        return AwsSim(**served)

    def job(self, **options) -> StageContext:
        return AwsJobs(self.sim, self.share, self.ca_file).snapshot_job(**options)

    def stored(self) -> bytes:
        mine = [s for s in self.sim.vault.state.snapshots.values() if s.tags.get("Name")]
        (snapshot,) = [s for s in mine if s.tags["Name"] == "golden" and s.state == "completed"]
        file = self.sim.snapshot(snapshot.id).file
        assert not list(file.pages.within(AZURE_PADDED, GiB - AZURE_PADDED))
        return bytes(file.read(0, AZURE_PADDED))

    def left(self) -> list[str]:
        state = self.sim.vault.state
        stock = {i.snapshot for i in state.images.values() if i.owner == "amazon"}
        snapshots = [snapshot for snapshot in state.snapshots if snapshot not in stock]
        images = [i.id for i in state.images.values() if i.owner == "self"]
        running = [i.id for i in state.instances.values() if i.state != "terminated"]
        return [*snapshots, *images, *state.volumes, *running]

    def wrong_credential(self) -> dict[str, str]:
        return {**self.sim.keys(), "secret_access_key": "wrong"}


class AwsS3Rig(AwsRig):
    """A VMDK in a bucket, and the snapshot that VM Import makes of it."""

    kind, padded = "aws-s3", SIZE
    write, read, listing = "s3.put-part", "s3.get", ""
    checksum = "crc32c"
    is_archive = True

    def job(self, *, target=None, **options) -> StageContext:
        jobs = AwsJobs(self.sim, self.share, self.ca_file)
        reference = {"os_type": "Linux", "strategy": "snapshot-only", **(target or {})}
        return jobs.job(AwsS3, {"bucket": BUCKET, **reference}, **options)

    def left(self) -> list[str]:
        state = self.sim.vault.state
        return [*super().left(), *state.objects, *state.uploads]


class GcpRig(Rig):
    """A Compute Engine image."""

    kind, padded = "gcp-image", GiB
    write, read = "gcs.put-part", "gcs.get"
    checksum = "crc32c"
    is_archive = True

    @classmethod
    def make_sim(cls, **served: object) -> GcpSim:
        return GcpSim(**served)

    def job(self, **options) -> StageContext:
        return GcpJobs(self.sim, self.share, self.ca_file).image_job(**options)

    def stored(self) -> bytes:
        with self.sim.image_disk("golden").open("rb") as file:
            found = file.read(AZURE_PADDED)
            try:
                data = os.lseek(file.fileno(), AZURE_PADDED, os.SEEK_DATA)
            except OSError:
                return found  # nothing but a hole behind it
            file.seek(data)
            while rest := file.read(MiB):
                assert not rest.strip(b"\0")
        return found

    def left(self) -> list[str]:
        state = self.sim.state
        return [*state.uploads, *state.objects, *state.images]

    def wrong_credential(self) -> dict[str, str]:
        key = self.sim.service_account_key()
        return {"service_account_key": key.replace("imageport@", "wrong@")}


class GcpResumableRig(GcpRig):
    """The same by one resumable upload."""

    write = "gcs.session-put"

    def job(self, *, target=None, **options) -> StageContext:
        return super().job(target={"upload": "resumable", **(target or {})}, **options)

    def left(self) -> list[str]:
        sessions = (
            self.sim.state.sessions
        )  # an empty one, whose begin was not answered, ends by itself
        return [*super().left(), *(one for one, upload in sessions.items() if upload.parts)]


RIGS = {rig.kind: rig for rig in (LocalRig, PageBlobRig, ManagedDiskRig, AwsRig, AwsS3Rig, GcpRig)}
RIGS["gcp-image-resumable"] = GcpResumableRig
"""Every target, and every way to it; the reference first."""
CLOUDS = {kind: rig for kind, rig in RIGS.items() if kind != "local"}


@asynccontextmanager
async def running(kind: str, folder: Path, **served: object) -> AsyncIterator[Rig]:
    """Run a rig with a fresh source; its simulator speaks TLS, and is asked often: it is ready at once."""
    with pytest.MonkeyPatch.context() as quick:
        for module in (building, arm, gallery, compute):
            quick.setattr(module, "POLL_S", 0.01)
        async with _running(kind, folder, **served) as rig:
            yield rig


@asynccontextmanager
async def _running(kind: str, folder: Path, **served: object) -> AsyncIterator[Rig]:
    ca_file, tls = self_signed(folder)
    share = folder / "share"
    share.mkdir()
    write_source(share)
    sim = RIGS[kind].make_sim(tls=tls, state_dir=folder / "sim", **served)
    if sim is None:
        yield RIGS[kind](None, share, None)
        return
    async with sim:
        if isinstance(sim, AzureSim):
            sim.make_container(CONTAINER)
        yield RIGS[kind](sim, share, ca_file)
