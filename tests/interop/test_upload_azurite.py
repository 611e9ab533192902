"""What we upload into Microsoft's own emulator, Microsoft's own SDK reads back, and qemu-img calls it the same disk."""

import subprocess
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from agent.stages.upload import UploadStage
from imaging.units import MiB
from protocol.ops import AzurePageBlob, LocalShare, UploadArgs
from tests.support.azurite import running_azurite
from tests.support.disks import needs_qemu_img, qemu_img, write_sparse
from tests.support.stage_jobs import config_for, make_job

pytestmark = pytest.mark.interop


@needs_qemu_img
async def test_the_official_sdk_reads_back_the_same_disk(tmp_path: Path) -> None:
    raw, image = tmp_path / "golden.raw", tmp_path / "golden.vhdx"
    write_sparse(raw, 25 * MiB + 512, {0: b"boot" * 5000, 9 * MiB: bytes(range(256)) * 9000})
    qemu_img("convert", "-f", "raw", "-O", "vhdx", raw, image)
    with running_azurite(tmp_path / "azurite") as azurite:
        service = BlobServiceClient(
            azurite.blob_url,
            credential={"account_name": azurite.account, "account_key": azurite.key},
        )
        with service:
            service.create_container("vhds")
            args = UploadArgs(
                source=LocalShare(name="disks"),
                path="golden.vhdx",
                target=AzurePageBlob(
                    endpoint=azurite.blob_url, container="vhds", blob="golden.vhd"
                ),
            )
            secrets = {"target.credential": {"account_key": azurite.key}}
            outcome = await UploadStage().run(
                make_job(args, config_for(share=tmp_path), secrets=secrets)
            )
            back = tmp_path / "back.vhd"
            blob = service.get_blob_client("vhds", "golden.vhd")
            back.write_bytes(blob.download_blob().readall())
    assert (
        outcome.outputs[0].value["service_checksum"] == "none"
    )  # Azurite takes none, and the result says so
    assert back.stat().st_size == 26 * MiB + 512
    compared = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        ["qemu-img", "compare", "-f", "vhdx", "-F", "vpc", str(image), str(back)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stdout + compared.stderr
