"""Who vouches for what a job shows: the appliance's own signature, or the relay's word. Pure: no files, no connection.

The way of trust: root key (pinned in client.toml) -> key manifest -> record key -> the appliance's record
(`trusted.py`) -> its device key -> the result (PROTOCOL 2, 6). A result that does not hold is an error, never a weaker
answer: whoever pinned the root key has no use for a relay's word.

The digest in a result names the report's exact bytes; the relay hands its JSON on. It is written again here as the
agent writes it, and where that does not give the digest, only the report stays the relay's word.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from appliance.cli.exits import CliError, Exit
from protocol.errors import ProtocolError
from protocol.jobs import FINAL
from protocol.messages import MAX_RESULT, Kind, Record, Result
from protocol.signed import open_statement

Voucher = Literal["device-signature", "revoked-device", "relay"]


class BadEvidence(CliError):
    """A result that the appliance did not sign, or a job that is shown otherwise than it was signed."""

    code = "cli.bad-evidence"
    exit_code = Exit.PROTOCOL
    http_status = 502
    fix = "Do not believe this relay; compare `imageport status` on the appliance, and tell its operator."


@dataclass(frozen=True, slots=True)
class Evidence:
    """Who vouches for the state, root and outputs of a job, and who for its report."""

    state: Voucher
    report: Voucher


RELAY = Evidence("relay", "relay")
_ENDS = frozenset(state.value for state in FINAL)


def needs_proof(job: dict[str, Any]) -> bool:
    """Tell whether a job is shown as one that ended.

    Every end is its appliance's signed result: an honest relay sets final states from nothing else and keeps the result
    with the job (`relay.store.rules`). What was never delivered, or the signer closed, stays queued or quarantined.
    """
    return bool(job.get("result")) or job.get("state") in _ENDS


def judge(job: dict[str, Any], record: Record) -> Evidence:
    """Verify a job's result and hold what the relay shows to it.

    Args:
        job: As the relay shows it.
        record: The verified record of the job's appliance. If it was revoked, nobody knows whether the device signed
            before that.

    Raises:
        BadEvidence: There is no valid signature, or the job is shown otherwise than it was signed.
    """
    shown = job.get("result")
    if not isinstance(shown, dict):
        msg = f"job {job.get('id')} is shown as {job.get('state')} without the appliance's signed result"
        raise BadEvidence(msg)
    try:
        envelope = base64.b64decode(str(shown.get("envelope", "")), validate=True)
        _, result = open_statement(
            Kind.RESULT, envelope, Result, public=record.device_key, limit=MAX_RESULT
        )
    except (ProtocolError, ValueError) as err:
        msg = f"the result of job {job.get('id')} is not proven: {err}"
        raise BadEvidence(msg) from err
    _compare(_shown(job, shown), _signed(result), job)
    voucher: Voucher = "device-signature" if record.revoked is None else "revoked-device"
    return Evidence(voucher, _report(result, shown.get("report"), voucher))


def _signed(result: Result) -> dict[str, Any]:
    return {
        "id": result.id.hex(),
        "appliance": result.appliance,
        "op": result.op,
        "workflow": result.workflow,
        "digest": result.digest.hex(),
        "state": result.status,
        "status": result.status,
        "code": result.code,
        "root": result.root,
        "ended": result.ended,
        "started": result.started,
        "attempt": result.attempt,
        "outputs": [msgspec.to_builtins(output) for output in result.outputs],
    }


def _shown(job: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {
        **{
            name: job.get(name) for name in ("id", "appliance", "op", "workflow", "digest", "state")
        },
        **{name: result.get(name) for name in ("status", "code", "root", "ended", "started")},
        "attempt": result.get("attempt"),
        "outputs": result.get("outputs"),
    }


def _compare(shown: dict[str, Any], signed: dict[str, Any], job: dict[str, Any]) -> None:
    for name, value in signed.items():
        if shown[name] != value:
            msg = f"job {job.get('id')}: the relay shows {name} {shown[name]!r}, the appliance signed {value!r}"
            raise BadEvidence(msg, field=name)


def _report(result: Result, report: object, voucher: Voucher) -> Voucher:
    if report is None:
        return voucher if result.report_digest is None else "relay"
    written = json.dumps(report, sort_keys=True).encode()
    proven = hashlib.sha256(written).digest() == result.report_digest
    return voucher if proven else "relay"
