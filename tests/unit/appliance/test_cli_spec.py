"""The TOML spec: what it becomes, what it refuses, and that a secret written out never gets through."""

from pathlib import Path
from typing import Any

import pytest

from appliance.cli.image import check
from appliance.cli.spec import BadSpec, load_upload, rate, seconds, upload_spec, without_secrets

WHOLE = """
appliance = "site-1"
path = "golden/win11.vhdx"
format = "vhdx"
workflow = "spring"
[source]
kind = "smb"
server = "fs01.example"
share = "images"
[source.credential]
username = "svc"
password_file = "smb.secret"
domain = "CORP"
[target]
kind = "azure-disk"
subscription = "s-1"
resource_group = "desktops"
location = "westeurope"
disk = "win11"
[target.credential]
tenant_id = "t"
client_id = "c"
client_secret_file = "azure.secret"
[options]
if_exists = "new-version"
verify = "sample"
bandwidth = "50MiB/s"
valid = "12h"
timeout = "2d"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("smb.secret", "pass word\n"), ("azure.secret", "s3cret")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "job.toml").write_text(WHOLE)
    return tmp_path


def small(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "appliance": "site-1",
        "path": "a.raw",
        "source": {"kind": "local", "name": "disks"},
        "target": {"kind": "local", "name": "cloud", "disk": "d"},
    }
    return plain | changes


def test_a_whole_spec_becomes_the_signers_json(folder: Path) -> None:
    spec = load_upload(folder / "job.toml")
    check(spec)
    assert spec["valid_s"] == 12 * 3600
    assert spec["workflow"] == "spring"
    args = spec["args"]
    assert args["bandwidth"] == 50 * 1024**2
    assert args["timeout_s"] == 2 * 86400
    assert args["source"]["credential"] == {
        "username": "svc",
        "password": "pass word",
        "domain": "CORP",
    }
    assert args["target"]["credential"]["client_secret"] == "s3cret"


def test_what_is_shown_holds_no_secret(folder: Path) -> None:
    shown = str(without_secrets(load_upload(folder / "job.toml")))
    assert "pass word" not in shown
    assert "s3cret" not in shown
    assert "svc" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aplliance": "x"}, "did you mean appliance"),
        ({"options": {"verif": "full"}}, "did you mean verify"),
        ({"options": {"bandwidth": "fast"}}, "no rate"),
        ({"options": {"valid": "1 week"}}, "no duration"),
        ({"appliance": ""}, "no appliance"),
        ({"source": {}}, r"no \[source\]"),
        ({"source": {"name": "disks"}}, "no kind"),
        ({"source": "disks"}, "no table"),
        ({"source": {"kind": "smb", "credential": {"password": "x"}}}, "secrets are files"),
        ({"source": {"kind": "smb", "credential": {"password_file": "gone"}}}, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        upload_spec(small(**changes), folder=tmp_path)


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    (tmp_path / "s").chmod(0o644)
    source = {"kind": "smb", "credential": {"password_file": "s"}}
    with pytest.raises(BadSpec, match="chmod 600"):
        upload_spec(small(source=source), folder=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": {"kind": "local", "name": "cloud", "disk": "d", "size": 3}}, "size"),
        ({"target": {"kind": "floppy"}}, "floppy"),
        ({"options": {"if_exists": "maybe"}}, "if_exists"),
        ({"format": "vmdk"}, "format"),
    ],
)
def test_the_ops_struct_is_held_before_anything_is_sent(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadSpec, match=message):
        check(upload_spec(small(**changes), folder=tmp_path))


@pytest.mark.parametrize(("text", "value"), [("1KiB/s", 1024), ("2 GiB", 2 * 1024**3), (7, 7)])
def test_rates(text: object, value: int) -> None:
    assert rate(text) == value


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("30m", 1800), ("7d", 7 * 86400), (5, 5)])
def test_durations(text: object, value: int) -> None:
    assert seconds(text) == value
