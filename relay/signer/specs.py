"""Job specs: the JSON that callers send becomes an op's typed arguments, secrets re-sealed on the way. Pure.

A secret comes sealed to the signer's vault key and to the spec's own `request` id; it leaves sealed to the
appliance's seal key and the new command's id. Its clear text lives in local variables here and nowhere else.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec

from protocol.ids import IdText, NameText
from protocol.messages import MAX_COMMAND
from protocol.ops import OPS, OpArgs
from protocol.sealing import Sealed, SealKey, SealScope, seal, unseal
from relay.signer.errors import BadSpec

Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Remake = Callable[[Sealed, str], Sealed]
S = TypeVar("S", bound=msgspec.Struct)


class JobSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/jobs`.

    `request` is a random id of the caller's, used once; the spec's secrets are sealed to it. `args` is the op's
    struct (protocol.ops) in JSON with bytes in base64. `valid_s` and `start_by_s` count from the signer's now.
    """

    request: Hex16
    tenant: IdText
    appliance: IdText
    op: NameText
    args: msgspec.Raw
    args_v: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1
    valid_s: Seconds | None = None
    start_by_s: Seconds | None = None
    workflow: IdText | None = None
    retry_of: Hex16 | None = None


def read_args(spec: JobSpec) -> OpArgs:
    """Decode the arguments as the op's struct, strictly.

    Raises:
        BadSpec: The op is unknown, is a cancel (which has its own path), or the arguments do not fit.
    """
    if spec.op == "cancel":
        raise BadSpec("a cancel is asked for with POST /v1/jobs/{id}/cancel", op=spec.op)
    type_ = OPS.get((spec.op, spec.args_v))
    if type_ is None:
        msg = f"op {spec.op}/{spec.args_v} is unknown to this release"
        raise BadSpec(msg, op=spec.op)
    if len(spec.args) > MAX_COMMAND:
        msg = f"args of {len(spec.args)} bytes, at most {MAX_COMMAND} fit into a command"
        raise BadSpec(msg, op=spec.op)
    try:
        return msgspec.json.decode(spec.args, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        msg = f"args do not fit {spec.op}/{spec.args_v}: {err}"
        raise BadSpec(msg, op=spec.op) from err


def reseal(
    args: OpArgs,
    vault: tuple[SealKey, ...],
    *,
    tenant: str,
    request: bytes,
    public: bytes,
    scope: tuple[str, bytes],
) -> OpArgs:
    """Return the arguments with every secret sealed to the appliance.

    Args:
        args: As the caller sent them.
        vault: The signer's vault keys.
        tenant: Whose secrets they are.
        request: The spec's request id, to which they were sealed.
        public: The appliance's seal key.
        scope: Appliance and command id to seal to.

    Raises:
        SealKeyUnknown, SealBroken: Sealed to another key, tenant, request or field.
    """
    appliance, command = scope

    def remake(sealed: Sealed, path: str) -> Sealed:
        clear = unseal(sealed, vault, SealScope(tenant, "", request, path))
        return seal(clear, public, SealScope(tenant, appliance, command, path))

    return replace_sealed(args, remake)


def replace_sealed(struct: S, remake: Remake, *, path: str = "") -> S:
    """Return a copy of a struct in which every `Sealed` below it was remade; field paths are dotted names."""
    changes: dict[str, msgspec.Struct] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        below = f"{path}.{name}" if path else name
        if isinstance(value, Sealed):
            changes[name] = remake(value, below)
        elif isinstance(value, msgspec.Struct):
            changes[name] = replace_sealed(value, remake, path=below)
    return msgspec.structs.replace(struct, **changes) if changes else struct
