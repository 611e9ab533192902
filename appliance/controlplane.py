"""All keys, the first key manifest and working configuration of a small control plane, in one folder. Starts nothing.

| file | who needs it |
|---|---|
| root.key | nobody online: `imageport key manifest` on a machine that is never on a network |
| root.pub, manifest | the signer |
| signer/*.key | the signer's process only: command, time, record, vault |
| vault.pub | callers: they seal secrets to it |
| caller.key, caller.pub | the first caller: signs requests; the .pub is registered at the signer |
| relay.token | the signer: its API key at the relay |
| operator.token | the first caller: its API key at the relay |
| api_keys.toml | the relay: both keys as SHA-256 |
| relay.toml, signer.toml, client.toml | `--config` of relay and signer, `--client` of the commands that order jobs |
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from appliance import keyfiles
from appliance.keyfiles import KeyFile, KeyFileNotWritten
from appliance.keymanifest import ManifestPlan, sign_manifest
from appliance.tomltext import quoted
from protocol.enrol import root_fingerprint

SIGNER_ROLES = ("command", "time", "record", "vault")
VALID_DAYS = 398
LISTEN = "127.0.0.1:8480"
URL = f"http://{LISTEN}"

_RELAY = """\
# imageport relay serve --config this file; paths count from its folder
# For other machines: listen on a public address with tls_cert and tls_key.
listen = {listen}
data_dir = "relay-data"

{keys}"""

_SIGNER = """\
# imageport signer serve --config this file; paths count from its folder
# For a relay elsewhere: its https URL, and ca if it has a CA of its own.
state_dir = "signer-data"
socket = "signer.sock"
keys_dir = "signer"
root = "root.pub"
manifest = "manifest"

[relay]
url = {url}
token_file = "relay.token"
"""

_CLIENT = """\
# imageport image upload --client this file ...; paths count from its folder
url = {url}
tenant = {tenant}
api_key_file = "operator.token"
caller_key_file = "caller.key"
vault_key_file = "vault.pub"
# Results are verified here, from this root; records/ keeps what a relay must not take back.
root_file = "root.pub"
records_dir = "records"
"""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What was made: (name, path) of each file, the root key's path and its fingerprint."""

    files: tuple[tuple[str, Path], ...]
    root_key: Path
    fingerprint: str


def create_control_plane(folder: Path, *, tenant: str, now_ms: int) -> ControlPlane:
    """Make the folder (it may exist, but hold none of these files) and everything in it.

    Raises:
        KeyFileNotWritten: A file exists already or cannot be written.
    """
    _make_folders(folder)
    keys = {role: keyfiles.generate(role, tenant=tenant) for role in (*SIGNER_ROLES, "caller")}
    root = keyfiles.generate("root", tenant="*")
    files = [
        ("root key", _pair(folder / "root.key", root)),
        ("root public key", folder / "root.pub"),
        *((f"{role} key", _private(folder / "signer", keys[role])) for role in SIGNER_ROLES),
        ("vault public key", _public(folder / "vault.pub", keys["vault"])),
        ("caller key", _pair(folder / "caller.key", keys["caller"])),
        ("key manifest", _manifest(folder / "manifest", root, keys, now_ms=now_ms)),
        *_relay_keys(folder, tenant=tenant),
        *_configuration(folder, tenant=tenant),
    ]
    return ControlPlane(tuple(files), folder / "root.key", root_fingerprint(root.public))


def api_key_block(name: str, *, tenant: str, role: str, secret: str) -> str:
    """Return the TOML block that makes the relay know an API key by its SHA-256."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    fields = {"id": name, "tenant": tenant, "role": role, "sha256": digest}
    return "\n".join(["[[api_keys]]", *(f"{key} = {quoted(text)}" for key, text in fields.items())])


def new_api_secret() -> str:
    """Make the secret of an API key: 256 random bits with a prefix that scanners can find."""
    return "ipk-" + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def _make_folders(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "signer").mkdir(mode=0o700, exist_ok=True)
    except OSError as err:
        msg = f"{folder} cannot be made: {err.strerror}"
        raise KeyFileNotWritten(msg, path=str(folder)) from err


def _private(folder: Path, key: KeyFile) -> Path:
    path = folder / f"{key.role}.key"
    keyfiles.create(path, key)
    return path


def _public(path: Path, key: KeyFile) -> Path:
    keyfiles.create(path, key.public_half())
    return path


def _pair(path: Path, key: KeyFile) -> Path:
    keyfiles.create(path, key)
    _public(path.with_suffix(".pub"), key)
    return path


def _manifest(path: Path, root: KeyFile, keys: dict[str, KeyFile], *, now_ms: int) -> Path:
    plan = ManifestPlan(serial=1, issued=now_ms, days=VALID_DAYS, revoked={})
    listed = [keys[role] for role in ("command", "time", "record")]
    keyfiles.create_file(path, sign_manifest(root.signing_key(), listed, plan), mode=0o644)
    return path


def _relay_keys(folder: Path, *, tenant: str) -> tuple[tuple[str, Path], ...]:
    blocks = []
    for name, role, file in (
        ("signer", "control", "relay.token"),
        ("operator", "operator", "operator.token"),
    ):
        secret = new_api_secret()
        blocks.append(api_key_block(name, tenant=tenant, role=role, secret=secret))
        keyfiles.create_file(folder / file, f"{secret}\n".encode(), mode=0o600)
    both = folder / "api_keys.toml"
    keyfiles.create_file(both, "\n\n".join([*blocks, ""]).encode(), mode=0o644)
    return (
        ("relay token", folder / "relay.token"),
        ("operator token", folder / "operator.token"),
        ("relay's api_keys", both),
    )


def _configuration(folder: Path, *, tenant: str) -> tuple[tuple[str, Path], ...]:
    """Write configuration for one machine, in which no path leads out: the folder may be moved."""
    made = []
    keys, url = (folder / "api_keys.toml").read_text("utf-8"), quoted(URL)
    for name, text in (
        ("relay", _RELAY.format(listen=quoted(LISTEN), keys=keys)),
        ("signer", _SIGNER.format(url=url)),
        ("client", _CLIENT.format(url=url, tenant=quoted(tenant))),
    ):
        path = folder / f"{name}.toml"
        keyfiles.create_file(path, text.encode(), mode=0o600)
        made.append((f"{name} configuration", path))
    return tuple(made)
