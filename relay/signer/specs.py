"""Job specs: the JSON that callers send becomes an op's typed arguments, secrets re-sealed on the way. Pure.

A secret comes sealed to the signer's vault key and to the spec's own `request` id; it leaves sealed to the
appliance's seal key and the new command's id. Its clear text lives in local variables here and nowhere else.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from protocol import jobspec
from protocol.errors import BadField
from protocol.jobspec import JobSpec
from protocol.ops import OpArgs
from protocol.sealing import Sealed, SealKey, SealScope, seal, unseal
from relay.signer.errors import BadSpec

Remake = Callable[[Sealed, str], Sealed]
S = TypeVar("S", bound=msgspec.Struct)


def read_args(spec: JobSpec) -> OpArgs:
    """Decode the arguments as the op's struct, strictly.

    Raises:
        BadSpec: They do not fit.
    """
    try:
        return jobspec.read_args(spec)
    except BadField as err:
        raise BadSpec(str(err), op=spec.op) from err


def reseal(
    args: OpArgs,
    vault: tuple[SealKey, ...],
    *,
    tenant: str,
    caller: str,
    request: bytes,
    public: bytes,
    scope: tuple[str, bytes],
) -> OpArgs:
    """Return the arguments with every secret sealed to the appliance.

    Args:
        args: As the caller sent them.
        vault: The signer's vault keys.
        tenant: Whose secrets they are.
        caller: Who asks, and for whom they were sealed: a relay may have shown them to somebody else.
        request: The spec's request id, to which they were sealed.
        public: The appliance's seal key.
        scope: Appliance and command id to seal to.

    Raises:
        SealKeyUnknown, SealBroken: Sealed to another key, tenant, caller, request or field.
    """
    appliance, command = scope

    def remake(sealed: Sealed, path: str) -> Sealed:
        clear = unseal(sealed, vault, SealScope(tenant, caller, request, path))
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
