"""`imageport doctor share` against real Samba: each step judged by itself, nothing left behind, no password told."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from agent.config import Loaded, parse
from agent.secrets import Secret
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from appliance.demo.processes import imageport
from appliance.doctor.base import Context, Finding, Options, Status
from appliance.doctor.registry import choose
from appliance.doctor.run import examine
from tests.support.samba import samba_rig

pytestmark = pytest.mark.e2e


async def _examined(*, options: Options) -> dict[str, Finding]:
    context = Context(Loaded(parse({}), {}), options, time.time)
    found = await examine(choose(["share"]), context, timeout_s=60)
    return {finding.id: finding for finding in found}


async def test_a_share_says_what_was_agreed_with_the_server() -> None:
    with samba_rig() as rig:
        options = Options(SmbShareRef("127.0.0.1", "plain", rig.server.port), rig.credential())
        found = await _examined(options=options)
        wrong = SmbCredential(rig.server.user.name, Secret("not this one"))
        refused = await _examined(options=Options(options.share, wrong))
    share = found["share.smb"]
    assert share.status is Status.PASS
    assert share.evidence["dialect"] == "3.1.1"
    assert found["share.free"].evidence["free"] > 0
    assert "AES" in share.evidence["encryption"]
    assert refused["share.smb"].status is Status.FAIL
    assert refused["share.smb"].evidence["code"] == "share.logon-failed"
    assert "not this one" not in repr(refused)
    for part in ("name", "port", "write", "sparse", "rates"):
        assert found[f"share.{part}"].status is Status.PASS, found[f"share.{part}"]
    assert found["share.rates"].evidence["read_bytes_s"] > 0
    assert refused["share.port"].status is Status.PASS
    assert refused["share.write"].status is Status.SKIP


async def test_a_share_that_may_only_be_read_is_a_warning_and_nothing_is_left_on_one() -> None:
    with samba_rig(shares={"ro": {"read only": "yes"}}) as rig:
        for name, judged in (("ro", Status.WARN), ("plain", Status.PASS)):
            options = Options(SmbShareRef("127.0.0.1", name, rig.server.port), rig.credential())
            found = await _examined(options=options)
            assert found["share.write"].status is judged
            assert found["share.write"].fix or judged is Status.PASS
        assert list(rig.folder.iterdir()) == []


async def test_a_server_that_is_not_there_is_told_by_its_step() -> None:
    with samba_rig() as rig:
        port, credential = rig.server.port, rig.credential()
    gone = await _examined(options=Options(SmbShareRef("127.0.0.1", "plain", port), credential))
    assert gone["share.port"].status is Status.FAIL
    assert "firewall" in gone["share.port"].fix
    assert gone["share.smb"].status is Status.SKIP
    nameless = Options(SmbShareRef("nowhere.invalid", "plain", port), credential)
    assert (await _examined(options=nameless))["share.name"].status is Status.FAIL


def test_the_answer_is_all_that_stdout_gets(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[relay]\nurl = "https://relay.example"\n')
    with samba_rig() as rig:
        user = rig.server.user
        secret = tmp_path / "secret"
        secret.write_text(f"username={user.name}\npassword={user.password}\n")
        secret.chmod(0o600)
        done = subprocess.run(
            [
                *imageport("doctor"), "share", "--json", "--config", str(tmp_path / "agent.toml"),
                "--share", f"smb://127.0.0.1:{rig.server.port}/plain",
                "--credential-file", str(secret),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert json.loads(done.stdout)["schema"] == "doctor/1"
    assert user.password not in done.stdout + done.stderr
