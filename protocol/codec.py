"""msgpack in and out, strict: limits on size and depth, duplicate keys refused, then a typed decode. No I/O.

Two libraries on purpose: `msgpack` shows every map before it becomes a dict (a second key of the same name would vanish
silently), `msgspec` decodes into a frozen struct and refuses unknown fields.

Memory: a small value is unpacked whole first, so that each fault has its own code. A large one could unpack to 60 times
its size (one byte is an empty list), so there the typed decode goes first: it allocates no more than its type has.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NoReturn, TypeVar, cast

import msgpack
import msgspec

from protocol.errors import BadField, DuplicateKey, FrameError, Malformed, Oversized, TooDeep

MAX_DEPTH = 16
"""Containers inside containers (PROTOCOL 2)."""
SMALL = 64 * 1024
"""Up to here a value may be unpacked before its type is looked at: 4 MiB at worst."""

T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def encode(value: object) -> bytes:
    """Encode a struct, or plain values, as msgpack; map keys keep the order of the struct's fields."""
    return _encoder.encode(value)


def decode(data: bytes, type_: type[T], *, limit: int) -> T:
    """Decode hostile bytes into `type_`.

    Args:
        data: One msgpack value and nothing behind it.
        type_: A frozen `msgspec.Struct`, or any type that msgspec decodes.
        limit: Most bytes that this kind may have; checked before anything is decoded.

    Raises:
        Oversized, Malformed, TooDeep, DuplicateKey, BadField.
    """
    _check_size(data, limit)
    if len(data) <= SMALL:
        _check_depth(_unpack(data))
        return _typed(data, type_)
    try:
        value = _typed(data, type_)
    except FrameError:
        _name_the_fault(data[:SMALL])
        raise
    _check_depth(_unpack(data))
    return value


def decode_plain(data: bytes, *, limit: int) -> object:
    """Decode hostile bytes into plain dicts, lists, strings, bytes and numbers, with the same limits."""
    _check_size(data, limit)
    plain = _unpack(data)
    _check_depth(plain)
    return plain


def _check_size(data: bytes, limit: int) -> None:
    if len(data) > limit:
        msg = f"{len(data)} bytes, at most {limit} allowed"
        raise Oversized(msg, size=len(data), limit=limit)


@lru_cache(maxsize=128)
def _decoder(type_: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401  # any type, unions too
    return msgspec.msgpack.Decoder(type_)


def _typed(data: bytes, type_: type[T]) -> T:
    decoder: msgspec.msgpack.Decoder[T] = _decoder(cast("Any", type_))
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as err:
        raise BadField(str(err), type=getattr(type_, "__name__", str(type_))) from err
    except RecursionError as err:
        raise TooDeep("nested too deep to decode", limit=MAX_DEPTH) from err
    except (msgspec.DecodeError, ValueError) as err:
        msg = f"not msgpack: {err}"
        raise Malformed(msg) from err


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
    except FrameError:
        raise
    except (msgpack.exceptions.StackError, RecursionError) as err:
        raise TooDeep("nested too deep to decode", limit=MAX_DEPTH) from err
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as err:
        msg = f"not msgpack: {err}"
        raise Malformed(msg) from err


def _name_the_fault(start: bytes) -> None:
    """Raise TooDeep or DuplicateKey if the first bytes of a large value show it; else return."""
    try:
        _check_depth(_unpack(start))
    except Malformed:
        return  # cut at SMALL, so that says nothing


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
    for _ in range(MAX_DEPTH):
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
