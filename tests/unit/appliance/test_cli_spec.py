"""The TOML spec: what it becomes, what it refuses, and that a secret written out never gets through."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from agent.secrets import Secret
from agent.targets.azure.credentials import read_credential
from appliance.cli.credential import SECRETS, open_credential
from appliance.cli.image import check
from appliance.cli.spec import load_upload, rate, seconds, upload_spec, without_secrets
from appliance.cli.speckeys import BadSpec

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


TARGET = {"kind": "local", "name": "cloud", "disk": "d"}
AZURE = {
    "kind": "azure-disk",
    "subscription": "s",
    "resource_group": "g",
    "location": "westeurope",
    "disk": "d",
}


def small(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "appliance": "site-1",
        "path": "a.raw",
        "source": {"kind": "local", "name": "disks"},
        "target": TARGET,
    }
    return plain | changes


def smb(**credential: object) -> dict[str, Any]:
    return {"source": {"kind": "smb", "credential": credential}}


def blob(**credential: object) -> dict[str, Any]:
    return {"target": {"kind": "azure-page-blob", "credential": credential}}


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


@pytest.mark.parametrize(
    "keys",
    [("account_key",), ("sas",), ("tenant_id", "client_id", "client_secret")],
    ids=" ".join,
)
def test_the_agent_takes_every_credential_that_a_spec_may_hold(
    tmp_path: Path, keys: tuple[str, ...]
) -> None:
    (tmp_path / "s").write_text("x")
    (tmp_path / "s").chmod(0o600)
    table = {k if f"{k}_file" not in SECRETS else f"{k}_file": "s" for k in keys}
    opened = open_credential(table, kind="azure-page-blob", place="target", folder=tmp_path)
    assert set(opened) == set(keys)
    read_credential({key: Secret(text) for key, text in opened.items()})


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
        ({"options": {"bandwidth": "fast"}}, r"\[options\] bandwidth: 'fast' is no rate"),
        ({"options": {"valid": "1 week"}}, r"\[options\] valid: '1 week' is no duration"),
        ({"options": {"timeout": "x" * 999}}, "timeout: 'x{39}... is no duration"),
        ({"appliance": 3}, "appliance is 3, expected text"),
        ({"path": datetime.date(2026, 5, 1)}, "path is 2026-05-01, which is neither"),
        ({"target": {**TARGET, "disk": datetime.time(9)}}, "target.disk is 09:00:00"),
        ({"options": {"verify": float("nan")}}, "options.verify is nan"),
        ({"appliance": ""}, "no appliance"),
        ({"source": {}}, r"no \[source\]"),
        ({"source": {"name": "disks"}}, "no kind"),
        ({"source": "disks"}, "no table"),
        ({"source": {"kind": "smb", "credential": {"password": "x"}}}, "secrets are files"),
        ({"source": {"kind": "local", "names": "disks"}}, "did you mean name"),
        ({"source": {"kind": "locale", "name": "disks"}}, "did you mean local"),
        ({"source": {"kind": ["smb"]}}, "unknown kind"),
        ({"source": {"kind": "local", "name": "d", "credential": {}}}, "takes no credential"),
        (smb(usrname="svc", password_file="s"), "did you mean username"),
        (smb(username="svc", passwd="hunter2"), "did you mean password_file"),
        (smb(username="svc"), "holds username; expected"),
        (smb(username=7, password_file="s"), "username is no text"),
        (blob(key="hunter2"), "unknown key 'key'"),
        (blob(sas_file="s", account_key_file="s"), "holds sas_file, account_key_file; expected"),
        (blob(tenant_id="t", client_id="c"), "holds tenant_id, client_id; expected"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec, match=message) as caught:
        upload_spec(small(**changes), folder=tmp_path)
    assert "hunter2" not in str(caught.value)


def test_what_is_shown_hides_every_value_that_is_not_known_to_be_public() -> None:
    spec = {"args": {"target": {"credential": {"username": "svc", "passwd": "hunter2"}}}}
    shown = without_secrets(spec)["args"]["target"]["credential"]
    assert shown == {"username": "svc", "passwd": "[secret]"}


def test_a_tag_that_is_named_like_a_secret_is_shown() -> None:
    spec = {"args": {"target": {"tags": {"password": "changed in May"}}}}
    assert without_secrets(spec) == spec


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    (tmp_path / "s").chmod(0o644)
    with pytest.raises(BadSpec, match=r"\[source.credential\] password_file .*chmod 600"):
        upload_spec(small(**smb(username="u", password_file="s")), folder=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": {"kind": "local", "name": "cloud", "disk": "d", "size": 3}}, "size"),
        ({"target": {"kind": "floppy"}}, "floppy"),
        ({"options": {"if_exists": "maybe"}}, "if_exists"),
        ({"format": "vdi"}, "format"),
        ({"appliance": "Site 1"}, "`appliance`"),
        ({"workflow": "Spring 2026"}, "`workflow`"),
        ({"workflow": 3}, "`workflow`"),
        ({"options": {"valid": "0s"}}, r"`options\.valid`"),
        ({"options": {"valid": "99999d"}}, r"`options\.valid`"),
        ({"options": {"start_by": -5}}, r"`options\.start_by`"),
        ({"options": {"timeout": "1s"}}, r"`options\.timeout`"),
        ({"options": {"bandwidth": 7}}, r"`options\.bandwidth`"),
        ({"target": {**AZURE, "tags": {"team": 1}}}, r"`target\.tags\[\.\.\.\]`"),
        ({"path": "x" * 70_000}, "path"),
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
