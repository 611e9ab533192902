"""Every service that a job's target asks is named before it is asked."""

import pytest

from agent.config import AgentConfig
from agent.policy import endpoint_allowed
from agent.targets.endpoints import endpoints_of
from agent.targets.limits import RULES
from protocol.ops import AwsS3, AwsSnapshot, AzureDisk, AzurePageBlob, GcpImage, LocalTarget

DISK = {"subscription": "s", "resource_group": "g", "location": "westeurope", "disk": "golden"}
HOSTS = {
    "local": (LocalTarget(name="cloud", disk="golden"), []),
    "azure-page-blob": (
        AzurePageBlob(endpoint="https://a.blob.core.windows.net", container="vhds", blob="g"),
        ["a.blob.core.windows.net"],
    ),
    "azure-disk": (AzureDisk(**DISK), ["management.azure.com", "login.microsoftonline.com"]),
    "aws-snapshot": (
        AwsSnapshot(region="eu-central-1", name="golden"),
        [f"{name}.eu-central-1.amazonaws.com" for name in ("sts", "ec2", "ebs")],
    ),
    "aws-s3": (
        AwsS3(region="cn-north-1", name="golden", bucket="images"),
        [f"{name}.cn-north-1.amazonaws.com.cn" for name in ("sts", "ec2", "s3")],
    ),
    "gcp-image": (
        GcpImage(project="project", bucket="bucket", image="golden"),
        ["storage.googleapis.com", "compute.googleapis.com", "oauth2.googleapis.com"],
    ),
}


def test_every_kind_of_target_is_here() -> None:
    assert HOSTS.keys() == RULES.keys()


@pytest.mark.parametrize(("ref", "hosts"), HOSTS.values(), ids=HOSTS)
def test_the_services_are_named_and_the_default_policy_lets_them(ref, hosts) -> None:
    found = endpoints_of(ref)
    assert [url.removeprefix("https://") for url in found] == hosts
    assert all(endpoint_allowed(url, AgentConfig()) for url in found)


def test_sovereign_clouds_and_endpoints_of_ones_own() -> None:
    assert endpoints_of(AzureDisk(**DISK, cloud="china")) == (
        "https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn",
    )  # fmt: skip
    own = "https://127.0.0.1:10000"
    for ref in (
        AwsSnapshot(region="eu-central-1", name="golden", endpoint=own),
        GcpImage(project="project", bucket="bucket", image="golden", endpoint=own),
    ):
        assert endpoints_of(ref) == (own,)
