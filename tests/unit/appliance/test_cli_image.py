"""`imageport image upload --plan`: says what would be ordered, asks no relay, shows no secret."""

import json
from pathlib import Path

import pytest

from appliance.cli.main import main

SPEC = """
appliance = "site-1"
path = "golden/win11.vhdx"
workflow = "spring"
[source]
kind = "smb"
server = "fs01.example"
share = "images"
[source.credential]
username = "svc-images"
password_file = "smb.secret"
[target]
kind = "local"
name = "cloud"
disk = "golden"
[options]
bandwidth = "50MiB/s"
valid = "12h"
start_by = "6h"
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "smb.secret").write_text("hunter2")
    (tmp_path / "smb.secret").chmod(0o600)
    path = tmp_path / "job.toml"
    path.write_text(SPEC)
    return path


def plan(spec: Path, *more: str) -> int:
    # a client.toml that is not there: a plan must not look for it
    client = spec.with_name("client.toml")
    return main(["image", "upload", "--spec", str(spec), "--client", str(client), "--plan", *more])


def test_a_plan_names_the_places_and_no_secret(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(spec) == 0
    shown = capsys.readouterr()
    assert "fs01.example" in shown.out
    assert "golden/win11.vhdx" in shown.out
    rows = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert (rows["workflow:"], rows["valid_s:"], rows["start_by_s:"]) == (
        "spring",
        "43200",
        "21600",
    )
    assert "nothing was sent" in shown.err
    assert "hunter2" not in shown.out + shown.err


def test_a_plan_as_json_is_the_order_without_the_secret(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(spec, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "image-plan/1"
    assert shown["args"]["bandwidth"] == 50 * 1024**2
    assert shown["args"]["source"]["credential"] == {
        "username": "svc-images",
        "password": "[secret]",
    }


def test_what_the_op_refuses_is_refused_by_a_plan_too(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(SPEC.replace("50MiB/s", "1KiB/s"))
    assert plan(spec) == 65
    assert "bandwidth" in capsys.readouterr().err


def test_without_a_plan_the_missing_client_file_is_named(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = spec.with_name("client.toml")
    assert main(["image", "upload", "--spec", str(spec), "--client", str(client)]) == 78
    said = capsys.readouterr().err
    assert "cli.client-config" in said
    assert str(client) in said
