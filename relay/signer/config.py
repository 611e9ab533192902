"""The signer's configuration: TOML into frozen structs. The only file here that reads the environment.

Files are read in order of their names, later ones win key by key: /usr/lib/imageport/signer.toml,
/etc/imageport/signer.toml, /etc/imageport/signer.d/*.toml; or exactly one with `--config`.
Relative paths count from the folder of the file that names them.
"""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from relay.signer.errors import BadConfig

SYSTEM_FILES = (Path("/usr/lib/imageport/signer.toml"), Path("/etc/imageport/signer.toml"))
SYSTEM_FOLDER = Path("/etc/imageport/signer.d")
_PATH_KEYS = (
    ("state_dir",),
    ("socket",),
    ("keys_dir",),
    ("root",),
    ("manifest",),
    ("relay", "ca"),
    ("relay", "token_file"),
)

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class RelayConfig(_Section, frozen=True, kw_only=True):
    """Where the relay is. The signer dials; the relay never dials the signer."""

    # https://host[:port], or http:// on loopback. No default: there is no relay that would suit everybody.
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s@/]{1,255}(/[^\s@]*)?\Z")]
    # File with the API key of role `signer` (`imageport key new api --role signer -o FILE`).
    token_file: str
    # PEM bundle of the relay's own CA; "": the system's.
    ca: str = ""


class Limits(_Section, frozen=True, kw_only=True):
    """Bounds that keep one caller or appliance from filling the signer."""

    # Orders that an appliance has not acknowledged; PROTOCOL 3 (the relay holds no more either).
    backlog: _Positive = 1000
    # Bytes of those orders.
    backlog_bytes: _Positive = 64 * 1024 * 1024
    # Longest order's validity in seconds: a week; a stolen copy of an order ends with it.
    valid_s: _Positive = 7 * 24 * 3600
    # Longest life of an enrolment token in seconds: a week.
    token_ttl_s: _Positive = 7 * 24 * 3600
    # Most uses of one enrolment token: an administrator who images machines may want many, a slip not thousands.
    token_uses: _Positive = 1000


class SignerConfig(_Section, frozen=True, kw_only=True):
    """Everything that `imageport signer serve` reads."""

    relay: RelayConfig
    # The database; a folder of the service user, mode 0700.
    state_dir: str = "/var/lib/imageport-signer"
    # Unix socket for the local administrator: the service user and root only.
    socket: str = "/run/imageport-signer/control.sock"
    # Folder with *.key files; "": systemd's credentials ($CREDENTIALS_DIRECTORY), else state_dir/keys.
    keys_dir: str = ""
    # The root's public key file.
    root: str = "/etc/imageport/root.pub"
    # The key manifest; a higher serial given later over the socket wins.
    manifest: str = "/etc/imageport/manifest"
    # Seconds for which an order may be accepted if the spec does not say: a day, a site's longest usual outage.
    valid_s: _Positive = 24 * 3600
    limits: Limits = Limits()
    # debug, info, warning or error.
    log_level: Annotated[str, msgspec.Meta(pattern=r"^(debug|info|warning|error)\Z")] = "info"


def load(path: Path | None) -> SignerConfig:
    """Read the configuration: `path` alone, or the system's files.

    Raises:
        BadConfig: No file, not TOML, an unknown key or a value that does not fit.
    """
    files = [path] if path is not None else _system_files()
    if not files:
        msg = f"no configuration: neither {' nor '.join(map(str, SYSTEM_FILES))} exists"
        raise BadConfig(msg)
    return merge([(file, _read(file)) for file in files])


def merge(parts: Sequence[tuple[Path, dict[str, Any]]]) -> SignerConfig:
    """Merge parsed files, later ones win, and check the whole.

    Raises:
        BadConfig: A key is unknown or its value does not fit.
    """
    merged: dict[str, Any] = {}
    for path, part in parts:
        _absolute(part, path.parent)
        _overlay(merged, part)
    try:
        return msgspec.convert(merged, SignerConfig)
    except msgspec.ValidationError as err:
        msg = f"{', '.join(str(path) for path, _ in parts)}: {err}"
        raise BadConfig(msg) from err


def keys_folder(config: SignerConfig) -> Path:
    """Return where the key files are."""
    if config.keys_dir:
        return Path(config.keys_dir)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return Path(credentials) if credentials else Path(config.state_dir) / "keys"


def notify_socket() -> str:
    """Return systemd's notification socket, "" where there is none."""
    return os.environ.get("NOTIFY_SOCKET", "")


def watchdog_s() -> float | None:
    """Return how often systemd wants to hear from us, in seconds; None if it does not."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and int(text) > 0 else None


def read_token(path: Path) -> str:
    """Read the API key for the relay from its file.

    Raises:
        BadConfig: Missing, open to others, or not one line of text.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            token = file.read(1024).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as err:
        msg = f"the relay's token file {path} cannot be read: {type(err).__name__}"
        raise BadConfig(msg) from err
    if mode & 0o077:
        msg = f"{path} has mode {mode:04o}: others may read the relay's token; expected 0600"
        raise BadConfig(msg)
    if not token or any(char.isspace() for char in token) or len(token) > 512:
        msg = f"{path} does not hold one token"
        raise BadConfig(msg)
    return token


def _system_files() -> list[Path]:
    drop_ins = sorted(SYSTEM_FOLDER.glob("*.toml")) if SYSTEM_FOLDER.is_dir() else []
    return [path for path in SYSTEM_FILES if path.is_file()] + drop_ins


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        msg = f"{path} cannot be read: {err}"
        raise BadConfig(msg) from err


def _absolute(part: dict[str, Any], folder: Path) -> None:
    for *sections, key in _PATH_KEYS:
        place: Any = part
        for section in sections:
            place = place.get(section, {}) if isinstance(place, dict) else {}
        if isinstance(place, dict) and isinstance(place.get(key), str) and place[key]:
            place[key] = str(folder / place[key])


def _overlay(base: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _overlay(base[key], value)
        else:
            base[key] = value
