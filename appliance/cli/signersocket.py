"""Talking to the signer over its unix socket: one request, one answer. Standard library only; knows no command."""

import argparse
import http.client
import json
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.cli.exits import CliError, Exit

DEFAULT_SOCKET = Path("/run/imageport-signer/control.sock")
TIMEOUT_S = 60.0


class SignerUnreachable(CliError):
    """Nobody answers on the signer's socket, or this user may not ask."""

    code = "cli.signer-unreachable"
    exit_code = Exit.UNAVAILABLE
    http_status = 503
    retryable = True
    fix = "Start it with `imageport signer serve`, and run this as its user or as root; --socket names another path."


class SignerRefused(CliError):
    """The signer refused; the message and the field `signer_code` are its own."""

    code = "cli.signer-refused"
    exit_code = Exit.NO
    http_status = 409
    fix = "Look the signer's code up in docs/errors.md."


class SignerConfigError(CliError):
    """The signer's configuration, in which its socket is looked up, cannot be read."""

    code = "cli.signer-config"
    exit_code = Exit.CONFIG
    http_status = 500
    fix = "Name the signer's signer.toml with --config, or its socket with --socket."


def add_socket_options(parser: argparse.ArgumentParser) -> None:
    """Declare how the signer's socket is found."""
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help=f"the signer's socket (default: {DEFAULT_SOCKET})",
    )
    parser.add_argument(
        "--config", type=Path, metavar="F", help="the signer's signer.toml, which names its socket"
    )


def socket_of(args: argparse.Namespace) -> Path:
    """Return the socket that `--socket`, or the configuration of `--config`, names.

    Raises:
        SignerConfigError: The configuration cannot be read.
    """
    if args.socket is not None:
        return Path(args.socket)
    if args.config is None:
        return DEFAULT_SOCKET
    try:
        named = tomllib.loads(args.config.read_text(encoding="utf-8")).get("socket")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        msg = f"{args.config} cannot be read: {getattr(err, 'strerror', None) or err}"
        raise SignerConfigError(msg, path=str(args.config)) from err
    return args.config.parent / named if isinstance(named, str) else DEFAULT_SOCKET


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


def ask(
    path: Path,
    method: str,
    target: str,
    body: dict[str, Any] | bytes | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Send one request and return the answer's JSON object.

    Raises:
        SignerUnreachable, SignerRefused.
    """
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    connection = _UnixConnection(path)
    try:
        connection.request(method, target, data, headers or {})
        response = connection.getresponse()
        status, answer = response.status, response.read()
    except (OSError, http.client.HTTPException) as err:
        msg = f"no signer answers on {path}: {err}"
        raise SignerUnreachable(msg) from err
    finally:
        connection.close()
    return _checked(status, answer)


def _checked(status: int, answer: bytes) -> dict[str, Any]:
    try:
        body = json.loads(answer)
    except ValueError as err:
        msg = f"the signer answered {status} with something that is not JSON"
        raise SignerUnreachable(msg) from err
    if status >= 400:
        code = str(body.get("code", ""))
        advice = f" ({body['fix']})" if body.get("fix") else ""
        msg = f"{body.get('detail', 'refused')}{advice}"
        raise SignerRefused(msg, signer_code=code, status=status)
    return dict(body)
