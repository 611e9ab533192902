r"""Reads how a share is named on the command line, as a URL or a UNC path, and a file with the account.

The file is that of mount.cifs(8): lines `username=`, `password=`, `domain=`. No secret is taken from argv.
"""

import stat
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.errors import NeedsOperator
from agent.secrets import Secret
from agent.shares.smb.ref import SMB_PORT, SmbCredential, SmbShareRef

MAX_FILE = 4096


class BadShare(NeedsOperator):
    """The share is not named in the form that the doctor reads."""

    code = "doctor.bad-share"
    exit_code = 2
    http_status = 400
    fix = "Write smb://server/share."


class BadCredentialFile(NeedsOperator):
    """The share's credential file is not of the form that the doctor reads, or is open to others."""

    code = "doctor.bad-credential"
    exit_code = 65
    http_status = 422
    fix = "Write a file of mode 0600 with the lines username=... and password=..."


class NoCredentialFile(NeedsOperator):
    """The share's credential file is not there or cannot be read."""

    code = "doctor.no-credential"
    exit_code = 66
    http_status = 404
    fix = "Check the path, and that this user may read the file."


def parse_share(url: str) -> SmbShareRef:
    r"""Return the share that a URL or a UNC path names; what follows the share is its folder.

    In a URL `%` begins a byte in hexadecimal; `#` and `?` are characters of names like others.

    Raises:
        BadShare, BadPath.
    """
    if url.startswith("\\\\"):
        server, _, rest = url[2:].replace("\\", "/").partition("/")
        name, _, folder = rest.strip("/").partition("/")
        return _reference(url, server, name, folder, SMB_PORT)
    parts = urlsplit(url.replace("#", "%23").replace("?", "%3F"))
    name, _, folder = unquote(parts.path).strip("/").partition("/")
    try:
        port = parts.port or SMB_PORT
    except ValueError as err:
        raise BadShare(f"{url!r}: {err}") from err
    if parts.scheme != "smb" or parts.username is not None:
        raise BadShare(f"{url!r} is no smb://server/share")
    return _reference(url, parts.hostname or "", name, folder, port)


def parse_file(url: str) -> tuple[SmbShareRef, str]:
    """Return the share and the folder of a file that a URL or a UNC path names, and the file's name there.

    Raises:
        BadShare, BadPath.
    """
    ref = parse_share(url)
    folder, _, name = ref.folder.rpartition("/")
    if not name:
        raise BadShare(f"{url!r} names a share and no file on it")
    return replace(ref, folder=folder), name


def _reference(url: str, server: str, name: str, folder: str, port: int) -> SmbShareRef:
    if not server or not name:
        raise BadShare(f"{url!r} is no smb://server/share")
    return SmbShareRef(server, name, port, folder)


def read_credential(path: Path) -> SmbCredential:
    """Return the account of a credential file; its content is never shown.

    Raises:
        NoCredentialFile, BadCredentialFile.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE)
    except OSError as err:
        raise NoCredentialFile(f"{path} cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise BadCredentialFile(f"{path} is no UTF-8 text") from err
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadCredentialFile(
            f"{path} has mode {mode:04o}: others may read the password; expected 0600"
        )
    rows = [line.partition("=") for line in text.splitlines() if line.strip()]
    values = {key.strip().lower(): value for key, _, value in rows}
    if not values.get("username") or "password" not in values:
        raise BadCredentialFile(f"{path} holds no username and password")
    return SmbCredential(
        values["username"].strip(), Secret(values["password"]), values.get("domain", "").strip()
    )
