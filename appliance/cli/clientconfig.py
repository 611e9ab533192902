"""The configuration of whoever orders jobs: which relay, as whom, sealed to whom. Reads files, opens no connection.

client.toml: `--client FILE`, else ~/.config/imageport/client.toml, else /etc/imageport/client.toml. Paths in it count
from its own folder; secrets are files, never values.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from appliance import keyfiles
from appliance.cli.exits import CliError, Exit
from protocol.signed import SigningKey

SYSTEM = Path("/etc/imageport/client.toml")
PERSONAL = Path(".config/imageport/client.toml")


class ClientConfigError(CliError):
    """The client's configuration is missing or cannot be used."""

    code = "cli.client-config"
    exit_code = Exit.CONFIG
    http_status = 500
    fix = (
        "Name one with --client; `imageport key new control-plane` writes a client.toml that works."
    )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """client.toml."""

    # Base URL of the relay.
    url: str
    # Whose jobs these are.
    tenant: str
    # File with the relay's API key (role operator to order, reader to look).
    api_key_file: str
    # The caller's private key file; needed to order and to cancel.
    caller_key_file: str = ""
    # The signer's public vault key file; needed when a spec holds secrets.
    vault_key_file: str = ""
    # PEM file of the relay's own CA; "": the system's.
    ca_file: str = ""
    # http://[user:password@]host:port; "": none.
    proxy: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """What `relay.client.RelayClient` needs."""

    url: str
    tenant: str
    api_key: str = field(repr=False)
    caller: SigningKey | None
    vault_key: bytes | None
    ca_file: str | None
    proxy: str | None = field(repr=False)


def load_client(path: Path | None, *, home: Path) -> Client:
    """Read the named file, else the person's, else the system's.

    Raises:
        ClientConfigError: None is there, or one that does not fit; keyfiles.KeyFileError for its keys.
    """
    found = path or next((p for p in (home / PERSONAL, SYSTEM) if p.is_file()), None)
    if found is None:
        msg = f"no client configuration: neither {home / PERSONAL} nor {SYSTEM} is there"
        raise ClientConfigError(msg)
    file = _read(found)
    folder = found.resolve().parent
    caller = keyfiles.read(folder / file.caller_key_file) if file.caller_key_file else None
    vault = keyfiles.read(folder / file.vault_key_file) if file.vault_key_file else None
    return Client(
        url=file.url,
        tenant=file.tenant,
        api_key=_one_line(folder / file.api_key_file),
        caller=None if caller is None else caller.signing_key(),
        vault_key=None if vault is None else vault.public,
        ca_file=str(folder / file.ca_file) if file.ca_file else None,
        proxy=file.proxy or None,
    )


def _read(path: Path) -> _File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as err:
        msg = f"{path}: {err}"
        raise ClientConfigError(msg, path=str(path)) from err


def _one_line(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        msg = f"the API key file {path} cannot be read: {type(err).__name__}"
        raise ClientConfigError(msg, path=str(path)) from err
    if not text or any(char.isspace() for char in text):
        msg = f"{path} does not hold one API key"
        raise ClientConfigError(msg, path=str(path))
    return text
