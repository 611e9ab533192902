"""Writes text as TOML 1.0 strings (tomllib only reads). Nothing else of the format is written here."""

_ESCAPES = {'"': '\\"', "\\": "\\\\"}
_DELETE = "\x7f"


def quoted(text: str) -> str:
    r"""Return a basic string with its quotation marks; what TOML forbids inside is escaped as `\u001f`.

    Raises:
        ValueError: The text holds what is no UTF-8 (a byte of a file name, kept as a lone surrogate).
    """
    text.encode()  # UnicodeEncodeError is a ValueError; TOML is UTF-8 and can hold no such byte
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char < " " or char == _DELETE:
        return f"\\u{ord(char):04x}"
    return _ESCAPES.get(char, char)
