"""Scrubbing: nothing secret is left, and what is not secret stays readable."""

import base64
from pathlib import Path

import pytest

from agent.config import parse
from agent.identity import FOLDER
from appliance.scrub import Scrubber, known_secrets

_KEY = bytes(range(200, 232))


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "PASSWORD: hunter2",
        'db_password = "hunter2 with blanks"',
        "{'client_secret': 'hunter2'}",
        "AZURE_CLIENT_SECRET=hunter2",
        "api-key: hunter2",
        "Authorization: Basic hunter2",
        "https://a.blob/x?sv=1&sig=hunter2&se=2",
        "https://user:hunter2@proxy/",
        "AccountName=a;AccountKey=hunter2;x",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2 and the file was cut",
    ],
)
def test_secrets_go_by_their_look(text: str) -> None:
    assert "hunter2" not in Scrubber(()).text(text)


def test_an_enrolment_token_loses_its_secret_part() -> None:
    secret = base64.urlsafe_b64encode(_KEY).decode().rstrip("=")
    text = f"enrolling with t-1.{secret}.{'a' * 52} at the relay"
    assert Scrubber(()).text(text) == f"enrolling with t-1.[secret].{'a' * 52} at the relay"


def test_known_values_go_wherever_they_stand() -> None:
    scrubber = Scrubber(["s3cr3t-value"])
    assert scrubber.text("found s3cr3t-value here") == "found [secret] here"
    assert "s3cr3t" not in scrubber.json({"a": ["xs3cr3t-valuex"]})
    assert "s3cr3t" not in scrubber.log_line('{"event": "s3cr3t-value"}')


def test_a_log_line_in_json_stays_json_and_loses_secrets_by_key_and_by_look() -> None:
    line = '{"event": "token: hunter2", "password": "hunter2", "bytes": 17}'
    clean = Scrubber(()).log_line(line)
    assert "hunter2" not in clean
    assert '"bytes": 17' in clean


@pytest.mark.parametrize(
    "text",
    [
        "uploaded 17 of 20 MiB to https://a.blob.core.windows.net/disk.vhd",
        "sha256:" + "ab" * 32,
        "accepted order 7 of epoch 1",
        "the proxy wants a password",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Scrubber(()).text(text) == text


def test_a_line_without_end_costs_no_more_than_its_length() -> None:
    """Would run for minutes, and so into the hang guard, if a pattern looked back and forth."""
    text = "a" * 2_000_000 + "://" + "b:" * 100_000 + " password=hunter2"
    assert "hunter2" not in Scrubber(()).text(text)


def test_every_form_of_this_appliances_secrets_is_known(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "device.key").write_bytes(_KEY)
    credentials = tmp_path / "proxy"
    credentials.write_text('svc:with "quotes"\n')
    config = parse(
        {"state_dir": str(tmp_path), "relay": {"proxy_credentials_file": str(credentials)}}
    )
    known = known_secrets(config)
    assert {_KEY.hex(), base64.b64encode(_KEY).decode(), repr(_KEY)[2:-1]} <= known
    assert {'with "quotes"', r"with \"quotes\""} <= known


def test_a_folder_that_cannot_be_read_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse({"state_dir": str(tmp_path / "none")})
    assert known_secrets(config) == set()

    def refuse(*_args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "glob", refuse)
    assert known_secrets(config) == set()
