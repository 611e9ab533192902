"""The relay's configuration: TOML files into frozen structs. The only file of the relay that reads the environment.

Files are merged in the order of `default_files()`; a later file's key wins. Relative paths count from the folder of
the file that names them, those of the command line from where it is given. API keys stand in it as SHA-256 only.
"""

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from protocol.ids import IdText
from relay.errors import ConfigError

MiB = 1024 * 1024
_PATH_KEYS = ("data_dir", "tls_cert", "tls_key")
Role = Literal["admin", "operator", "reader", "control"]
Listen = Annotated[str, msgspec.Meta(pattern=r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}\Z")]
HexDigest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section."""


class ApiKey(_Part, frozen=True, kw_only=True):
    """One `[[api_keys]]` entry."""

    # Shown in the audit log.
    id: IdText
    # Whose things the key reaches; "*" is allowed for role control only.
    tenant: Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z0-9-]{1,64})\Z")]
    # reader: GET. operator: and commands, jobs, artifacts. admin: and the audit log, metrics. control: the signer.
    role: Role
    # SHA-256 of the key's text: `printf %s "$KEY" | sha256sum`. Keys are random, so a plain hash is enough.
    sha256: HexDigest


class Limits(_Part, frozen=True, kw_only=True):
    """`[limits]`: what one caller may take from all others."""

    # Requests a second of one API key, and how many may come at once after a pause.
    requests_per_s: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    requests_burst: Annotated[int, msgspec.Meta(ge=1)] = 500
    # Enrolments a minute from one address: a token has 256 bits, this only keeps the signer's queue short.
    enrolments_per_min: Annotated[int, msgspec.Meta(ge=1)] = 30
    # Event streams of one tenant.
    streams: Annotated[int, msgspec.Meta(ge=1)] = 256
    # Bytes of one artifact (a compositor's bits are below 100 MiB).
    artifact_bytes: Annotated[int, msgspec.Meta(ge=1)] = 2048 * MiB
    # Connections that have shown no good key or signature yet: in all, and of one address (an IPv4 address or an IPv6
    # /64; not behind_proxy, where all come from the proxy). The oldest goes when there are more.
    strangers: Annotated[int, msgspec.Meta(ge=1)] = 4096
    strangers_per_address: Annotated[int, msgspec.Meta(ge=1)] = 256
    # Agent connections that have not proved who they are yet; more are answered 503.
    unverified: Annotated[int, msgspec.Meta(ge=1)] = 512
    # Seconds that the signer has for an answer to a caller.
    call_s: Annotated[float, msgspec.Meta(gt=0)] = 20.0


class RelayConfig(_Part, frozen=True, kw_only=True):
    """The whole configuration."""

    # Address and port of REST and websockets. Plain HTTP is served on loopback only, unless behind_proxy.
    listen: Listen = "127.0.0.1:8480"
    # PEM files of our own certificate chain and key; both or none.
    tls_cert: str = ""
    tls_key: str = ""
    # TLS ends at a proxy in front of us, which is the only one that can reach the port.
    behind_proxy: bool = False
    # Folder of relay.db and artifacts/.
    data_dir: str = "/var/lib/imageport/relay"
    # memory: forgets everything at the end, for demonstrations and tests.
    store: Literal["sqlite", "memory"] = "sqlite"
    # Own address of /metrics, without a key; empty: /metrics on the main port, for role admin.
    metrics_listen: Annotated[str, msgspec.Meta(pattern=r"^(|.+:[0-9]{1,5})\Z")] = ""
    # Raw public root keys (hex) that key manifests must be signed with; empty: what the signer pushes is believed,
    # because the relay's verification is a courtesy and agents pin their own root.
    roots: tuple[HexDigest, ...] = ()
    # Seconds for running requests to end after SIGTERM.
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    api_keys: tuple[ApiKey, ...] = ()
    limits: Limits = Limits()


def default_files() -> tuple[Path, ...]:
    """Return the files that make the configuration when none is named, in order."""
    folder = Path(
        "/etc/imageport/relay.d"
    )  # not conf.d: the agent on the same machine reads all of that
    system = (Path("/usr/lib/imageport/relay.toml"), Path("/etc/imageport/relay.toml"))
    return (*system, *sorted(folder.glob("*.toml")))


def load(files: tuple[Path, ...], overrides: dict[str, Any]) -> RelayConfig:
    """Merge files and command-line options into a checked configuration.

    Raises:
        ConfigError: A file cannot be read or parsed, a key is unknown or out of range, or the whole is unsafe.
    """
    merged: dict[str, Any] = {}
    for path in files:
        merged |= _located(_read(path), path.parent)
    merged |= {key: value for key, value in overrides.items() if value is not None}
    try:
        config = msgspec.convert(merged, RelayConfig)
    except msgspec.ValidationError as err:
        names = ", ".join(str(path) for path in files)
        raise ConfigError(f"the relay's configuration ({names}): {err}") from err
    _check(config)
    return config


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def notify_socket() -> str:
    """Return the address that systemd wants to be told at, "" outside of systemd."""
    return os.environ.get("NOTIFY_SOCKET", "")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise ConfigError(f"{path}: {err}", path=str(path)) from err


def _located(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values of one file with its paths as seen from here; an empty one stays empty."""
    paths = {key: values[key] for key in _PATH_KEYS if isinstance(values.get(key), str)}
    return values | {key: str(folder / path) for key, path in paths.items() if path}


def _check(config: RelayConfig) -> None:
    host, _ = split_listen(config.listen)
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ConfigError("tls_cert and tls_key belong together, one of them is missing")
    if not config.tls_cert and not config.behind_proxy and not is_loopback(host):
        raise ConfigError(
            f"plain HTTP on {config.listen} would carry API keys in clear over the network; expected tls_cert and "
            "tls_key, or behind_proxy, or a loopback address",
            listen=config.listen,
        )
    _check_keys(config.api_keys)


def _check_keys(keys: tuple[ApiKey, ...]) -> None:
    for key in keys:
        if key.tenant == "*" and key.role != "control":
            raise ConfigError(f"api key {key.id}: tenant * is for role control, not {key.role}")
    for name in ("id", "sha256"):
        values = [getattr(key, name) for key in keys]
        if len(set(values)) != len(values):
            raise ConfigError(f"two api_keys have the same {name}")


def is_loopback(host: str) -> bool:
    """Whether a listen address cannot be reached from other machines."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
