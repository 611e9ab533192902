"""`imageport doctor --spec`: the share, its account and the target's services are those of the job."""

from pathlib import Path

import pytest

from appliance.cli.doctor import of_spec
from appliance.cli.main import main
from appliance.cli.spec import load_upload
from appliance.cli.speckeys import BadSpec

SPEC = """
appliance = "site-1"
path = "golden.vhdx"
[source]
kind = "smb"
server = "fs01.example"
share = "images"
folder = "golden"
[source.credential]
username = "svc"
password_file = "smb.secret"
[target]
kind = "aws-s3"
region = "eu-central-1"
bucket = "images"
name = "golden"
[target.credential]
profile = "site"
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    secret = tmp_path / "smb.secret"
    secret.write_text("password")
    secret.chmod(0o600)
    (tmp_path / "job.toml").write_text(SPEC)
    return tmp_path / "job.toml"


def test_everything_that_the_job_asks_is_tried(spec: Path) -> None:
    options = of_spec(load_upload(spec), ("https://more.example",))
    assert str(options.share) == r"\\fs01.example\images"
    assert options.credential.username == "svc"
    assert options.credential.password.reveal() == "password"
    hosts = [url.removeprefix("https://").partition(".")[0] for url in options.targets]
    assert hosts == ["more", "sts", "ec2", "s3"]


def test_a_folder_as_source_asks_for_no_share(spec: Path) -> None:
    plain = load_upload(spec)
    plain["args"]["source"] = {"kind": "local", "name": "disks"}
    assert of_spec(plain, ()).share is None


def test_a_target_that_does_not_fit_is_named(spec: Path) -> None:
    plain = load_upload(spec)
    plain["args"]["target"]["bucket"] = "No Bucket"
    with pytest.raises(BadSpec, match=r"\[target\].*bucket"):
        of_spec(plain, ())


def test_a_share_beside_the_spec_is_refused(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = str(spec.parent / "smb.secret")
    share = ["--share", "smb://fs01/images", "--credential-file", secret]
    assert main(["doctor", "--spec", str(spec), *share]) == 2
    assert "--spec names the share" in capsys.readouterr().err
