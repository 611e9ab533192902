"""Local policy: what the appliance's owner forbids, whoever signed it."""

from typing import Any

import pytest

from agent.config import parse
from agent.policy import forbidden
from protocol.codec import encode
from protocol.ops import (
    AzureDisk,
    AzurePageBlob,
    CancelArgs,
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


def test_a_cancel_is_never_forbidden() -> None:
    args = encode(CancelArgs(id=b"i" * 16, digest=bytes(32)))
    config = parse({"policy": {"ops": []}})
    assert forbidden(w.command(op="cancel", args=args), config) is None


def test_bad_arguments_are_left_to_the_acceptor() -> None:
    assert forbidden(w.command(op="upload", args=b"\xc1"), parse({})) is None
