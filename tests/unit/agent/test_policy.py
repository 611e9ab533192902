"""Local policy: what the appliance's owner forbids, whoever signed it."""

from typing import Any

import pytest

from agent.config import parse
from agent.policy import forbidden
from protocol.codec import encode
from protocol.ops import (
    AwsSnapshot,
    AzureDisk,
    AzurePageBlob,
    CancelArgs,
    GcpImage,
    LocalShare,
    LocalTarget,
    SmbShare,
    UploadArgs,
)
from tests.support import protocol_world as w

BLOB = AzurePageBlob(endpoint="https://a.blob.core.windows.net", container="vhds", blob="a.vhd")
DISK = AzureDisk(subscription="s", resource_group="g", location="l", disk="d")
FOLDERS = {"shares": {"local": {"images": "/i"}}, "targets": {"local": {"disks": "/d"}}}


def _upload(**changes: Any) -> Any:
    fields: dict[str, Any] = {
        "source": LocalShare(name="images"),
        "path": "a",
        "target": LocalTarget(name="disks", disk="x"),
    }
    return w.command(op="upload", args=encode(UploadArgs(**{**fields, **changes})))


@pytest.mark.parametrize(
    ("changes", "policy", "code"),
    [
        ({}, {}, None),
        ({"source": LocalShare(name="other")}, {}, "policy.share-unknown"),
        ({"target": LocalTarget(name="other", disk="x")}, {}, "policy.target-unknown"),
        ({"source": SmbShare(server="NAS.site", share="s")}, {}, None),
        ({"source": SmbShare(server="NAS.site", share="s")}, {"share_servers": ["nas.*"]}, None),
        (
            {"source": SmbShare(server="evil", share="s")},
            {"share_servers": ["nas.*"]},
            "policy.share-forbidden",
        ),
        ({"target": BLOB}, {}, None),
        ({"target": BLOB}, {"endpoints": []}, "policy.target-forbidden"),
        ({"target": DISK}, {}, None),
        ({"target": DISK}, {"subscriptions": ["other"]}, "policy.target-forbidden"),
        ({}, {"ops": ["sweep"]}, "policy.op-forbidden"),
    ],
)
def test_each_rule(changes: dict[str, Any], policy: dict[str, Any], code: str | None) -> None:
    config = parse({**FOLDERS, "policy": policy})
    assert forbidden(_upload(**changes), config) == code


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://evil.example",
        "http://a.blob.core.windows.net",
        "https://a.blob.core.windows.net.evil.example",
        "https://evil.example/.blob.core.windows.net",
        "https://a.blob.core.windows.net:8443",
    ],
)
def test_an_endpoint_that_only_looks_like_azure_is_forbidden(endpoint: str) -> None:
    target = AzurePageBlob(endpoint=endpoint, container="vhds", blob="a.vhd")
    assert forbidden(_upload(target=target), parse(FOLDERS)) == "policy.target-forbidden"


@pytest.mark.parametrize("field", ["management", "authority"])
def test_a_disks_own_endpoints_are_judged_too(field: str) -> None:
    fields = {"subscription": "s", "resource_group": "g", "location": "l", "disk": "d"}
    target = AzureDisk(**fields, **{field: "https://evil.example"})
    assert forbidden(_upload(target=target), parse(FOLDERS)) == "policy.target-forbidden"


AWS = {"region": "eu-central-1", "name": "golden"}
GCP = {"project": "golden-images", "bucket": "images", "image": "golden"}


def test_the_public_clouds_are_allowed_unless_the_site_says_otherwise() -> None:
    for target in (
        AwsSnapshot(**AWS),
        GcpImage(**GCP),
        AwsSnapshot(**AWS | {"region": "cn-north-1"}),
    ):
        assert forbidden(_upload(target=target), parse(FOLDERS)) is None
        only_azure = parse(FOLDERS | {"policy": {"endpoints": ["https://management.azure.com"]}})
        assert forbidden(_upload(target=target), only_azure) == "policy.target-forbidden"


@pytest.mark.parametrize("endpoint", ["https://evil.example", "https://amazonaws.com.evil.example"])
def test_endpoints_of_one_url_for_all_are_judged(endpoint: str) -> None:
    for target in (AwsSnapshot(**AWS, endpoint=endpoint), GcpImage(**GCP, endpoint=endpoint)):
        assert forbidden(_upload(target=target), parse(FOLDERS)) == "policy.target-forbidden"


def test_a_project_is_an_account_that_the_site_may_forbid() -> None:
    config = parse(FOLDERS | {"policy": {"subscriptions": ["other-*"]}})
    assert forbidden(_upload(target=GcpImage(**GCP)), config) == "policy.target-forbidden"


def test_a_china_region_is_judged_by_its_own_endpoint() -> None:
    config = parse(FOLDERS | {"policy": {"endpoints": ["https://*.amazonaws.com"]}})
    china = AwsSnapshot(**AWS | {"region": "cn-north-1"})
    assert forbidden(_upload(target=china), config) == "policy.target-forbidden"


def test_a_cancel_is_never_forbidden() -> None:
    args = encode(CancelArgs(id=b"i" * 16, digest=bytes(32)))
    config = parse({"policy": {"ops": []}})
    assert forbidden(w.command(op="cancel", args=args), config) is None


def test_bad_arguments_are_left_to_the_acceptor() -> None:
    assert forbidden(w.command(op="upload", args=b"\xc1"), parse({})) is None
