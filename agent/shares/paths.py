"""Share paths: one pure function decides which relative paths may reach a share. Knows no file system.

The rule is the same for every kind of share, so a job that runs against a local folder also runs against
Windows: names that Windows would silently change (trailing dot or blank) or treat as devices are refused.
"""

from agent.shares.errors import BadPath

MAX_NAME_CHARS = 255
"""Longest name ([MS-FSCC] 2.1.5.2); the server may allow less for what is not ASCII."""

MAX_PATH_CHARS = 16_000
"""Half of the 32,767 UTF-16 units of [MS-FSCC] 2.1.5: room for the share's folder and for rare scripts."""

_FORBIDDEN = frozenset('\\:*?"<>|')
_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))]
)


def normalise(path: str, *, allow_root: bool = False) -> str:
    """Return `path` if it is a plain relative path below a share.

    Args:
        path: Names with `/` between them.
        allow_root: Whether the empty path (the share's own folder) is meant too.

    Raises:
        BadPath: `..`, `.`, an absolute path, a drive letter, a stream, an empty or unsafe name.
    """
    if path == "" and allow_root:
        return path
    if len(path) > MAX_PATH_CHARS:
        raise BadPath(f"the path has {len(path)} characters, allowed are {MAX_PATH_CHARS}")
    for name in path.split("/"):
        problem = _problem(name)
        if problem:
            raise BadPath(f"path {path!r}: the name {name!r} {problem}", path=path, name=name)
    return path


def join(folder: str, path: str) -> str:
    """Return `path` below `folder`; both are normalised already and may be empty."""
    return "/".join(part for part in (folder, path) if part)


def _problem(name: str) -> str | None:
    """Say what is wrong with one name; None if nothing is."""
    checks: tuple[tuple[bool, str], ...] = (
        (name == "", "is empty (an absolute path or a doubled slash)"),
        (name in {".", ".."}, "leads elsewhere"),
        (any(map(_is_forbidden, name)), "has a character that no share allows"),
        (len(name) > MAX_NAME_CHARS, f"is longer than {MAX_NAME_CHARS} characters"),
        (name.endswith((".", " ")), "ends with a dot or a blank, which Windows drops"),
        (_stem(name) in _DEVICES, "is a device name on Windows"),
    )
    return next((problem for is_bad, problem in checks if is_bad), None)


def _is_forbidden(char: str) -> bool:
    """Whether a character is a separator, a wildcard, a control code or half of a surrogate pair."""
    code = ord(char)
    return char in _FORBIDDEN or code < 0x20 or code == 0x7F or 0xD800 <= code <= 0xDFFF


def _stem(name: str) -> str:
    """Return the part that makes a name a device for Windows: NUL.txt is NUL."""
    return name.partition(".")[0].rstrip().upper()
