"""Seals the secrets in a job's spec before it leaves the caller's machine. Pure but for HPKE's randomness.

Which fields are secrets is read from the op's struct (protocol.ops): every field of type `Sealed`. A value with `kid`
and `ct` is sealed already; any other object is taken for clear text and sealed as msgpack, bound to the tenant, to the
caller's key and to the spec's own request id.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from protocol.codec import encode
from protocol.ops import OPS
from protocol.sealing import Sealed, SealScope, seal
from relay.errors import ClientError


def seal_spec(spec: dict[str, Any], vault_key: bytes | None, *, caller: str) -> dict[str, Any]:
    """Return the spec with every secret sealed; `request` and `tenant` must be set.

    Args:
        spec: The body of POST /v1/jobs.
        vault_key: Raw public vault key of the signer.
        caller: Key id (hex) of whoever will sign the request: nobody else can have these secrets used.

    Raises:
        ClientError: A secret is in clear and there is no vault key, or it is no object.
    """
    args = spec.get("args", {})
    for path in secret_paths(str(spec.get("op", "")), int(spec.get("args_v", 1))):
        args = _seal_at(args, path, spec, vault_key, caller)
    return {**spec, "args": args}


def secret_paths(op: str, args_v: int) -> list[tuple[str, ...]]:
    """Return the paths of the secrets of an op, none for an op that this release does not know."""
    type_ = OPS.get((op, args_v))
    return [] if type_ is None else sorted(set(_walk(msgspec.inspect.type_info(type_), ())))


def _walk(info: msgspec.inspect.Type, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    match info:
        case msgspec.inspect.UnionType():
            for choice in info.types:
                yield from _walk(choice, path)
        case msgspec.inspect.StructType() if info.cls is Sealed:
            yield path
        case msgspec.inspect.StructType():
            for field in info.fields:
                yield from _walk(field.type, (*path, field.encode_name))


def _seal_at(
    args: dict[str, Any],
    path: tuple[str, ...],
    spec: dict[str, Any],
    vault_key: bytes | None,
    caller: str,
) -> dict[str, Any]:
    """Return `args` with the secret at `path` sealed, if there is one in clear."""
    value = _find(args, path)
    if value is None or (isinstance(value, dict) and value.keys() == {"kid", "ct"}):
        return args
    name = ".".join(path)
    if not isinstance(value, dict):
        raise ClientError(f"the secret {name} must be an object")
    if vault_key is None:
        raise ClientError(
            f"the secret {name} is in clear and this client has no vault key to seal it with",
            fix="Give RelayClient the signer's public vault key.",
        )
    scope = SealScope(str(spec["tenant"]), caller, bytes.fromhex(spec["request"]), name)
    return _replace(args, path, msgspec.to_builtins(seal(encode(value), vault_key, scope)))


def _find(args: object, path: tuple[str, ...]) -> object:
    for name in path:
        args = args.get(name) if isinstance(args, dict) else None
    return args


def _replace(args: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    name, *rest = path
    return {**args, name: _replace(args[name], tuple(rest), value) if rest else value}
