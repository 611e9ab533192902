"""What people hand to a command: files, standard input, ids and numbers; read and checked here, judged elsewhere.

A file that a command names and that cannot be read is 66, one that holds something else 65, a configuration or what it
names 78. What the parser can refuse is a wrong command line, 2.
"""

import argparse
import sys
from collections.abc import Callable
from math import inf, nan
from pathlib import Path

import msgspec

from appliance.cli.exits import CliError, Exit
from protocol.ids import IdText

STDIN = "-"
MAX_BYTES = 1024 * 1024
"""A spec is some hundred bytes, a key manifest at most 64 KiB; more is another file."""
MAX_DIGITS = 19
"""Of a number, leading zeros too."""


class NoInput(CliError):
    """A file that the command names is not there or cannot be read."""

    code = "cli.no-input"
    exit_code = Exit.NO_INPUT
    http_status = 404
    fix = "Check the path, and that this user may read the file."


class NotText(CliError):
    """A file that the command names is no UTF-8 text."""

    code = "cli.not-text"
    exit_code = Exit.BAD_DATA
    http_status = 422
    fix = "Name the right file, or write it again as UTF-8."


class TooLong(CliError):
    """A file that the command names is far longer than what it should hold."""

    code = "cli.too-long"
    exit_code = Exit.BAD_DATA
    http_status = 422
    fix = "Name the right file."


class CannotCreate(CliError):
    """A file or folder that the command was to make cannot be made."""

    code = "cli.cannot-create"
    exit_code = Exit.CANNOT_CREATE
    http_status = 422
    fix = "Name another place, or give this user the right to write there."


def read_bytes(path: Path, what: str) -> bytes:
    """Return a file's content, `-` is standard input.

    Raises:
        NoInput: It cannot be read; the message begins with `what`.
        TooLong: It has more than MAX_BYTES: a part of it may mean something else.
    """
    try:
        if str(path) == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        reason = getattr(err, "strerror", None) or str(err)
        raise NoInput(f"{what} {path} cannot be read: {reason}", path=str(path)) from err
    if len(data) > MAX_BYTES:
        raise TooLong(f"{what} {path} has more than {MAX_BYTES} bytes", path=str(path))
    return data


def read_text(path: Path, what: str) -> str:
    """Return a file's text, `-` is standard input.

    Raises:
        NoInput, TooLong, NotText.
    """
    try:
        return read_bytes(path, what).decode()
    except UnicodeDecodeError as err:
        raise NotText(f"{what} {path} is no UTF-8 text (byte {err.start})", path=str(path)) from err


def others_may_read(path: Path) -> bool:
    """Whether group or others have rights to a file that holds a secret. Raises NoInput."""
    try:
        return bool(path.stat().st_mode & 0o077)
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        raise NoInput(f"{path} cannot be read: {reason}", path=str(path)) from err


def name(text: str) -> str:
    """Return an id of a tenant, an appliance or a key, as the wire takes it; for argparse."""
    try:
        return msgspec.convert(text, IdText)
    except msgspec.ValidationError as err:
        msg = f"{text!r} is no name: 1 to 64 of a-z, 0-9 and -"
        raise argparse.ArgumentTypeError(msg) from err


def any_or_name(text: str) -> str:
    """Return `*` or a name; for argparse."""
    return text if text == "*" else name(text)


def number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number from `least` to `most`; for argparse."""

    def read(text: str) -> int:
        is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
        if not is_number or not least <= int(text) <= most:
            msg = f"{text!r} is no number from {least} to {most}"
            raise argparse.ArgumentTypeError(msg)
        return int(text)

    return read


count = number(1, 10**9)


def seconds(least: float) -> Callable[[str], float]:
    """Return what reads a number of seconds that is not below `least`; for argparse."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not least <= value < inf:
            msg = f"{text!r} is no number of seconds from {least:g}"
            raise argparse.ArgumentTypeError(msg)
        return value

    return read
