"""`imageport sweep --spec`: what a failed job left in a cloud is listed, then removed with the spec's credential."""

import json
import subprocess
from pathlib import Path

import pytest

from appliance.demo.processes import imageport
from appliance.sim.faults import Fault, FaultPlan
from tests.support.cloud_stack import MAKERS, Cloud, order, running, wait_for_bytes
from tests.support.rigs import CLOUDS
from tests.support.stack import APPLIANCE, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]


def spec_file(stack: Stack, cloud: Cloud) -> Path:
    """Write the job as an administrator has it."""
    target = cloud.target()
    credential = target.pop("credential")
    lines = [f'appliance = "{APPLIANCE}"', 'path = "golden.raw"', 'format = "raw"']
    lines += ["[source]", 'kind = "local"', 'name = "disks"', "[target]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in target.items()]
    lines.append("[target.credential]")
    for name, value in credential.items():
        if name in ("tenant_id", "client_id", "access_key_id"):
            lines.append(f"{name} = {json.dumps(value)}")
            continue
        secret = stack.folder / f"{name}.secret"
        secret.write_text(value)
        secret.chmod(0o600)
        lines.append(f"{name}_file = {json.dumps(str(secret))}")
    path = stack.folder / "job.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def sweep(stack: Stack, spec: Path, *extra: str) -> tuple[int, dict]:
    command = imageport("sweep", "--spec", spec, "--client", stack.keys / "client.toml", "--json")
    done = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("kind", MAKERS)
def test_what_a_failed_job_left_is_listed_then_removed(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path) as (stack, cloud):
        spec = spec_file(stack, cloud)
        job = order(stack, cloud)
        wait_for_bytes(cloud, 1)
        refused = Fault(action="status", op=CLOUDS[kind].write, status=403, code="AccessDenied")
        cloud.sim.set_faults(FaultPlan(fault=[refused]))
        assert stack.wait(job)["state"] == "failed"
        assert cloud.objects() > 0

        code, shown = sweep(stack, spec)
        assert code == 1
        assert {row["outcome"] for row in shown["leftovers"]} == {"found"}
        assert cloud.objects() > 0

        code, shown = sweep(stack, spec, "--apply")
        assert code == 0, shown
        assert {row["outcome"] for row in shown["leftovers"]} == {"removed"}
        assert cloud.objects() == 0

        code, shown = sweep(stack, spec, "--apply")
        assert (code, shown["leftovers"]) == (0, [])
