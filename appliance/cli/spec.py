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

Keys of source and target are those of `protocol.ops`; credentials: `appliance.cli.credential`.
"""

import re
import tomllib
from collections.abc import Callable
from datetime import date, time
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from appliance.cli.credential import hidden, open_credential
from appliance.cli.inputs import read_text
from appliance.cli.speckeys import BadSpec, check_names, in_file
from protocol.messages import Layout
from protocol.ops import ShareRef, TargetRef

TOP = ("appliance", "path", "format", "workflow", "source", "target", "options")
OPTIONS = ("if_exists", "verify", "bandwidth", "valid", "start_by", "timeout")
_SIZES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_PLACES: dict[str, dict[str, type[Layout]]] = {
    place: {str(struct.__struct_config__.tag): struct for struct in get_args(kinds)}
    for place, kinds in (("source", ShareRef), ("target", TargetRef))
}
_SHOWN = 40
"""Letters of a value in a message."""
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def load_upload(path: Path) -> dict[str, Any]:
    """Read an upload's spec and return the body of POST /v1/jobs without tenant; secrets are in clear inside.

    Raises:
        NoInput: The spec, or a secret file that it names, cannot be read.
        BadSpec: Not TOML, an unknown or missing key, a value or secret file that cannot be used.
    """
    text = read_text(path, "the spec")
    try:
        plain = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        raise in_file(path, err) from err
    try:
        return upload_spec(plain, folder=path.resolve().parent)
    except BadSpec as err:
        raise in_file(path, err) from err


def upload_spec(plain: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    """Return the JSON spec of an upload that a parsed TOML file describes; raises BadSpec."""
    check_names(plain, TOP, "the spec")
    _check_values(plain, "")
    options = _table(plain, "options")
    check_names(options, OPTIONS, "[options]")
    args: dict[str, Any] = {
        "source": _place(plain, "source", folder),
        "path": _need(plain, "path"),
        "target": _place(plain, "target", folder),
    }
    args |= {key: plain[key] for key in ("format",) if key in plain}
    args |= {key: options[key] for key in ("if_exists", "verify") if key in options}
    if "bandwidth" in options:
        args["bandwidth"] = _option(options, "bandwidth", rate)
    if "timeout" in options:
        args["timeout_s"] = _option(options, "timeout", seconds)
    spec: dict[str, Any] = {"appliance": _need(plain, "appliance"), "op": "upload", "args": args}
    for name, wire in (("valid", "valid_s"), ("start_by", "start_by_s")):
        if name in options:
            spec[wire] = _option(options, name, seconds)
    if "workflow" in plain:
        spec["workflow"] = plain["workflow"]
    return spec


def without_secrets(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a copy to show: of a credential only what is known to be public."""

    def clean(value: Any, name: str) -> Any:  # noqa: ANN401 - JSON
        if not isinstance(value, dict):
            return value
        return (
            hidden(value)
            if name == "credential"
            else {key: clean(inner, key) for key, inner in value.items()}
        )

    shown: dict[str, Any] = clean(spec, "")
    return shown


def rate(value: object) -> int:
    """Read bytes a second: a number, or "50MiB/s"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]+) ?(KiB|MiB|GiB|)(/s)?", str(value))
    if match is None:
        msg = f"{_shown(value)} is no rate: write bytes a second, or 50MiB/s"
        raise BadSpec(msg)
    return int(match[1]) * _SIZES[match[2]]


def seconds(value: object) -> int:
    """Read a duration: seconds, or "90s", "30m", "24h", "7d"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([0-9]+)([smhd])", str(value))
    if match is None:
        msg = f"{_shown(value)} is no duration: write seconds, or 90s, 30m, 24h, 7d"
        raise BadSpec(msg)
    return int(match[1]) * _TIMES[match[2]]


def _option(options: dict[str, Any], name: str, read: Callable[[object], int]) -> int:
    try:
        return read(options[name])
    except BadSpec as err:
        raise BadSpec(f"[options] {name}: {err}", key=name) from err


def _shown(value: object) -> str:
    """Return a value as it may stand in a message: not the whole of a long one."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_values(value: object, key: str) -> None:
    """Refuse what TOML can write and no order can hold; raises BadSpec with the key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_values(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, date | time) or (isinstance(value, float) and not isfinite(value)):
        msg = f"{key} is {value}, which is neither text nor a number; quote what is text"
        raise BadSpec(msg, key=key)


def _place(plain: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    place = dict(_table(plain, name))
    if not place:
        msg = f"the spec has no [{name}]"
        raise BadSpec(msg)
    if "kind" not in place:
        msg = f"[{name}] has no kind"
        raise BadSpec(msg)
    kinds, kind = _PLACES[name], str(place["kind"])
    check_names([kind], kinds, f"[{name}]", "kind")
    if "credential" in place:
        place["credential"] = open_credential(
            place["credential"], kind=kind, place=name, folder=folder
        )
    check_names(place, ("kind", *kinds[kind].__struct_fields__), f"[{name}]")
    return place


def _table(plain: dict[str, Any], name: str) -> dict[str, Any]:
    value = plain.get(name, {})
    if not isinstance(value, dict):
        msg = f"{name} is no table"
        raise BadSpec(msg)
    return value


def _need(plain: dict[str, Any], name: str) -> str:
    value = plain.get(name)
    if value is not None and not isinstance(value, str):
        msg = f"{name} is {_shown(value)}, expected text"
        raise BadSpec(msg, key=name)
    if not value:
        msg = f"the spec has no {name}"
        raise BadSpec(msg, key=name)
    return value
