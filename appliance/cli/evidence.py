"""Who vouches for what a job shows: the appliance's own signature, or the relay's word. Pure: no files, no connection.

The way of trust: root key (pinned in client.toml) -> key manifest (any courier) -> record key -> the appliance's record
(from `records_dir`) -> its device key -> the result (PROTOCOL 2, 6). A result that does not hold is an error, never
a weaker answer: where a signature can be checked, a relay's word counts for nothing.

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
from protocol.keys import KeyRing
from protocol.messages import MAX_RESULT, Kind, Record, Result
from protocol.signed import open_statement

Voucher = Literal["device-signature", "relay"]


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


@dataclass(frozen=True, slots=True)
class Pins:
    """What the client holds itself.

    Attributes:
        tenant: Whose jobs these are.
        root: Raw public root key.
        record: The appliance's record, an envelope.
    """

    tenant: str
    root: bytes
    record: bytes


def needs_proof(job: dict[str, Any]) -> bool:
    """Tell whether a job's end is one that only its appliance can know."""
    return bool(job.get("result")) or job.get("state") == "succeeded"


def judge(job: dict[str, Any], pins: Pins, *, manifest: bytes) -> Evidence:
    """Verify a job's result and hold what the relay shows to it.

    Raises:
        BadEvidence: There is no valid signature, or the job is shown otherwise than it was signed.
    """
    shown = job.get("result")
    if not isinstance(shown, dict):
        msg = f"job {job.get('id')} is shown as {job.get('state')} without the appliance's signed result"
        raise BadEvidence(msg)
    try:
        record = _record(job, pins, manifest)
        envelope = base64.b64decode(str(shown.get("envelope", "")), validate=True)
        _, result = open_statement(
            Kind.RESULT, envelope, Result, public=record.device_key, limit=MAX_RESULT
        )
    except (ProtocolError, ValueError) as err:
        msg = f"the result of job {job.get('id')} is not proven: {err}"
        raise BadEvidence(msg) from err
    _compare(_shown(job, shown), _signed(result), job)
    return Evidence("device-signature", _report(result, shown.get("report")))


def _record(job: dict[str, Any], pins: Pins, manifest: bytes) -> Record:
    record = KeyRing.open(manifest, root=pins.root).open_record(pins.record)
    if (record.tenant, record.id) != (pins.tenant, job.get("appliance")):
        msg = f"the record at hand is of {record.tenant}/{record.id}"
        raise BadEvidence(msg)
    if record.revoked is not None:
        msg = f"the record of {record.id} was revoked"
        raise BadEvidence(msg)
    return record


def _signed(result: Result) -> dict[str, Any]:
    return {
        "id": result.id.hex(),
        "appliance": result.appliance,
        "op": result.op,
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
        **{name: job.get(name) for name in ("id", "appliance", "op", "digest", "state")},
        **{name: result.get(name) for name in ("status", "code", "root", "ended", "started")},
        "attempt": result.get("attempt"),
        "outputs": result.get("outputs"),
    }


def _compare(shown: dict[str, Any], signed: dict[str, Any], job: dict[str, Any]) -> None:
    for name, value in signed.items():
        if shown[name] != value:
            msg = f"job {job.get('id')}: the relay shows {name} {shown[name]!r}, the appliance signed {value!r}"
            raise BadEvidence(msg, field=name)


def _report(result: Result, report: object) -> Voucher:
    if report is None:
        return "device-signature" if result.report_digest is None else "relay"
    written = json.dumps(report, sort_keys=True).encode()
    proven = hashlib.sha256(written).digest() == result.report_digest
    return "device-signature" if proven else "relay"
