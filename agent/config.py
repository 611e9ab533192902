"""The agent's configuration: TOML files into frozen structs, with the origin of every value. Starts nothing.

Files by order, later ones win key by key: every `*.toml` of the distribution's folder, then every `*.toml` of
/etc/imageport/conf.d by name; or exactly one file (`--config F`). Secrets are files, named here by path, never values.
The only module of the agent that reads the environment.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agent.errors import Permanent
from imaging.units import KiB, MiB
from protocol.ops import LimitWindow

CONF_D = Path("/etc/imageport/conf.d")
FOLDERS = (Path("/usr/lib/imageport/conf.d"), CONF_D)
DEFAULT_ORIGIN = "default"

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
Folder = Annotated[str, msgspec.Meta(pattern=r"^/[^\x00]{0,1023}\Z")]
WsUrl = Annotated[str, msgspec.Meta(pattern=r"^(?:wss?|https?)://[^\s@]{1,1000}\Z")]
ProxyUrl = Annotated[str, msgspec.Meta(pattern=r"^http://[^\s@/]{1,255}/?\Z")]


class ConfigError(Permanent):
    """A configuration file that cannot be used."""

    code = "config.error"
    exit_code = 78
    fix = "Correct the named key; `imageport config check` shows all of them."


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section: unknown keys are errors, so a typing mistake never passes for a default."""


class RelayConfig(_Section, frozen=True, kw_only=True):
    """[relay]: the one place that the agent dials."""

    # Base URL, `https://relay.example` (http only for a relay on this machine). Enrolment writes it.
    url: WsUrl = "https://127.0.0.1:8443"
    # PEM file of further roots of trust. Default none: the system's. TLS is privacy here, never authority.
    ca_file: Folder | None = None
    # HTTP proxy, `http://proxy.example:3128`. Default none; the environment is never looked at.
    proxy: ProxyUrl | None = None
    # File with `user:password` for the proxy (Basic), mode 0600. Default none.
    proxy_credentials_file: Folder | None = None
    # Seconds between pings; 20 keeps middleboxes (60 s) open and finds a dead path within 30 s.
    heartbeat_s: Annotated[float, msgspec.Meta(ge=0.05, le=300)] = 20.0
    # Seconds: first step and cap of the full-jitter back-off. 30, not minutes: an agent must be back when the net is.
    backoff_base_s: Annotated[float, msgspec.Meta(ge=0.01, le=30)] = 0.5
    backoff_cap_s: Annotated[float, msgspec.Meta(ge=0.05, le=300)] = 30.0


class PolicyConfig(_Section, frozen=True, kw_only=True):
    """[policy]: what the site forbids, whoever signed it."""

    # Ops that may run here. Default: all that this release knows.
    ops: tuple[str, ...] = ("*",)
    # SMB servers that may be read, glob on the host name. Default: any.
    share_servers: tuple[str, ...] = ("*",)
    # Origins (scheme://host[:port], glob) that targets may be sent to. Default: the public clouds.
    endpoints: tuple[str, ...] = (
        "https://*.blob.core.windows.net",
        "https://*.blob.storage.azure.net",
        "https://management.azure.com",
        "https://login.microsoftonline.com",
        "https://*.blob.core.usgovcloudapi.net",
        "https://*.blob.storage.usgovcloudapi.net",
        "https://management.usgovcloudapi.net",
        "https://login.microsoftonline.us",
        "https://*.blob.core.chinacloudapi.cn",
        "https://*.blob.storage.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
        "https://login.chinacloudapi.cn",
        "https://*.amazonaws.com",
        "https://*.amazonaws.com.cn",
        "https://*.googleapis.com",
    )
    # Subscriptions (accounts) that disks may be made in, glob. Default: any.
    subscriptions: tuple[str, ...] = ("*",)


class SmbServerConfig(_Section, frozen=True, kw_only=True):
    """[shares.smb."SERVER"]: what the site accepts of one file server. Without it: the strictest of each."""

    # require | prefer | off. What is not encrypted is always signed. Default: require.
    encryption: Literal["require", "prefer", "off"] = "require"
    # Oldest dialect, 3.1.1 or 3.0.2. Default 3.1.1, which alone protects its own negotiation.
    oldest_dialect: Literal["3.1.1", "3.0.2"] = "3.1.1"
    # negotiate | ntlm | kerberos. Default: negotiate (Kerberos where it can be had, else NTLMv2).
    auth: Literal["negotiate", "ntlm", "kerberos"] = "negotiate"


class SharesConfig(_Section, frozen=True, kw_only=True):
    """[shares]: folders of this machine that commands may name, and exceptions for file servers."""

    # name = "/absolute/folder"; a command names it and never carries a path. Default: none.
    local: dict[Name, Folder] = {}
    # Host name in lower case -> what may be weaker there. Default: none, every server must be strict.
    smb: dict[str, SmbServerConfig] = {}


class TargetsConfig(_Section, frozen=True, kw_only=True):
    """[targets]: folders of this machine that commands may name as targets."""

    # name = "/absolute/folder". Default: none.
    local: dict[Name, Folder] = {}


class UploadsConfig(_Section, frozen=True, kw_only=True):
    """[uploads]: how the clouds are reached; apart from [relay], because sites often route the two differently."""

    # PEM file of further roots of trust (a proxy that opens TLS). Default none: the system's.
    ca_file: Folder | None = None
    # HTTP proxy, `http://proxy.example:3128`. Default none; the environment is never looked at.
    proxy: ProxyUrl | None = None
    # File with `user:password` for the proxy (Basic), mode 0600. Default none.
    proxy_credentials_file: Folder | None = None
    # The appliance's own AWS file with the profiles that jobs may name. Default none: no job may name one.
    aws_config_file: Folder | None = None
    # name = "/absolute/file": the appliance's own Google credentials (a key, workload identity federation) that jobs
    # may name. Default: none.
    gcp_credentials: dict[Name, Folder] = {}
    # The federated token of Azure workload identity, renewed by whoever writes it. Default none.
    azure_token_file: Folder | None = None
    # Send a CRC-64 with every write, which the service checks. Costs 0.7 CPU seconds a GiB; TLS protects the bytes on
    # their way as well, and the read-back proves them in the end. Default: on.
    service_checksum: bool = True


class LimitsConfig(_Section, frozen=True, kw_only=True):
    """[limits]: what the agent takes of the machine."""

    # Jobs at a time. Each costs up to 136 MiB.
    slots: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    # Bytes a second of all uploads together until a `set-limits` says otherwise. Default: no limit.
    bandwidth: Annotated[int, msgspec.Meta(ge=64 * KiB, le=2**40)] | None = None
    # Times of day with another bandwidth: { days = ["mon"], begin = "08:00", end = "18:00", bandwidth = 5242880 }, in
    # local time, the first that holds wins; without bandwidth there is no limit in it. Default: none.
    windows: tuple[LimitWindow, ...] = ()
    # Seconds that a stage may take to clean up after a cancel before what is left is only named.
    clean_up_s: Annotated[float, msgspec.Meta(ge=1, le=600)] = 60.0
    # Seconds after a start in which a waiting cancel may arrive before jobs resume (PROTOCOL 5).
    drain_s: Annotated[float, msgspec.Meta(ge=0.05, le=10)] = 10.0


class JournalConfig(_Section, frozen=True, kw_only=True):
    """[journal]: the agent's memory."""

    # Bytes kept free for refusals, cancels and results when the disk is full. 64 MiB: 1,000 results of 64 KiB.
    reserve: Annotated[int, msgspec.Meta(ge=0, le=1024 * MiB)] = 64 * MiB


class AgentConfig(_Section, frozen=True, kw_only=True):
    """The whole configuration of one agent."""

    # Identity, journal and control socket lie here, mode 0700.
    state_dir: Folder = "/var/lib/imageport"
    # Unix socket for `imageport status`. Default: `control.sock` in state_dir; `@name` is an abstract socket.
    control_socket: str | None = None
    # Take commands without fresh signed time, judged by the floor alone: for control planes not always online.
    accept_unproven: bool = False
    # debug, info, warning, error.
    log_level: Annotated[str, msgspec.Meta(pattern=r"^(?:debug|info|warning|error)\Z")] = "info"
    relay: RelayConfig = RelayConfig()
    policy: PolicyConfig = PolicyConfig()
    shares: SharesConfig = SharesConfig()
    targets: TargetsConfig = TargetsConfig()
    uploads: UploadsConfig = UploadsConfig()
    limits: LimitsConfig = LimitsConfig()
    journal: JournalConfig = JournalConfig()

    @property
    def state(self) -> Path:
        """The state folder as a path."""
        return Path(self.state_dir)

    @property
    def control_path(self) -> str:
        """Where the control socket is; a leading `@` means an abstract one."""
        return self.control_socket or str(self.state / "control.sock")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from.

    Attributes:
        config: The merged configuration.
        origins: Dotted key -> file path, or "default".
    """

    config: AgentConfig
    origins: dict[str, str]

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Yield (dotted key, value, origin) of every key, sorted."""
        flat = dict(_leaves(msgspec.to_builtins(self.config)))
        for key in sorted(flat):
            yield key, flat[key], self.origins.get(key, DEFAULT_ORIGIN)


def load(file: Path | None = None, *, folders: tuple[Path, ...] = FOLDERS) -> Loaded:
    """Read and merge the configuration.

    Args:
        file: Read exactly this file instead of the folders.
        folders: Where the ordered files lie.

    Raises:
        ConfigError: Unreadable, not TOML, unknown key, or a value out of its range.
    """
    files = [file] if file is not None else [f for d in folders for f in sorted(d.glob("*.toml"))]
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path in files:
        values = _read(path)
        _check(values, path)
        origins.update({key: str(path) for key, _ in _leaves(values)})
        merged = _merge(merged, values)
    return Loaded(_check(merged, files[-1] if files else None), origins)


def parse(values: Mapping[str, Any]) -> AgentConfig:
    """Return the configuration that plain values describe; raises ConfigError."""
    return _check(values, None)


def notify_socket() -> str | None:
    """Return the service manager's notification socket, None if there is none."""
    return os.environ.get("NOTIFY_SOCKET")


def watchdog_interval_s() -> float | None:
    """Return how often the service manager wants to hear of us, None if it does not watch this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        msg = f"{path}: {err}"
        raise ConfigError(msg, path=str(path)) from err


def _check(values: Mapping[str, Any], path: Path | None) -> AgentConfig:
    if (unknown := _unknown_key(values)) is not None:
        msg = f"{path or 'configuration'}: {unknown}"
        raise ConfigError(msg, path=str(path or ""))
    try:
        return msgspec.convert(values, AgentConfig, strict=True)
    except msgspec.ValidationError as err:
        msg = f"{path or 'configuration'}: {err}"
        raise ConfigError(msg, path=str(path or "")) from err


def _unknown_key(values: Mapping[str, Any]) -> str | None:
    """Say which key nobody knows, and where it would be at home; None if all are known."""
    sections: dict[str, tuple[str, ...]] = {
        field.name: field.type.__struct_fields__
        for field in msgspec.structs.fields(AgentConfig)
        if isinstance(field.type, type) and issubclass(field.type, _Section)
    }
    homes = {"": AgentConfig.__struct_fields__, **sections}
    places = {"": values} | {n: values[n] for n in sections if isinstance(values.get(n), dict)}
    for place, keys in places.items():
        for key in keys:
            if key in homes[place]:
                continue
            home = [_place(name) for name, known in homes.items() if key in known]
            near = difflib.get_close_matches(key, homes[place], n=1)
            hint = f"known: {', '.join(homes[place])}"
            hint = f"did you mean {near[0]}?" if near else hint
            hint = f"it belongs {' or '.join(home)}" if home else hint
            return f"unknown key {key!r} {_place(place)}; {hint}"
    return None


def _place(section: str) -> str:
    return f"in [{section}]" if section else "before the first section"


def _merge(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        inner = result.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        result[key] = _merge(inner, value) if both and isinstance(inner, dict) else value
    return result


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
