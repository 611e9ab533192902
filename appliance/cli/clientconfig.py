"""The configuration of whoever orders jobs: which relay, as whom, sealed to whom. Reads files, opens no connection.

client.toml: `--client FILE`, else ~/.config/imageport/client.toml, else /etc/imageport/client.toml. Paths in it count
from its own folder; secrets are files, never values.
"""

import os
import ssl
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec

from appliance import keyfiles
from appliance.cli.exits import CliError, Exit
from appliance.cli.speckeys import BadSpec, check_names
from appliance.cli.trusted import Trust
from appliance.keyfiles import KeyFile, KeyFileError
from protocol.ids import IdText
from protocol.signed import SigningKey

SYSTEM = Path("/etc/imageport/client.toml")
PERSONAL = Path(".config/imageport/client.toml")


class ClientConfigError(CliError):
    """The client's configuration is missing or cannot be used."""

    code = "cli.client-config"
    exit_code = Exit.CONFIG
    http_status = 500
    fix = (
        "Correct what the message names, or name another file with --client; `imageport key new control-plane` writes"
        " a client.toml that works."
    )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """client.toml."""

    # Base URL of the relay.
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s@/]{1,255}(/[^\s@]*)?\Z")]
    # Whose jobs these are.
    tenant: IdText
    # File with the relay's API key (role operator to order, reader to look).
    api_key_file: str
    # The caller's private key file; needed to order and to cancel.
    caller_key_file: str = ""
    # The signer's public vault key file; needed when a spec holds secrets.
    vault_key_file: str = ""
    # PEM file of the relay's own CA; "": the system's.
    ca_file: str = ""
    # HTTP proxy, http://host:port; "": none. The environment is never looked at.
    proxy: Annotated[str, msgspec.Meta(pattern=r"^(|http://[^\s@/]{1,255}/?)\Z")] = ""
    # File of mode 0600 with `user:password` for the proxy (Basic); "": it wants none.
    proxy_credentials_file: str = ""
    # The control plane's public root key file; with it, results are verified here.
    root_file: str = ""
    # Folder that keeps the newest key manifest and appliances' records that were seen, against a relay that shows older
    # ones; written here. "": none is kept.
    records_dir: str = ""


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
    root: bytes | None = None
    records: Path | None = None

    def trust(self) -> Trust | None:
        """Return what verifies results; None without a root key."""
        return None if self.root is None else Trust(self.tenant, self.root, self.records)


def load_client(path: Path | None, *, home: Path) -> Client:
    """Read the named file, else the person's, else the system's.

    Raises:
        ClientConfigError: None is there, or it or a file that it names cannot be used.
    """
    found = path or next((p for p in (home / PERSONAL, SYSTEM) if p.is_file()), None)
    if found is None:
        msg = f"no client configuration: neither {home / PERSONAL} nor {SYSTEM} is there"
        raise ClientConfigError(msg)
    file = _read(found)
    folder = found.resolve().parent
    caller = _key(folder, file.caller_key_file, "caller")
    vault = _key(folder, file.vault_key_file, "vault")
    root = _key(folder, file.root_file, "root")
    return Client(
        url=file.url,
        tenant=file.tenant,
        api_key=_one_line(folder / file.api_key_file),
        caller=None if caller is None else caller.signing_key(),
        vault_key=None if vault is None else vault.public,
        ca_file=_ca_file(folder / file.ca_file) if file.ca_file else None,
        proxy=_proxy(file, folder),
        root=None if root is None else root.public,
        records=folder / file.records_dir if file.records_dir else None,
    )


def _read(path: Path) -> _File:
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
        check_names(plain, _File.__struct_fields__, "it")
        return msgspec.convert(plain, _File)
    except OSError as err:
        msg = f"{path} cannot be read: {err.strerror}"
        raise ClientConfigError(msg, path=str(path)) from err
    except (
        BadSpec,
        ValueError,
    ) as err:  # no UTF-8, no TOML, no such key, or a value that does not fit
        msg = f"{path}: {err}"
        raise ClientConfigError(msg, path=str(path)) from err


def _key(folder: Path, name: str, role: str) -> KeyFile | None:
    """Return the key of a file that the configuration names, None for ""."""
    if not name:
        return None
    path = folder / name
    try:
        key = keyfiles.read(path)
    except KeyFileError as err:
        msg = f"{role}_{'' if role == 'root' else 'key_'}file: {err}"
        raise ClientConfigError(msg, path=str(path)) from err
    if key.role != role:
        msg = f"{path} holds a {key.role} key; expected a {role} key"
        raise ClientConfigError(msg, path=str(path))
    return key


def _ca_file(path: Path) -> str:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as err:
        msg = f"ca_file {path} holds no certificates: {getattr(err, 'strerror', None) or err}"
        raise ClientConfigError(msg, path=str(path)) from err
    return str(path)


def _proxy(file: _File, folder: Path) -> str | None:
    """Return the proxy as the SDK takes it, with user and password inside."""
    if not file.proxy or not file.proxy_credentials_file:
        return file.proxy or None
    path = folder / file.proxy_credentials_file
    user, colon, password = _private(path, "the proxy's credentials").partition(":")
    if not colon or not user:
        msg = f"{path} is not of the form user:password"
        raise ClientConfigError(msg, path=str(path))
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return file.proxy.replace("http://", f"http://{login}@", 1)


def _one_line(path: Path) -> str:
    text = _private(path, "the API key")
    if not text or any(char.isspace() for char in text):
        msg = f"{path} does not hold one API key"
        raise ClientConfigError(msg, path=str(path))
    return text


def _private(path: Path, what: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read().strip()
    except (OSError, UnicodeDecodeError) as err:
        msg = f"the file of {what}, {path}, cannot be read: {type(err).__name__}"
        raise ClientConfigError(msg, path=str(path)) from err
    if mode & 0o077:
        msg = f"{path} has mode {mode:04o}: others may read {what}; expected 0600"
        raise ClientConfigError(msg, path=str(path))
    return text
