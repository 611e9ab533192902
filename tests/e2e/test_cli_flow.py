"""The quickstart's commands against the real processes: what is printed, and the exit codes."""

import json
import random
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance import keyfiles
from appliance.controlplane import new_api_secret
from appliance.demo.processes import imageport
from imaging.units import MiB
from protocol.messages import Kind, Record
from protocol.sealing import SealKey
from protocol.signed import SigningKey, sign
from tests.support.stack import APPLIANCE, TENANT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("cli")) as stack:
        (stack.share / "a.raw").write_bytes(random.Random(1).randbytes(2 * MiB))
        (stack.share / "big.raw").write_bytes(random.Random(2).randbytes(24 * MiB))
        stack.start_all()
        yield stack


def write_spec(stack: Stack, *, disk: str, path: str = "a.raw", bandwidth: str = "") -> Path:
    spec = stack.folder / "job.toml"
    limit = f'[options]\nbandwidth = "{bandwidth}"\n' if bandwidth else ""
    spec.write_text(
        f'appliance = "{APPLIANCE}"\npath = "{path}"\nformat = "raw"\n[source]\nkind = "local"\nname = "disks"\n'
        f'[target]\nkind = "local"\nname = "cloud"\ndisk = "{disk}"\n{limit}'
    )
    return spec


def cli(
    stack: Stack, *arguments: str | Path, client: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    command = imageport(*arguments, "--client", client or stack.keys / "client.toml")
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_an_upload_is_followed_to_its_end(stack: Stack) -> None:
    done = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="one"), "--watch")
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "sha256:" in done.stdout
    assert "signed by the appliance, verified here\n" in done.stdout
    assert "running" in done.stderr
    assert (stack.cloud / "one.raw").read_bytes() == (stack.share / "a.raw").read_bytes()


def test_a_plan_makes_nothing_and_says_what_would_be(stack: Stack) -> None:
    spec = write_spec(stack, disk="two")
    done = cli(stack, "image", "upload", "--spec", spec, "--plan", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["schema"] == "image-plan/1"
    plan = shown["plan"]
    assert plan["objects"] == [f"file {stack.cloud / 'two.raw'}"]
    assert plan["problems"] == plan["missing"] == []
    assert plan["bytes"] == (stack.share / "a.raw").stat().st_size
    assert not list(stack.cloud.glob("two*"))
    text = cli(stack, "image", "upload", "--spec", spec, "--plan").stdout
    assert "creates:" in text
    assert "sends:" in text


def test_a_plan_offline_asks_nobody(stack: Stack) -> None:
    before = cli(stack, "job", "list", "--json").stdout
    spec = write_spec(stack, disk="two")
    done = cli(stack, "image", "upload", "--spec", spec, "--plan", "--offline", "--json")
    assert json.loads(done.stdout)["plan"] is None
    assert cli(stack, "job", "list", "--json").stdout == before


def test_a_plan_names_what_would_stop_the_job(stack: Stack) -> None:
    (stack.cloud / "taken.raw").write_bytes(b"x" * 512)
    spec = write_spec(stack, disk="taken")
    done = cli(stack, "image", "upload", "--spec", spec, "--plan")
    assert done.returncode == 1
    assert "target.exists" in done.stdout
    assert "fix:" in done.stdout
    gone = cli(
        stack, "image", "upload", "--spec", write_spec(stack, disk="x", path="gone.raw"), "--plan"
    )
    assert gone.returncode == 1
    assert "share.not-found" in gone.stdout


def test_a_failed_job_says_code_and_fix_and_ends_with_one(stack: Stack) -> None:
    done = cli(
        stack, "image", "upload", "--spec", write_spec(stack, disk="x", path="gone.raw"), "--watch"
    )
    assert done.returncode == 1
    assert "share.not-found" in done.stdout
    assert "fix:" in done.stdout


def test_a_failed_job_is_retried_once_and_goes_on(stack: Stack) -> None:
    spec = write_spec(stack, disk="later", path="later.raw")
    failed = cli(stack, "image", "upload", "--spec", spec).stdout.strip()
    assert cli(stack, "job", "watch", failed).returncode == 1
    (stack.share / "later.raw").write_bytes(random.Random(3).randbytes(MiB))
    plan = cli(stack, "image", "upload", "--spec", spec, "--retry", failed[:9], "--plan")
    assert re.search(rf"retry_of: +{failed[:9]}\n", plan.stdout)
    done = cli(stack, "image", "upload", "--spec", spec, "--retry", failed[:9], "--watch")
    assert done.returncode == 0, done.stderr
    assert (stack.cloud / "later.raw").read_bytes() == (stack.share / "later.raw").read_bytes()
    again = cli(stack, "image", "upload", "--spec", spec, "--retry", failed)
    assert again.returncode == 1
    assert "signer.not-retryable" in again.stderr
    assert (
        "cli.job-unknown" in cli(stack, "image", "upload", "--spec", spec, "--retry", "zz").stderr
    )


def test_jobs_are_listed_and_shown_by_the_beginning_of_their_id(stack: Stack) -> None:
    job = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="three")).stdout.strip()
    assert cli(stack, "job", "watch", job).returncode == 0
    listed = json.loads(cli(stack, "job", "list", "--json").stdout)
    assert listed["schema"] == "jobs/1"
    assert job in [item["id"] for item in listed["jobs"]]
    shown = json.loads(cli(stack, "job", "show", job[:12], "--json").stdout)
    assert (shown["schema"], shown["id"]) == ("job/1", job)
    assert (shown["evidence"], shown["report_evidence"]) == ("device-signature",) * 2


def test_without_a_root_key_a_result_is_the_relays_word(stack: Stack) -> None:
    job = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="six")).stdout.strip()
    assert cli(stack, "job", "watch", job).returncode == 0
    plain = stack.keys / "no-root.toml"
    text = (stack.keys / "client.toml").read_text()
    plain.write_text(text.replace('root_file = "root.pub"', ""))
    shown = json.loads(cli(stack, "job", "show", job, "--json", client=plain).stdout)
    assert (shown["evidence"], shown["report_evidence"]) == ("relay", "relay")


def test_another_device_than_was_seen_before_is_refused_and_not_shown(stack: Stack) -> None:
    job = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="seven")).stdout.strip()
    assert cli(stack, "job", "watch", job).returncode == 0
    ours = keyfiles.read(stack.keys / "signer" / "record.key").signing_key()
    other = Record(
        v=1,
        tenant=TENANT,
        id=APPLIANCE,
        device_key=SigningKey.generate().public,
        seal_key=SealKey.generate().public,
        serial=1,
        epoch=1,
    )
    folder = stack.keys / "other-records"
    folder.mkdir()
    (folder / APPLIANCE).write_bytes(sign(Kind.RECORD, other, ours))
    client = stack.keys / "other.toml"
    text = (stack.keys / "client.toml").read_text()
    client.write_text(text.replace('records_dir = "records"', 'records_dir = "other-records"'))
    done = cli(stack, "job", "show", job, client=client)
    assert (done.returncode, done.stdout) == (76, "")
    assert "cli.bad-evidence" in done.stderr


def test_a_relay_that_holds_the_record_back_is_not_believed(stack: Stack) -> None:
    job = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="nine")).stdout.strip()
    assert cli(stack, "job", "watch", job).returncode == 0
    with closing(sqlite3.connect(stack.keys / "relay-data" / "relay.db")) as disk, disk:
        disk.execute("UPDATE kept SET kind = 'record-held-back' WHERE kind = 'record'")
    done = cli(stack, "job", "show", job)
    with closing(sqlite3.connect(stack.keys / "relay-data" / "relay.db")) as disk, disk:
        disk.execute("UPDATE kept SET kind = 'record' WHERE kind = 'record-held-back'")
    assert (done.returncode, done.stdout) == (76, "")
    assert "no signed record" in done.stderr
    assert cli(stack, "job", "show", job).returncode == 0


def test_watching_as_json_gives_lines_and_the_job(stack: Stack) -> None:
    done = cli(
        stack, "image", "upload", "--spec", write_spec(stack, disk="four"), "--watch", "--json"
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["schema"] == "job/1"
    assert {line["schema"] for line in lines[:-1]} == {"job-event/1"}
    assert lines[-2]["finished"] is True


def test_a_cancel_ends_a_running_job(stack: Stack) -> None:
    spec = write_spec(stack, disk="five", path="big.raw", bandwidth="128KiB/s")
    job = cli(stack, "image", "upload", "--spec", spec).stdout.strip()
    stack.wait(job, until=("running",))
    assert cli(stack, "job", "cancel", job).returncode == 0
    done = cli(stack, "job", "watch", job)
    assert done.returncode == 1
    assert "cancelled" in done.stdout
    assert not list(stack.cloud.glob("five*"))


def test_a_log_holds_every_state_in_order(stack: Stack) -> None:
    job = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="eight")).stdout.strip()
    assert cli(stack, "job", "watch", job).returncode == 0
    lines = [json.loads(x) for x in cli(stack, "job", "log", job, "--json").stdout.splitlines()]
    assert {line["schema"] for line in lines} == {"job-event/1"}
    states = [line["state"] for line in lines if line["type"] == "state"]
    assert states[-1] == "succeeded"
    assert len(states) == len(set(states))
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)


def test_an_api_key_that_the_relay_does_not_know_is_named(stack: Stack) -> None:
    client = with_file(stack, "api_key_file", "unknown.token", new_api_secret())
    done = cli(stack, "job", "list", client=client)
    assert done.returncode == 77, done.stderr
    assert "relay.unauthorized" in done.stderr


def test_a_caller_that_the_signer_does_not_know_may_not_order(stack: Stack) -> None:
    text = keyfiles.render(keyfiles.generate("caller", tenant=TENANT))
    client = with_file(stack, "caller_key_file", "unknown.key", text)
    spec = write_spec(stack, disk="nine")
    done = cli(stack, "image", "upload", "--spec", spec, "--json", client=client)
    assert done.returncode == 77, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["code"]) == ("error/1", "signer.not-authenticated")


def test_a_client_without_a_caller_key_may_look_and_not_order(stack: Stack) -> None:
    client = stack.keys / "looker.toml"
    text = (stack.keys / "client.toml").read_text()
    client.write_text(text.replace('caller_key_file = "caller.key"', ""))
    assert cli(stack, "job", "list", client=client).returncode == 0
    done = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="ten"), client=client)
    assert done.returncode != 0
    assert "no caller key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_sealed_to_another_vault_is_refused(stack: Stack) -> None:
    text = keyfiles.render(keyfiles.generate("vault", tenant=TENANT).public_half())
    client = with_file(stack, "vault_key_file", "other-vault.pub", text)
    secret = stack.folder / "smb.secret"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    spec = stack.folder / "smb.toml"
    spec.write_text(
        f'appliance = "{APPLIANCE}"\npath = "a.raw"\n[source]\nkind = "smb"\nserver = "nas"\nshare = "s"\n'
        '[source.credential]\nusername = "u"\npassword_file = "smb.secret"\n'
        '[target]\nkind = "local"\nname = "cloud"\ndisk = "x"\n'
    )
    done = cli(stack, "image", "upload", "--spec", spec, client=client)
    assert done.returncode == 65, done.stderr
    assert "seal" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout + stack.log("relay") + stack.log("signer")


def with_file(stack: Stack, key: str, name: str, text: str) -> Path:
    """Return a client.toml in which one key names another file with this content."""
    path = stack.keys / name
    path.write_text(text)
    path.chmod(0o600)
    client = stack.keys / f"{name}.toml"
    lines = (stack.keys / "client.toml").read_text().splitlines()
    lines = [f'{key} = "{name}"' if line.startswith(f"{key} =") else line for line in lines]
    client.write_text("\n".join(lines))
    return client


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("job", "show", "ffff"), 66, "cli.job-unknown"),
        (("job", "show", "f" * 32), 66, "fix:"),
        (("image", "upload", "--spec", "gone.toml"), 66, "cli.no-input"),
    ],
    ids=["beginning", "whole", "spec"],
)
def test_mistakes_are_named(stack: Stack, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = cli(stack, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_relay_that_is_away_is_a_clear_error(stack: Stack) -> None:
    wrong = stack.keys / "away.toml"
    wrong.write_text((stack.keys / "client.toml").read_text().replace(f":{stack.port}", ":9"))
    command = imageport("job", "list", "--client", wrong)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 75
    assert "relay.unreachable" in done.stderr
    assert done.stderr.count("trying again") == 1
    assert "Traceback" not in done.stderr
