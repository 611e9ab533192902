"""azcopy uploads a fixed VHD into the simulator: into the storage account and into a managed disk."""

import random
from pathlib import Path

import pytest

from appliance.sim.azure.vault import PageBlob
from tests.support.azcopy import azcopy_upload
from tests.support.azurearm import access, compute_client, upload_disk
from tests.support.simazure import running_azure, vhd_footer

pytestmark = pytest.mark.interop

MIB = 1 << 20
SIZE = 64 * MIB
CHUNK = 4 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A fixed VHD with data in its first and its eleventh chunk only."""
    path = tmp_path / "golden.vhd"
    data = random.Random(5)
    with path.open("wb") as file:
        file.write(data.randbytes(CHUNK))
        file.seek(10 * CHUNK)
        file.write(data.randbytes(MIB))
        file.seek(SIZE)
        file.write(vhd_footer(SIZE))
    return path


def _is_uploaded(blob: PageBlob, image: Path) -> None:
    assert blob.file.read(0, SIZE + 512) == image.read_bytes()
    expected = [(0, CHUNK), (10 * CHUNK, CHUNK), (SIZE, 512)]
    assert list(blob.file.pages.within(0, blob.size)) == expected


def test_azcopy_uploads_a_page_blob(image: Path, tmp_path: Path) -> None:
    with running_azure() as sim:
        sim.make_container("images")
        url = f"{sim.blob_url}/images/golden.vhd?{sim.make_sas('images', permissions='rwc')}"
        azcopy_upload(image, url, tmp_path)
        _is_uploaded(sim.blob("images", "golden.vhd"), image)


def test_azcopy_uploads_a_managed_disk(image: Path, tmp_path: Path) -> None:
    # Its managed-disk code wants a host that begins with md-. No resolver knows such a name
    # here, so the simulator serves as azcopy's HTTP proxy too and finds the disk by the host.
    with running_azure(disk_domain="blob.localhost") as sim, compute_client(sim) as compute:
        group = sim.resource_group
        compute.disks.begin_create_or_update(group, "golden", upload_disk(SIZE)).result()
        url = compute.disks.begin_grant_access(group, "golden", access("Write")).result().access_sas
        azcopy_upload(image, url, tmp_path, HTTP_PROXY=sim.url, NO_PROXY="")
        compute.disks.begin_revoke_access(group, "golden").result()
        assert compute.disks.get(group, "golden").disk_state == "Unattached"
        _is_uploaded(sim.disk_blob("golden"), image)
        assert sim.stats.requests["disk.get-page-ranges"] == 1
        assert sim.stats.refusals == {}
