"""Every op decodes its own args; what names hosts, paths and endpoints is bounded."""

from typing import Any

import pytest

from protocol.codec import encode
from protocol.errors import BadField
from protocol.ops import (
    OPS,
    SETTINGS,
    AzureDisk,
    AzurePageBlob,
    CancelArgs,
    DiagnosticsArgs,
    LocalShare,
    LocalTarget,
    OpArgs,
    PreflightArgs,
    SetLimitsArgs,
    SmbShare,
    SweepArgs,
    UploadArgs,
    parse_args,
)
from protocol.versions import own_caps, understands

UPLOAD = UploadArgs(
    source=SmbShare(server="files.example", share="images"),
    path="win11/image.vhdx",
    target=LocalTarget(name="lab", disk="win11"),
)
SAMPLES: dict[str, OpArgs] = {
    "upload": UPLOAD,
    "preflight": PreflightArgs(
        **{name: getattr(UPLOAD, name) for name in UPLOAD.__struct_fields__}
    ),
    "cancel": CancelArgs(id=b"I" * 16, digest=b"d" * 32),
    "sweep": SweepArgs(apply=True),
    "diagnostics": DiagnosticsArgs(checks=("relay", "clock")),
    "set-limits": SetLimitsArgs(bandwidth=10**6),
}


@pytest.mark.parametrize(("op", "args_v"), OPS, ids=str)
def test_every_op_decodes_its_args(op: str, args_v: int) -> None:
    assert parse_args(op, args_v, encode(SAMPLES[op])) == SAMPLES[op]


@pytest.mark.parametrize(("op", "args_v"), [("explode", 1), ("upload", 2)])
def test_an_unknown_op_or_version_names_itself(op: str, args_v: int) -> None:
    with pytest.raises(BadField) as caught:
        parse_args(op, args_v, b"\x80")
    assert caught.value.fields["op"] == op


TARGETS: list[Any] = [
    LocalTarget(name="lab", disk="win11"),
    AzurePageBlob(endpoint="https://x.blob.core.windows.net", container="vhds", blob="a/b.vhd"),
    AzureDisk(subscription="s", resource_group="rg", location="westeurope", disk="win11"),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: type(target).__name__)
def test_targets_are_told_apart_by_kind(target: Any) -> None:
    args = UploadArgs(source=LocalShare(name="golden"), path="a.vhd", target=target)
    assert parse_args("upload", 1, encode(args)) == args


def _upload(**changes: Any) -> bytes:
    plain = {
        "source": {"kind": "smb", "server": "files", "share": "images"},
        "path": "a.vhdx",
        "target": {"kind": "local", "name": "lab", "disk": "win11"},
    }
    return encode(plain | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": ""},
        {"format": "exe"},
        {"verify": "never"},
        {"bandwidth": 1},
        {"source": {"kind": "smb", "server": "a/b", "share": "images"}},
        {"source": {"kind": "smb", "server": "files", "share": "a\\b"}},
        {"source": {"kind": "smb", "server": "files", "share": "images", "port": 0}},
        {"source": {"kind": "nfs", "server": "files", "share": "images"}},
        {"target": {"kind": "local", "name": "../etc", "disk": "win11"}},
        {"target": {"kind": "local", "name": "lab", "disk": "../win11"}},
        {
            "target": {
                "kind": "azure-page-blob",
                "endpoint": "file:///x",
                "container": "vhds",
                "blob": "b",
            }
        },
        {
            "target": {
                "kind": "azure-page-blob",
                "endpoint": "https://u@h",
                "container": "vhds",
                "blob": "b",
            }
        },
    ],
    ids=lambda changes: str(changes)[:50],
)
def test_args_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    assert parse_args("upload", 1, _upload())
    with pytest.raises(BadField):
        parse_args("upload", 1, _upload(**changes))


def test_settings_are_ops() -> None:
    assert {op for op, _ in OPS} >= SETTINGS


def test_a_release_understands_what_it_announces() -> None:
    caps = own_caps()
    assert all(understands(caps, op=op, args_v=args_v) for op, args_v in OPS)
    assert not understands(caps, op="explode", args_v=1)
    assert not understands(caps, op="upload", args_v=1, header=2)
    assert not understands((), op="upload", args_v=1)
