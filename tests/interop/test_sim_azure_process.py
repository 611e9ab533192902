"""`imageport sim azure` as a process: prints its address, survives kill -9 with its state, explains bad arguments."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient, BlobServiceClient

pytestmark = pytest.mark.fault

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from appliance.cli.main import main; sys.exit(main())",
    "sim",
    "azure",
]
MIB = 1 << 20
STOP_SECONDS = 30.0


@contextmanager
def _simulator(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()  # not kill: it removes its temporary directory
        process.communicate(timeout=STOP_SECONDS)


def _blob(told: dict[str, Any]) -> BlobClient:
    credential = {"account_name": told["account"], "account_key": told["key"]}
    return BlobClient(told["blob_url"], "images", "golden", credential=credential)


def test_killed_simulator_comes_back_as_it_was(tmp_path: Path) -> None:
    state = ["--state", str(tmp_path)]
    with _simulator("--listen", "127.0.0.1:0", *state) as (process, told):
        credential = {"account_name": told["account"], "account_key": told["key"]}
        with BlobServiceClient(told["blob_url"], credential=credential) as service:
            service.create_container("images")
        with _blob(told) as blob:
            blob.create_page_blob(64 << 30, metadata={"origin": "abc"})
            blob.upload_page(b"x" * MIB, 32 << 30, MIB)
            blob.clear_page(32 << 30, 512)
            before = blob.get_blob_properties()
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_SECONDS)
    with _simulator("--listen", told["url"].rpartition("/")[2], *state) as (process, again):
        assert again == told
        with _blob(again) as blob:
            after = blob.get_blob_properties()
            assert (after.etag, after.metadata, after.size) == (
                before.etag,
                {"origin": "abc"},
                64 << 30,
            )
            found = [(page.start, page.end) for page in blob.list_page_ranges()]
            assert found == [((32 << 30) + 512, (32 << 30) + MIB - 1)]
            assert blob.download_blob((32 << 30) + 512, 4).readall() == b"xxxx"
    assert sum(file.stat().st_blocks for file in tmp_path.iterdir()) * 512 < 8 * MIB


def test_state_directory_takes_one_simulator_at_a_time(tmp_path: Path) -> None:
    arguments = ["--listen", "127.0.0.1:0", "--state", str(tmp_path)]
    with _simulator(*arguments):
        second = subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=STOP_SECONDS,
        )
    assert second.returncode == 69
    assert "in use by another simulator" in second.stderr


def test_sigterm_ends_it_well() -> None:
    with _simulator("--listen", "127.0.0.1:0") as (process, told):
        assert told["schema"] == "sim-azure/1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0


def test_fault_plan_is_read_from_its_file(tmp_path: Path) -> None:
    plan = tmp_path / "faults.toml"
    plan.write_text('[[fault]]\nop = "service.account"\naction = "status"\nstatus = 503\n')
    with _simulator("--listen", "127.0.0.1:0", "--faults", str(plan)) as (_process, told):
        credential = {"account_name": told["account"], "account_key": told["key"]}
        service = BlobServiceClient(told["blob_url"], credential=credential, retry_total=0)
        with service, pytest.raises(HttpResponseError, match="fault plan"):
            service.get_account_information()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--listen", "here"], 2, "cli.usage"),
        (["--listen", "127.0.0.1:70000"], 2, "cli.usage"),
        (["--tls-cert", "x"], 2, "cli.usage"),
        (["--faults", "missing.toml"], 66, "sim.file-missing"),
        (["--faults", os.devnull + "x"], 66, "sim.file-missing"),
        (["--tls-cert", "x", "--tls-key", "y"], 66, "sim.file-missing"),
        (["--listen", "192.0.2.1:1"], 69, "sim.cannot-start"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_arguments_are_explained(
    arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=STOP_SECONDS,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_fault_plan_is_a_configuration_error(tmp_path: Path) -> None:
    plan = tmp_path / "faults.toml"
    plan.write_text('[[fault]]\naction = "explode"\n')
    done = subprocess.run(
        [*COMMAND, "--faults", str(plan)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert "explode" in done.stderr
