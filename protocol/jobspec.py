"""A job's spec: the JSON of `POST /v1/jobs` at the signer, and how it becomes an op's arguments. Values only.

Signer and command line decode it here, so that `--plan` refuses what the signer would refuse.
"""

from typing import Annotated

import msgspec

from protocol.errors import BadField
from protocol.ids import IdText, NameText
from protocol.messages import MAX_COMMAND
from protocol.ops import OPS, OpArgs

Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


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
        BadField: The op is unknown, is a cancel (which has its own path), or the arguments do not fit.
    """
    if spec.op == "cancel":
        raise BadField("a cancel is asked for with POST /v1/jobs/{id}/cancel", op=spec.op)
    type_ = OPS.get((spec.op, spec.args_v))
    if type_ is None:
        msg = f"op {spec.op}/{spec.args_v} is unknown to this release"
        raise BadField(msg, op=spec.op)
    if len(spec.args) > MAX_COMMAND:
        msg = f"args of {len(spec.args)} bytes, at most {MAX_COMMAND} fit into a command"
        raise BadField(msg, op=spec.op)
    try:
        return msgspec.json.decode(spec.args, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        msg = f"args do not fit {spec.op}/{spec.args_v}: {err}"
        raise BadField(msg, op=spec.op) from err
