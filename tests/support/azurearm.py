"""azure-mgmt-compute pointed at a simulator over plain HTTP, which its own bearer policy refuses."""

import time
from typing import Any

from azure.core.credentials import AccessToken
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute.models import CreationData, Disk, DiskSku, GrantAccessData

from appliance.sim.azure import AzureSim

HOUR = 3600


class FixedToken:
    """A credential that always gives the same token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken(self.token, int(time.time()) + HOUR)


class PlainBearer(SansIOHTTPPolicy[Any, Any]):
    """Puts the token on the request, TLS or not."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.http_request.headers["Authorization"] = self._header


def compute_client(
    sim: AzureSim, token: str = "", *, verify: object = None
) -> ComputeManagementClient:
    """Return the official client of the simulator's disks."""
    token = token or sim.token()
    return ComputeManagementClient(
        FixedToken(token),
        sim.subscription,
        base_url=sim.url,
        credential_scopes=["https://management.azure.com/.default"],
        authentication_policy=PlainBearer(token),
        polling_interval=0,
        retry_total=0,
        **({} if verify is None else {"connection_verify": str(verify)}),
    )


def upload_disk(size: int, **more: Any) -> Disk:
    """Describe a disk of `size` bytes to be uploaded."""
    creation = CreationData(create_option="Upload", upload_size_bytes=size + 512)
    return Disk(
        location="westeurope",
        creation_data=creation,
        sku=DiskSku(name="StandardSSD_LRS"),
        os_type="Windows",
        hyper_v_generation="V2",
        **more,
    )


def access(kind: str) -> GrantAccessData:
    """Describe an hour's access."""
    return GrantAccessData(access=kind, duration_in_seconds=HOUR)
