"""A job's spec in TOML -> the JSON that the signer takes. Reads the secret files that it names; sends nothing.

    appliance = "site-1"
    path = "golden/win11.vhdx"
    [source]
    kind = "smb"                       # or "local" with name = "..."
    server = "fs01.example"
    share = "images"
    [source.credential]
    username = "svc-images"
    password_file = "smb.secret"
    [target]
    kind = "azure-disk"
    ...
    [target.credential]
    tenant_id = "..."
    client_id = "..."
    client_secret_file = "azure.secret"
    [options]
    if_exists = "new-version"
    bandwidth = "50MiB/s"

Keys of source and target are those of `protocol.ops`. A credential's key that ends in `_file` names a file (from the
spec's folder, or `-` for standard input) whose content is the value.
"""

import difflib
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appliance.cli.exits import CliError, Exit

TOP = ("appliance", "path", "format", "workflow", "source", "target", "options")
OPTIONS = ("if_exists", "verify", "bandwidth", "valid", "start_by", "timeout")
SECRETS = frozenset({"password", "account_key", "sas", "client_secret"})
_SIZES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class BadSpec(CliError):
    """The job's spec cannot be used."""

    code = "cli.bad-spec"
    exit_code = Exit.BAD_DATA
    http_status = 422
    fix = "Correct the named key; docs/quickstart.md has whole examples."


def load_upload(path: Path) -> dict[str, Any]:
    """Read an upload's spec and return the body of POST /v1/jobs without tenant; secrets are in clear inside.

    Raises:
        BadSpec: Unreadable, not TOML, an unknown or missing key, a value or secret file that cannot be used.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        msg = f"{path}: {err}"
        raise BadSpec(msg, path=str(path)) from err
    return upload_spec(plain, folder=path.resolve().parent)


def upload_spec(plain: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    """Return the JSON spec of an upload that a parsed TOML file describes; raises BadSpec."""
    _check_keys(plain, TOP, "the spec")
    options = _table(plain, "options")
    _check_keys(options, OPTIONS, "[options]")
    args: dict[str, Any] = {
        "source": _place(plain, "source", folder),
        "path": _need(plain, "path"),
        "target": _place(plain, "target", folder),
    }
    args |= {key: plain[key] for key in ("format",) if key in plain}
    args |= {key: options[key] for key in ("if_exists", "verify") if key in options}
    if "bandwidth" in options:
        args["bandwidth"] = rate(options["bandwidth"])
    if "timeout" in options:
        args["timeout_s"] = seconds(options["timeout"])
    spec: dict[str, Any] = {"appliance": _need(plain, "appliance"), "op": "upload", "args": args}
    for name, wire in (("valid", "valid_s"), ("start_by", "start_by_s")):
        if name in options:
            spec[wire] = seconds(options[name])
    if "workflow" in plain:
        spec["workflow"] = plain["workflow"]
    return spec


def without_secrets(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a copy to show: every credential's secret value is replaced."""

    def clean(value: Any, name: str) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, dict):
            return {key: clean(inner, key) for key, inner in value.items()}
        return "[secret]" if name in SECRETS else value

    shown: dict[str, Any] = clean(spec, "")
    return shown


def rate(value: object) -> int:
    """Read bytes a second: a number, or "50MiB/s"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]+) ?(KiB|MiB|GiB|)(/s)?", str(value))
    if match is None:
        msg = f"{value!r} is no rate: write bytes a second, or 50MiB/s"
        raise BadSpec(msg)
    return int(match[1]) * _SIZES[match[2]]


def seconds(value: object) -> int:
    """Read a duration: seconds, or "90s", "30m", "24h", "7d"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]+)([smhd])", str(value))
    if match is None:
        msg = f"{value!r} is no duration: write seconds, or 90s, 30m, 24h, 7d"
        raise BadSpec(msg)
    return int(match[1]) * _TIMES[match[2]]


def _place(plain: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    place = dict(_table(plain, name))
    if not place:
        msg = f"the spec has no [{name}]"
        raise BadSpec(msg)
    if "kind" not in place:
        msg = f"[{name}] has no kind"
        raise BadSpec(msg)
    if "credential" in place:
        place["credential"] = _credential(place["credential"], name, folder)
    return place


def _credential(value: object, name: str, folder: Path) -> dict[str, str]:
    if not isinstance(value, dict):
        msg = f"[{name}.credential] is no table"
        raise BadSpec(msg)
    opened: dict[str, str] = {}
    for key, text in value.items():
        if key in SECRETS:
            msg = f"[{name}.credential] {key} is written out; secrets are files: {key}_file"
            raise BadSpec(msg)
        if key.endswith("_file"):
            opened[key.removesuffix("_file")] = _secret(str(text), folder)
        else:
            opened[key] = str(text)
    return opened


def _secret(name: str, folder: Path) -> str:
    try:
        text = sys.stdin.read() if name == "-" else _private(folder / name)
    except (OSError, UnicodeDecodeError) as err:
        msg = f"the secret file {name} cannot be read: {type(err).__name__}"
        raise BadSpec(msg) from err
    if not text.strip():
        msg = f"the secret file {name} is empty"
        raise BadSpec(msg)
    return text.strip("\r\n")


def _private(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        msg = f"{path} can be read by others; run chmod 600 on it"
        raise BadSpec(msg, path=str(path))
    return path.read_text(encoding="utf-8")


def _table(plain: dict[str, Any], name: str) -> dict[str, Any]:
    value = plain.get(name, {})
    if not isinstance(value, dict):
        msg = f"{name} is no table"
        raise BadSpec(msg)
    return value


def _need(plain: dict[str, Any], name: str) -> str:
    value = plain.get(name)
    if not isinstance(value, str) or not value:
        msg = f"the spec has no {name}"
        raise BadSpec(msg)
    return value


def _check_keys(plain: dict[str, Any], known: Iterable[str], where: str) -> None:
    names = tuple(known)
    for key in plain:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}"
            msg = f"{where} has an unknown key {key!r}{hint}"
            raise BadSpec(msg, key=key)
