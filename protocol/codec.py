"""msgpack in and out, strict: limits on size and depth, duplicate keys refused, then a typed decode. No I/O.

Two libraries on purpose: `msgpack` shows us every map before it becomes a dict (a second key of the same name would
vanish silently, facts/relay.md 2), `msgspec` turns the result into a frozen struct and refuses unknown fields.
"""

from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

import msgpack
import msgspec

from protocol.errors import BadField, DuplicateKey, Malformed, Oversized, TooDeep

MAX_DEPTH = 16
"""Containers inside containers (PROTOCOL 2)."""

T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def encode(value: object) -> bytes:
    """Encode a struct, or plain values, as msgpack; map keys keep the order of the struct's fields."""
    return _encoder.encode(value)


def decode(data: bytes, type_: type[T], *, limit: int) -> T:
    """Decode hostile bytes into `type_`.

    Args:
        data: One msgpack value and nothing behind it.
        type_: A frozen `msgspec.Struct`, or any type that msgspec can convert to.
        limit: Most bytes that this kind may have; checked before anything is decoded.

    Raises:
        Oversized, Malformed, TooDeep, DuplicateKey, BadField.
    """
    if len(data) > limit:
        msg = f"{len(data)} bytes, at most {limit} allowed"
        raise Oversized(msg, size=len(data), limit=limit)
    plain = _unpack(data)
    _check_depth(plain)
    try:
        return msgspec.convert(plain, type_, strict=True)
    except (msgspec.ValidationError, ValueError) as err:
        raise BadField(str(err), type=getattr(type_, "__name__", str(type_))) from err


def decode_plain(data: bytes, *, limit: int) -> object:
    """Decode hostile bytes into plain dicts, lists, strings, bytes and numbers, with the same limits."""
    if len(data) > limit:
        msg = f"{len(data)} bytes, at most {limit} allowed"
        raise Oversized(msg, size=len(data), limit=limit)
    plain = _unpack(data)
    _check_depth(plain)
    return plain


def _unpack(data: bytes) -> object:
    size = len(data)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_pairs,
            ext_hook=_refuse_ext,
            max_array_len=size,
            max_map_len=size,
            max_str_len=size,
            max_bin_len=size,
            max_ext_len=0,
        )
    except (DuplicateKey, Malformed):
        raise
    except (msgpack.exceptions.StackError, RecursionError) as err:
        raise TooDeep("nested too deep to decode", limit=MAX_DEPTH) from err
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as err:
        msg = f"not msgpack: {err}"
        raise Malformed(msg) from err


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            msg = f"map key of type {type(key).__name__}, expected a string"
            raise Malformed(msg)
        if key in result:
            msg = f"map names {key[:64]!r} twice"
            raise DuplicateKey(msg, key=key[:64])
        result[key] = value
    return result


def _refuse_ext(code: int, _data: bytes) -> NoReturn:
    msg = f"msgpack extension type {code} is not used on this wire"
    raise Malformed(msg, ext=code)


def _check_depth(value: object) -> None:
    layer: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        layer = [item for item in inner if isinstance(item, dict | list)]
        if not layer:
            return
    msg = f"containers nested deeper than {MAX_DEPTH}"
    raise TooDeep(msg, limit=MAX_DEPTH)
