"""Read disks back from the clouds by the official SDKs, in their own ways; none of the product's code takes part.

Each function writes the first `size` bytes of what the cloud holds to a sparse file.
"""

import io
import json
import tarfile
from pathlib import Path

import boto3
import requests
from azure.mgmt.compute.models import GrantAccessData
from azure.storage.blob import BlobClient
from botocore.config import Config
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from google.oauth2 import service_account

from appliance.sim.aws import AwsSim
from appliance.sim.azure import AzureSim
from appliance.sim.gcp import GcpSim
from tests.support.azurearm import compute_client

BLOCK = 512 * 1024


def azure_disk(sim: AzureSim, name: str, size: int, path: Path, *, ca_file: Path) -> None:
    """azure-mgmt-compute gives a read SAS, azure-storage-blob reads the written ranges."""
    compute = compute_client(sim, verify=ca_file)
    grant = GrantAccessData(access="Read", duration_in_seconds=600)
    group = sim.resource_group
    url = compute.disks.begin_grant_access(group, name, grant).result().access_sas
    with (
        BlobClient.from_blob_url(url, connection_verify=str(ca_file)) as blob,
        path.open("wb") as file,
    ):
        file.truncate(size)
        for written in blob.list_page_ranges():
            length = min(written.end + 1, size) - written.start
            if length > 0 and not written.cleared:
                file.seek(written.start)
                file.write(blob.download_blob(written.start, length).readall())
    compute.disks.begin_revoke_access(group, name).result()


def aws_client(sim: AwsSim, service: str, *, ca_file: Path):
    """Return a boto3 client of the simulator."""
    session = boto3.session.Session(
        sim.identity.access_key, sim.identity.secret_key, region_name=sim.region
    )
    config = Config(retries={"total_max_attempts": 1})
    return session.client(service, endpoint_url=sim.url, verify=str(ca_file), config=config)


def aws_snapshot(sim: AwsSim, snapshot: str, size: int, path: Path, *, ca_file: Path) -> None:
    """boto3 lists the blocks and gets each."""
    ebs = aws_client(sim, "ebs", ca_file=ca_file)
    token: dict[str, str] = {}
    with path.open("wb") as file:
        file.truncate(size)
        while True:
            page = ebs.list_snapshot_blocks(SnapshotId=snapshot, **token)
            for block in page["Blocks"]:
                index = block["BlockIndex"]
                got = ebs.get_snapshot_block(
                    SnapshotId=snapshot, BlockIndex=index, BlockToken=block["BlockToken"]
                )
                file.seek(index * BLOCK)
                file.write(got["BlockData"].read()[: size - index * BLOCK])
            if "NextToken" not in page:
                return
            token = {"NextToken": page["NextToken"]}


def gcp_archive(sim: GcpSim, key: str, size: int, path: Path, *, ca_file: Path) -> None:
    """google-cloud-storage downloads the archive, Python's tarfile unpacks it."""
    info = json.loads(sim.service_account_key())
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    credentials = service_account.Credentials.from_service_account_info(info, scopes=scopes)
    way = requests.Session()
    way.verify, way.trust_env = str(ca_file), False
    auth = AuthorizedSession(credentials, auth_request=Request(session=way))
    auth.verify, auth.trust_env = str(ca_file), False
    client = storage.Client(
        project=sim.project,
        credentials=credentials,
        _http=auth,
        client_options={"api_endpoint": sim.url},
    )
    packed = client.bucket(sim.bucket).blob(key).download_as_bytes()
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        member = archive.next()
        assert member.name == "disk.raw"
        reader = archive.extractfile(member)
        path.write_bytes(reader.read(size))
