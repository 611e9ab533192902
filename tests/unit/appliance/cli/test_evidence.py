"""What a client believes of a relay: only what the appliance signed, where the signature can be checked."""

import base64
import json
from typing import Any

import msgspec
import pytest

from agent.journal.results import report_bytes
from appliance.cli.evidence import BadEvidence, Evidence, judge, needs_proof
from protocol.ids import digest_of
from protocol.messages import Kind, Output
from relay.api.jobs import view_of
from relay.store.base import Job
from tests.support import protocol_world as w

REPORT = {
    "virtual_size": 1 << 40,
    "seconds": 1.25,
    "warnings": [{"message": "größer\n"}],
    "left": [],
}
OUTPUT = Output(
    name="disk", type="azure-disk", value={"id": "/subscriptions/x", "size": 7, "new": True}
)
RECORD = w.record()


def shown(*, key: Any = w.DEVICE, report: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """Return a job as the relay's REST shows it and a client reads it."""
    raw = report_bytes(REPORT) if report is None else report
    facts = {"root": "sha256:" + "0" * 64, "outputs": (OUTPUT,), "started": w.T0 - 5, **changes}
    facts.setdefault("report_digest", digest_of(raw) if raw else None)
    result = w.result(**facts)
    job = Job(
        tenant=w.TENANT,
        appliance=w.APPLIANCE,
        id=result.id,
        op=result.op,
        epoch=1,
        seq=1,
        digest=result.digest,
        state=result.status,
        created=w.T0,
        updated=w.T0,
        result=w.envelope(Kind.RESULT, result, key),
        report=raw,
        order=1,
    )
    read: dict[str, Any] = json.loads(msgspec.json.encode(view_of(job)))
    return read


def test_a_signed_result_vouches_for_state_and_report() -> None:
    assert judge(shown(), RECORD) == Evidence("device-signature", "device-signature")


def test_a_failed_job_and_one_without_a_report_are_proven_too() -> None:
    job = shown(status="failed", code="share.not-found", root=None, outputs=(), report=b"")
    assert judge(job, RECORD).report == "device-signature"


@pytest.mark.parametrize(
    ("where", "name", "lie"),
    [
        ("job", "state", "failed"),
        ("job", "id", "0" * 32),
        ("job", "op", "upload"),
        ("job", "digest", "0" * 64),
        ("job", "workflow", "somebody-elses"),
        ("result", "status", "failed"),
        ("result", "root", "sha256:" + "1" * 64),
        ("result", "code", "share.not-found"),
        ("result", "ended", 1),
        ("result", "started", None),
        ("result", "attempt", 2),
        ("result", "outputs", []),
    ],
)
def test_a_job_that_is_shown_otherwise_than_it_was_signed_is_an_error(
    where: str, name: str, lie: object
) -> None:
    job = shown()
    (job if where == "job" else job["result"])[name] = lie
    with pytest.raises(BadEvidence, match=name):
        judge(job, RECORD)


def test_a_changed_report_is_the_relays_word_and_the_rest_stays_proven() -> None:
    job = shown()
    job["result"]["report"]["virtual_size"] = 5
    assert judge(job, RECORD) == Evidence("device-signature", "relay")


@pytest.mark.parametrize("report", [None, {}], ids=["none", "empty"])
def test_a_report_that_is_kept_back_is_not_proven(report: object) -> None:
    job = shown()
    job["result"]["report"] = report
    assert judge(job, RECORD).report == "relay"


def test_a_report_that_nobody_signed_is_the_relays_word() -> None:
    job = shown(report=b"")
    job["result"]["report"] = {"virtual_size": 5}
    assert judge(job, RECORD).report == "relay"


def test_another_device_is_no_evidence() -> None:
    with pytest.raises(BadEvidence, match="not proven"):
        judge(shown(key=w.OTHER_DEVICE), RECORD)


@pytest.mark.parametrize("text", ["", "%%%", base64.b64encode(b"x").decode()])
def test_an_envelope_that_is_none_is_named(text: str) -> None:
    job = shown()
    job["result"]["envelope"] = text
    with pytest.raises(BadEvidence, match="not proven"):
        judge(job, RECORD)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "refused"])
def test_an_end_without_a_result_is_an_error(state: str) -> None:
    job = {**shown(), "state": state}
    del job["result"]
    assert needs_proof(job)
    with pytest.raises(BadEvidence, match="without the appliance's signed result"):
        judge(job, RECORD)


@pytest.mark.parametrize("state", ["queued", "quarantined", "accepted", "running", "cancelling"])
def test_what_has_not_ended_needs_no_proof(state: str) -> None:
    assert not needs_proof({"state": state})


def test_a_device_that_was_revoked_since_is_named() -> None:
    found = judge(shown(), w.record(revoked=w.T0))
    assert found == Evidence("revoked-device", "revoked-device")
