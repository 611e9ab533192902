"""How a share is named on the command line, and the file with its account."""

from pathlib import Path

import pytest

from agent.shares.smb.ref import SmbShareRef
from appliance.doctor.sharespec import (
    BadCredentialFile,
    BadShare,
    NoCredentialFile,
    parse_share,
    read_credential,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smb://fs01/ips", SmbShareRef("fs01", "ips")),
        ("smb://fs01:1445/ips/golden/2026", SmbShareRef("fs01", "ips", 1445, "golden/2026")),
        ("smb://fs01/with%20space/", SmbShareRef("fs01", "with space")),
    ],
)
def test_a_url_names_a_share(url: str, expected: SmbShareRef) -> None:
    assert parse_share(url) == expected


@pytest.mark.parametrize(
    "url", ["smb://fs01", "smb:///ips", "http://fs01/ips", "smb://u:p@fs01/ips", "smb://fs01:x/ips"]
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(BadShare):
        parse_share(url)


def _file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "credential"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_is_that_of_mount_cifs(tmp_path: Path) -> None:
    path = _file(tmp_path, "username=svc\npassword=a=b, c\ndomain=CORP\n")
    credential = read_credential(path)
    assert (credential.principal, credential.password.reveal()) == ("CORP\\svc", "a=b, c")


@pytest.mark.parametrize(
    ("text", "mode"),
    [("username=svc\npassword=hunter2\n", 0o640), ("hunter2", 0o600), ("username=svc\n", 0o600)],
    ids=["open to others", "another form", "no password"],
)
def test_a_file_that_will_not_do_is_named_and_not_shown(
    tmp_path: Path, text: str, mode: int
) -> None:
    path = _file(tmp_path, text, mode)
    with pytest.raises(BadCredentialFile, match=str(path)) as caught:
        read_credential(path)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoCredentialFile, match="No such file"):
        read_credential(tmp_path / "none")
