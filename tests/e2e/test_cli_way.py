"""The whole house behind a site's gate: TLS of an own authority, a proxy with a password, and one that opens TLS.

Relay and cloud have names that only the gate resolves: what arrives came through it.
"""

import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.demo.processes import imageport
from appliance.demo.settings import free_port
from appliance.sim.azure import AzureSim
from imaging.units import MiB
from tests.support.proxies import Gate, make_authority, running_gate
from tests.support.simazure import running_azure
from tests.support.stack import APPLIANCE, Stack, Way

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]

PASSWORD = "let me: in/@"
RELAY, CLOUD = "relay.test", "cloud.test"
SIZE = 3 * MiB


@dataclass
class Site:
    """What one test needs: the house, its gate, the cloud, and the authority of the servers."""

    stack: Stack
    gate: Gate
    cloud: AzureSim
    server_ca: Path


@pytest.fixture(scope="module", params=["passes TLS", "opens TLS"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("way")
    servers = make_authority(folder / "servers", "authority of the servers", RELAY, CLOUD)
    opener = make_authority(folder / "gate", "authority of the gate", RELAY, CLOUD)
    opens = opener if request.param == "opens TLS" else None
    relay_port, cloud_port = free_port(), free_port()
    names = {RELAY: relay_port, CLOUD: cloud_port}
    with (
        running_gate(password=PASSWORD, names=names, opens=opens, trusts=servers) as gate,
        running_azure(
            state_dir=folder / "azure",
            tls=servers.server(),
            port=cloud_port,
            public_url=f"https://{CLOUD}:{cloud_port}",
        ) as cloud,
    ):
        cloud.make_container("vhds")
        trusted = (opens or servers).ca_file
        way = Way(servers, RELAY, trusted, gate.url, gate.login)
        with Stack(folder, way=way, port=relay_port) as stack:
            (stack.share / "golden.raw").write_bytes(random.Random(3).randbytes(SIZE))
            stack.start_all()
            yield Site(stack, gate, cloud, servers.ca_file)


def spec_file(site: Site, target: dict[str, str], credential: dict[str, str]) -> Path:
    lines = [f'appliance = "{APPLIANCE}"', 'path = "golden.raw"', 'format = "raw"']
    lines += ["[source]", 'kind = "local"', 'name = "disks"', "[target]"]
    lines += [f'{key} = "{value}"' for key, value in target.items()]
    lines += ["[target.credential]", *(f'{key} = "{value}"' for key, value in credential.items())]
    path = site.stack.folder / "job.toml"
    path.write_text("\n".join(lines))
    return path


def secret_file(site: Site, text: str) -> str:
    path = site.stack.folder / "cloud.secret"
    path.write_text(text)
    path.chmod(0o600)
    return path.name


def blob_spec(site: Site, name: str) -> Path:
    target = {"kind": "azure-page-blob", "container": "vhds", "blob": name}
    target["endpoint"] = site.cloud.blob_url
    return spec_file(site, target, {"account_key_file": secret_file(site, site.cloud.key)})


def cli(
    site: Site, *arguments: str | Path, client: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    command = imageport(*arguments, "--client", client or site.stack.keys / "client.toml")
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def changed_client(site: Site, key: str, value: str | Path) -> Path:
    path = site.stack.keys / f"changed-{key}.toml"
    lines = (site.stack.keys / "client.toml").read_text().splitlines()
    path.write_text(
        "\n".join(f'{key} = "{value}"' if line.startswith(f"{key} =") else line for line in lines)
    )
    return path


def test_order_channel_and_page_writes_go_through_the_gate(site: Site) -> None:
    before = len(site.gate.tunnels)
    done = cli(site, "image", "upload", "--spec", blob_spec(site, "one.vhd"), "--watch", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    job = json.loads(done.stdout.splitlines()[-1])
    assert (job["state"], job["evidence"]) == ("succeeded", "device-signature")
    source = (site.stack.share / "golden.raw").read_bytes()
    assert bytes(site.cloud.blob("vhds", "one.vhd").file.read(0, SIZE)) == source
    new = site.gate.tunnels[before:]
    assert f"{RELAY}:{site.gate.names[RELAY]}" in new  # the client; the agent's channel was there
    assert f"{CLOUD}:{site.gate.names[CLOUD]}" in new


def test_token_disk_and_its_upload_go_through_the_gate(site: Site) -> None:
    who = site.cloud.identity
    target = {
        "kind": "azure-disk",
        "subscription": site.cloud.subscription,
        "resource_group": site.cloud.resource_group,
        "location": "westeurope",
        "disk": "golden",
        "management": site.cloud.url,
        "authority": site.cloud.url,
    }
    credential = {"tenant_id": who.tenant, "client_id": who.client_id}
    credential["client_secret_file"] = secret_file(site, who.client_secret)
    done = cli(site, "image", "upload", "--spec", spec_file(site, target, credential), "--watch")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "signed by the appliance, verified here" in done.stdout


def test_the_gate_let_nobody_in_without_the_password_and_nobody_tells_it(site: Site) -> None:
    assert site.gate.tunnels
    assert (site.gate.refused, site.gate.forbidden) == (0, [])
    for name in ("agent", "relay", "signer"):
        assert PASSWORD not in site.stack.log(name)


def test_the_doctor_finds_the_way(site: Site) -> None:
    command = imageport(
        "doctor", "relay", "proxy", "target", "--target", site.cloud.url,
        "--config", site.stack.folder / "agent.toml", "--json",
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = {finding["id"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert [finding for finding in found.values() if finding["status"] == "fail"] == []
    assert done.returncode == 0
    assert found["relay.channel"]["status"] == "pass"
    issuer = "authority of the gate" if site.gate.opens else "authority of the servers"
    assert issuer in found["relay.tls"]["evidence"]["tls_issuer"]
    assert PASSWORD not in done.stdout


@pytest.mark.parametrize("site", ["passes TLS"], indirect=True)
def test_a_wrong_password_is_named_and_not_shown(site: Site) -> None:
    before = site.gate.refused
    secret = site.stack.keys / "wrong.secret"
    secret.write_text("site-user:hunter2")
    secret.chmod(0o600)
    client = changed_client(site, "proxy_credentials_file", secret)
    done = cli(site, "job", "list", client=client)
    assert done.returncode == 75, done.stderr
    assert "407" in done.stderr
    assert "hunter2" not in done.stderr
    assert site.gate.refused > before
    site.gate.refused = before


def test_an_authority_that_the_client_does_not_know_is_named(site: Site) -> None:
    other = site.server_ca if site.gate.opens else site.server_ca.parent.parent / "gate" / "ca.pem"
    done = cli(site, "job", "list", client=changed_client(site, "ca_file", other))
    assert done.returncode == 75, done.stderr
    assert "TLS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("site", ["passes TLS"], indirect=True)
def test_the_names_cannot_be_reached_without_the_gate(site: Site) -> None:
    client = changed_client(site, "proxy", "")
    done = cli(site, "job", "list", client=client)
    assert done.returncode == 75, done.stderr
    assert "relay.unreachable" in done.stderr
