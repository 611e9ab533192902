"""Secret: a string that does not show itself, and the access of a stage to the sealed fields of its command.

Clear text lives in memory only, is opened on demand and is never written, logged or formatted.
"""

from collections.abc import Callable, Sequence
from typing import Any

from agent.errors import Permanent
from protocol.codec import decode_plain
from protocol.errors import FrameError
from protocol.ops import OpArgs
from protocol.sealing import Sealed, SealKey, SealScope, unseal

MAX_CLEAR = 64 * 1024
HIDDEN = "[secret]"


class SecretUnreadable(Permanent):
    """A sealed field opened, but is not the map of strings that it should be."""

    code = "secret.unreadable"
    fix = "Give the credential to the signer again."


class Secret:
    """A string that prints as `[secret]`; compare and use it through `reveal()` only."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the clear text; hand it to the SDK at once, keep no copy."""
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return HIDDEN

    def __reduce__(self) -> str:
        msg = "a Secret is never serialised"
        raise TypeError(msg)


SecretReader = Callable[[str], dict[str, Secret]]
"""Field path ("source.credential") -> the opened map; {} if the command has no such secret."""


def reader(
    args: OpArgs, keys: Sequence[SealKey], *, tenant: str, appliance: str, command: bytes
) -> SecretReader:
    """Return the reader for one command's sealed fields.

    The reader raises protocol.errors.SealError (unknown key, other scope) or SecretUnreadable.
    """

    def read(path: str) -> dict[str, Secret]:
        sealed = field_at(args, path)
        if sealed is None:
            return {}
        clear = unseal(sealed, list(keys), SealScope(tenant, appliance, command, path))
        return _open(clear, path)

    return read


def field_at(args: OpArgs, path: str) -> Sealed | None:
    """Return the sealed field at a dotted path of the arguments, None if there is none."""
    value: Any = args
    for name in path.split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, Sealed) else None


def _open(clear: bytes, path: str) -> dict[str, Secret]:
    try:
        plain = decode_plain(clear, limit=MAX_CLEAR)
    except FrameError as err:
        msg = f"the secret {path} is not a msgpack map"
        raise SecretUnreadable(msg, path=path) from err
    if not isinstance(plain, dict) or not all(isinstance(v, str) for v in plain.values()):
        msg = f"the secret {path} is not a map of strings"
        raise SecretUnreadable(msg, path=path)
    return {key: Secret(value) for key, value in plain.items()}
