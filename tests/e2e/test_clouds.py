"""One image goes to three clouds by signed orders, and each cloud's official SDK reads the same disk back."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.demo.readback import root_of
from appliance.sim.aws import AwsSim
from appliance.sim.aws.app import BUCKET
from appliance.sim.azure import AzureSim
from appliance.sim.gcp import GcpSim
from imaging.units import GiB
from tests.support import readback
from tests.support.azure_jobs import SIZE, self_signed, write_source
from tests.support.disks import needs_qemu_img, qemu_img
from tests.support.simthread import running_sim
from tests.support.stack import Stack

pytestmark = [
    pytest.mark.e2e,
    needs_qemu_img,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("stack"),
]


@dataclass
class World:
    """The house of processes and three clouds."""

    stack: Stack
    azure: AzureSim
    aws: AwsSim
    gcp: GcpSim
    ca_file: Path
    root: str

    def send(self, target: dict) -> dict:
        """Order an upload of the VHDX; return the disk that the signed result names."""
        source = {"kind": "local", "name": "disks"}
        job = self.stack.submit(self.stack.job(source, "golden.vhdx", target))
        shown = self.stack.wait(job)
        assert shown["state"] == "succeeded", shown
        assert shown["result"]["root"] == self.root
        assert shown["result"]["report"]["verified"]["root"] == self.root
        (output,) = shown["result"]["outputs"]
        return output["value"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("clouds")
    ca_file, tls = self_signed(folder)
    with ExitStack() as stack:
        azure = stack.enter_context(running_sim(AzureSim, tls=tls))
        aws = stack.enter_context(running_sim(AwsSim, tls=tls))
        gcp = stack.enter_context(running_sim(GcpSim, tls=tls))
        house = stack.enter_context(Stack(folder, cloud_ca=ca_file))
        write_source(folder)
        qemu_img(
            "convert", "-f", "raw", "-O", "vhdx", folder / "golden.raw", house.share / "golden.vhdx"
        )
        house.start_all()
        root = root_of(folder / "golden.raw", image_format="raw")
        yield World(house, azure, aws, gcp, ca_file, root)


def test_azure_gives_back_the_same_disk(world: World, tmp_path: Path) -> None:
    who = world.azure.identity
    value = world.send(
        {
            "kind": "azure-disk",
            "subscription": who.subscription,
            "resource_group": world.azure.resource_group,
            "location": "westeurope",
            "disk": "golden",
            "management": world.azure.url,
            "authority": world.azure.url,
            "credential": {
                "tenant_id": who.tenant,
                "client_id": who.client_id,
                "client_secret": who.client_secret,
            },
        }
    )
    back = tmp_path / "back.raw"
    readback.azure_disk(world.azure, value["name"], SIZE, back, ca_file=world.ca_file)
    assert root_of(back, image_format="raw") == world.root


def test_aws_gives_back_the_same_disk(world: World, tmp_path: Path) -> None:
    value = world.send(
        {
            "kind": "aws-snapshot",
            "region": world.aws.region,
            "name": "golden",
            "os_type": "Linux",
            "endpoint": world.aws.url,
            "credential": world.aws.keys(),
        }
    )
    ec2 = readback.aws_client(world.aws, "ec2", ca_file=world.ca_file)
    (image,) = ec2.describe_images(ImageIds=[value["id"]])["Images"]
    assert (image["State"], image["PlatformDetails"]) == ("available", "Linux/UNIX")
    assert (image["BootMode"], image["EnaSupport"], image["ImdsSupport"]) == ("uefi", True, "v2.0")
    disk = image["BlockDeviceMappings"][0]["Ebs"]
    assert disk["SnapshotId"] == value["snapshot"]
    back = tmp_path / "back.raw"
    readback.aws_snapshot(world.aws, disk["SnapshotId"], SIZE, back, ca_file=world.ca_file)
    assert root_of(back, image_format="raw") == world.root


def test_s3_gives_back_the_same_disk_and_so_does_the_imported_snapshot(
    world: World, tmp_path: Path
) -> None:
    value = world.send(
        {
            "kind": "aws-s3",
            "region": world.aws.region,
            "bucket": BUCKET,
            "name": "golden by s3",
            "os_type": "Linux",
            "keep_object": True,
            "endpoint": world.aws.url,
            "credential": world.aws.keys(),
        }
    )
    s3 = readback.aws_client(world.aws, "s3", ca_file=world.ca_file)
    (found,) = s3.list_objects_v2(Bucket=BUCKET, Prefix="imageport/golden-by-s3-")["Contents"]
    vmdk = tmp_path / "back.vmdk"
    vmdk.write_bytes(s3.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read())
    command = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", vmdk, tmp_path / "vmdk.raw"]
    subprocess.run(command, check=True, capture_output=True)
    assert root_of(tmp_path / "vmdk.raw", image_format="raw") == world.root
    ec2 = readback.aws_client(world.aws, "ec2", ca_file=world.ca_file)
    (image,) = ec2.describe_images(ImageIds=[value["id"]])["Images"]
    assert image["Name"] == "golden by s3"
    snapshot = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    back = tmp_path / "back.raw"
    readback.aws_snapshot(world.aws, snapshot, SIZE, back, ca_file=world.ca_file)
    assert root_of(back, image_format="raw") == world.root


def test_google_cloud_gives_back_the_same_disk(world: World, tmp_path: Path) -> None:
    value = world.send(
        {
            "kind": "gcp-image",
            "project": world.gcp.project,
            "bucket": world.gcp.bucket,
            "image": "golden",
            "keep_archive": True,
            "endpoint": world.gcp.url,
            "credential": {"service_account_key": world.gcp.service_account_key()},
        }
    )
    back = tmp_path / "back.raw"
    key = value["archive"].removeprefix(f"gs://{world.gcp.bucket}/")
    readback.gcp_archive(world.gcp, key, SIZE, back, ca_file=world.ca_file)
    assert root_of(back, image_format="raw") == world.root
    disk = world.gcp.image_disk("golden")  # as GNU tar unpacked it for the image
    assert disk.stat().st_size == GiB
    with disk.open("rb") as file:
        (tmp_path / "image.raw").write_bytes(file.read(SIZE))
    assert root_of(tmp_path / "image.raw", image_format="raw") == world.root


def test_no_secret_is_in_any_log(world: World) -> None:
    key = json.loads(world.gcp.service_account_key())["private_key"].splitlines()[3]
    secrets = (world.aws.identity.secret_key, world.azure.identity.client_secret, key)
    for name in ("relay", "signer", "agent"):
        text = world.stack.log(name)
        assert not [secret for secret in secrets if secret in text]
        assert "sig=" not in text
        assert "ya29." not in text
