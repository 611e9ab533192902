"""The quickstart's commands against the real processes: what is printed, and the exit codes."""

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.demo.processes import imageport
from imaging.units import MiB
from tests.support.stack import APPLIANCE, Stack

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


def cli(stack: Stack, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = imageport(*arguments, "--client", stack.keys / "client.toml")
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_an_upload_is_followed_to_its_end(stack: Stack) -> None:
    done = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="one"), "--watch")
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "sha256:" in done.stdout
    assert "running" in done.stderr
    assert (stack.cloud / "one.raw").read_bytes() == (stack.share / "a.raw").read_bytes()


def test_a_plan_sends_nothing(stack: Stack) -> None:
    before = cli(stack, "job", "list", "--json").stdout
    done = cli(
        stack, "image", "upload", "--spec", write_spec(stack, disk="two"), "--plan", "--json"
    )
    assert json.loads(done.stdout)["schema"] == "image-plan/1"
    assert cli(stack, "job", "list", "--json").stdout == before


def test_a_failed_job_says_code_and_fix_and_ends_with_one(stack: Stack) -> None:
    done = cli(
        stack, "image", "upload", "--spec", write_spec(stack, disk="x", path="gone.raw"), "--watch"
    )
    assert done.returncode == 1
    assert "share.not-found" in done.stdout
    assert "fix:" in done.stdout


def test_jobs_are_listed_and_shown_by_the_beginning_of_their_id(stack: Stack) -> None:
    job = cli(stack, "image", "upload", "--spec", write_spec(stack, disk="three")).stdout.strip()
    assert cli(stack, "job", "watch", job).returncode == 0
    listed = json.loads(cli(stack, "job", "list", "--json").stdout)
    assert listed["schema"] == "jobs/1"
    assert job in [item["id"] for item in listed["jobs"]]
    shown = json.loads(cli(stack, "job", "show", job[:12], "--json").stdout)
    assert (shown["schema"], shown["id"], shown["evidence"]) == ("job/1", job, "relay")


def test_watching_as_json_gives_lines_and_the_job(stack: Stack) -> None:
    done = cli(
        stack, "image", "upload", "--spec", write_spec(stack, disk="four"), "--watch", "--json"
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["schema"] == "job/1"
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


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("job", "show", "ffff"), 66, "cli.job-unknown"),
        (("job", "show", "f" * 32), 66, "fix:"),
        (("image", "upload", "--spec", "gone.toml"), 65, "cli.bad-spec"),
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
    assert "Traceback" not in done.stderr
