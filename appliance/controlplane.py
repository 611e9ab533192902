"""All keys and the first key manifest of a small control plane, in one new folder. Starts and configures nothing.

| file | who needs it |
|---|---|
| root.key | nobody online: `imageport key manifest` on a machine that is never on a network |
| root.pub, manifest | the signer |
| signer/*.key | the signer's process only: command, time, record, vault |
| vault.pub | callers: they seal secrets to it |
| caller.key, caller.pub | the first caller: signs requests; the .pub is registered at the signer |
| relay.token | the signer: its API key at the relay |
| api_keys.toml | the relay: the same key as SHA-256 |
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from appliance import keyfiles
from appliance.keyfiles import KeyFile, KeyFileError
from appliance.keymanifest import ManifestPlan, sign_manifest
from protocol.enrol import root_fingerprint

SIGNER_ROLES = ("command", "time", "record", "vault")
VALID_DAYS = 398


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What was made: (name, path) of each file, the root key's path and its fingerprint."""

    files: tuple[tuple[str, Path], ...]
    root_key: Path
    fingerprint: str


def create_control_plane(folder: Path, *, tenant: str, now_ms: int) -> ControlPlane:
    """Make the folder (it may exist, but hold none of these files) and everything in it.

    Raises:
        KeyFileError: A file exists already or cannot be written.
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
        *_relay_key(folder, tenant=tenant),
    ]
    return ControlPlane(tuple(files), folder / "root.key", root_fingerprint(root.public))


def api_key_block(name: str, *, tenant: str, role: str, secret: str) -> str:
    """Return the TOML block that makes the relay know an API key by its SHA-256."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f'[[api_keys]]\nid = "{name}"\ntenant = "{tenant}"\nrole = "{role}"\nsha256 = "{digest}"'


def new_api_secret() -> str:
    """Make the secret of an API key: 256 random bits with a prefix that scanners can find."""
    return "ipk-" + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def _make_folders(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "signer").mkdir(mode=0o700, exist_ok=True)
    except OSError as err:
        msg = f"{folder} cannot be made: {err.strerror}"
        raise KeyFileError(msg) from err


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


def _relay_key(folder: Path, *, tenant: str) -> tuple[tuple[str, Path], ...]:
    secret = new_api_secret()
    block = api_key_block("signer", tenant=tenant, role="control", secret=secret)
    token, blocks = folder / "relay.token", folder / "api_keys.toml"
    keyfiles.create_file(token, f"{secret}\n".encode(), mode=0o600)
    keyfiles.create_file(blocks, f"{block}\n".encode(), mode=0o644)
    return ("relay token", token), ("relay's api_keys", blocks)
