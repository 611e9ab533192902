"""The demo's configuration files: relay, signer and agent on this machine, as small as they can be."""

import socket
from dataclasses import dataclass
from pathlib import Path

from appliance.controlplane import api_key_block, create_control_plane, new_api_secret
from appliance.tomltext import quoted

TENANT = "demo"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where everything of one demo is.

    Attributes:
        work: The demo's folder.
        relay_url: Base URL of the relay.
        api_key: Key of the demo's own client at the relay (role operator).
    """

    work: Path
    relay_url: str
    api_key: str

    @property
    def keys(self) -> Path:
        """Folder of the control plane's keys."""
        return self.work / "keys"

    @property
    def images(self) -> Path:
        """Folder that is shared."""
        return self.work / "images"

    @property
    def socket(self) -> Path:
        """The signer's socket."""
        return self.work / "signer.sock"

    def config(self, name: str) -> Path:
        """Return the path of one configuration file."""
        return self.work / f"{name}.toml"


def make_settings(work: Path, *, now_ms: int) -> Settings:
    """Make keys, folders and the relay's and the signer's configuration in `work`."""
    port = free_port()
    settings = Settings(work, f"http://{LOOPBACK}:{port}", new_api_secret())
    for folder in (settings.images, work / "logs", work / "relay", work / "signer", work / "azure"):
        folder.mkdir(mode=0o700)
    create_control_plane(settings.keys, tenant=TENANT, now_ms=now_ms)
    _write_relay(settings, port)
    _write_signer(settings)
    return settings


def write_agent(settings: Settings, *, endpoint: str) -> None:
    """Write the agent's configuration; uploads may go to `endpoint` only."""
    text = f"""\
state_dir = {_path(settings.work / "agent")}
[relay]
url = {quoted(settings.relay_url)}
[policy]
endpoints = [{quoted(endpoint)}]
[shares.local]
images = {_path(settings.images)}
"""
    settings.config("agent").write_text(text, encoding="utf-8")


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _path(path: Path) -> str:
    return quoted(str(path))


def _write_relay(settings: Settings, port: int) -> None:
    signer_key = (settings.keys / "api_keys.toml").read_text(encoding="utf-8")
    own = api_key_block("demo", tenant=TENANT, role="operator", secret=settings.api_key)
    head = f'listen = "{LOOPBACK}:{port}"\ndata_dir = {_path(settings.work / "relay")}\n'
    settings.config("relay").write_text(f"{head}\n{signer_key}\n{own}\n", encoding="utf-8")


def _write_signer(settings: Settings) -> None:
    keys = settings.keys
    text = f"""\
state_dir = {_path(settings.work / "signer")}
socket = {_path(settings.socket)}
keys_dir = {_path(keys / "signer")}
root = {_path(keys / "root.pub")}
manifest = {_path(keys / "manifest")}
[relay]
url = {quoted(settings.relay_url)}
token_file = {_path(keys / "relay.token")}
"""
    settings.config("signer").write_text(text, encoding="utf-8")
