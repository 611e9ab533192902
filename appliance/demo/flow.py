"""The demo's story: control plane -> signer -> relay -> agent -> SMB share -> converter -> cloud, then the proof.

Every part is a process of its own, started by the same commands that the README gives; what is told goes to `tell`.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import keyfiles
from appliance.demo.place import IMAGE, Place, make_place, unpack_image
from appliance.demo.processes import DemoFailed, Process, Processes, imageport, run
from appliance.demo.readback import make_container, read_back, root_of
from appliance.demo.settings import TENANT, Settings, make_settings, write_agent
from relay.client import RelayClient

START_S = 30.0
CONTAINER, BLOB = "images", "golden.vhd"
BANDWIDTH = 1024 * 1024
"""Bytes a second: the image holds few, and a transfer that nobody sees is no demo."""

Tell = Callable[[str], None]
ShowProgress = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo proved.

    Attributes:
        root: Root of the source image, which is also that of the blob as read back.
        result: The job as the relay shows it.
        seconds: From the order to the signed result.
    """

    root: str
    result: dict[str, Any]
    seconds: float


async def run_demo(work: Path, tell: Tell, progress: ShowProgress) -> Shown:
    """Start everything in `work`, move the image, verify it, stop everything.

    Raises:
        DemoFailed: Some part did not do its work; with what it said.
    """
    with ExitStack() as stack:
        settings = make_settings(work, now_ms=time.time_ns() // 1_000_000)
        processes = Processes(work / "logs")
        image = unpack_image(settings.images)
        place = stack.enter_context(make_place(work, settings.images))
        stack.callback(processes.stop_all)
        account = _start_cloud(processes, work)
        _start_control_plane(processes, settings, tell)
        _start_agent(processes, settings, account, tell)
        tell(f"image: {IMAGE} on {place.told}")
        tell(f"target: page blob {CONTAINER}/{BLOB} at {account['blob_url']} (sim azure)")
        result, seconds = await _move(settings, _spec(place, account), tell, progress)
        return Shown(_prove(settings, account, image, result, tell), result, seconds)


def _start_cloud(processes: Processes, work: Path) -> dict[str, Any]:
    command = imageport("sim", "azure", "--listen", "127.0.0.1:0", "--state", work / "azure")
    process = processes.start("sim-azure", command)
    processes.wait_until("sim azure", lambda: _json_in(process) is not None, seconds=START_S)
    account = _json_in(process)
    if account is None:
        raise DemoFailed("sim azure gave no address")
    make_container(account, CONTAINER)
    return account


def _json_in(process: Process) -> dict[str, Any] | None:
    """Return the JSON object that a process printed first, None while it is not whole."""
    try:
        plain = json.loads(process.log.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return plain if isinstance(plain, dict) else None


def _start_control_plane(processes: Processes, settings: Settings, tell: Tell) -> None:
    processes.start("relay", imageport("relay", "serve", "--config", settings.config("relay")))
    processes.start("signer", imageport("signer", "serve", "--config", settings.config("signer")))
    processes.wait_until("the signer's socket", settings.socket.exists, seconds=START_S)
    run(
        imageport(
            "signer", "caller", "add", settings.keys / "caller.pub", "--tenant", TENANT,
            "--name", "demo", "--socket", settings.socket,
        )
    )  # fmt: skip
    tell(f"relay: {settings.relay_url}; signer: a process of its own, keys in {settings.keys}")


def _start_agent(
    processes: Processes, settings: Settings, account: dict[str, Any], tell: Tell
) -> None:
    origin = account["blob_url"].rsplit("/", maxsplit=1)[0]
    write_agent(settings, endpoint=origin)
    token = run(imageport("token", "new", "--tenant", TENANT, "--socket", settings.socket))
    config = settings.config("agent")
    enrol = imageport(
        "appliance", "enroll", "--relay", settings.relay_url, "--token-file", "-",
        "--config", config, "--name", "appliance-1",
    )  # fmt: skip
    _until_done(processes, enrol, given=token)
    processes.start("agent", imageport("agent", "run", "--config", config))
    tell("agent: enrolled with a one-use token, dials out only")


def _until_done(processes: Processes, command: list[str], *, given: bytes) -> None:
    """Run a command that may come too early: the signer dials the relay in its own time."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            run(command, given=given)
        except DemoFailed:
            processes.check_alive()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


async def _move(
    settings: Settings, spec: dict[str, Any], tell: Tell, progress: ShowProgress
) -> tuple[dict[str, Any], float]:
    """Order the job, show its events, return it as it ended and the seconds that it took."""
    caller = keyfiles.read(settings.keys / "caller.key").signing_key()
    vault = keyfiles.read(settings.keys / "vault.pub").public
    async with RelayClient(
        settings.relay_url, api_key=settings.api_key, caller=caller, vault_key=vault
    ) as client:
        appliance = await _only_appliance(client)
        began = time.monotonic()
        job = await client.submit({**spec, "appliance": appliance})
        tell(f"job: {job.id}, signed by the signer, secrets sealed to {appliance}")
        async for event in job.watch():
            progress(event.state, event.data)
        result = await client.job(job.id)
    if result["state"] != "succeeded":
        raise DemoFailed(f"the job ended as {result['state']}: {json.dumps(result, indent=1)}")
    return result, time.monotonic() - began


async def _only_appliance(client: RelayClient) -> str:
    name: str = (await client.appliances())[0]["id"]
    return name


def _spec(place: Place, account: dict[str, Any]) -> dict[str, Any]:
    return {
        "tenant": TENANT,
        "op": "upload",
        "args": {
            "source": place.source,
            "path": IMAGE,
            "format": "vhdx",
            "bandwidth": BANDWIDTH,
            "target": {
                "kind": "azure-page-blob",
                "endpoint": account["blob_url"],
                "container": CONTAINER,
                "blob": BLOB,
                "credential": {"account_key": account["key"]},
            },
        },
    }


def _prove(
    settings: Settings, account: dict[str, Any], image: Path, result: dict[str, Any], tell: Tell
) -> str:
    """Read the blob back by the official SDK and compare three roots: source, result, blob."""
    tell("proof: reading the blob back with azure-storage-blob, digesting it and the source apart")
    back = settings.work / "read-back.vhd"
    read_back(account, CONTAINER, BLOB, back)
    roots = {
        "source": root_of(image, image_format="vhdx"),
        "target": root_of(back, image_format="vhd"),
        "result": str(result.get("result", {}).get("root", "")),
    }
    if len(set(roots.values())) != 1:
        raise DemoFailed(f"the roots differ: {roots}")
    return roots["source"]
