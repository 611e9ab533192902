"""How a job looks: every fact that people ask for, who vouches for it, and nothing that a relay may fake."""

from typing import Any

import pytest

from appliance.cli import output
from appliance.cli.evidence import RELAY, Evidence
from appliance.cli.jobview import event_object, job_object, job_rows, job_summary
from relay.client_watch import JobEvent

SIGNED = Evidence("device-signature", "device-signature")
JOB: dict[str, Any] = {"id": "a" * 32, "state": "running", "op": "upload", "appliance": "site-1"}


def rows(job: dict[str, Any], evidence: Evidence = SIGNED) -> dict[str, str]:
    return dict(job_rows(job, evidence=evidence))


def test_a_running_job_shows_its_step_rate_and_time_left() -> None:
    progress = {"step": "copy", "done": 1 << 20, "total": 4 << 20, "rate": 2 << 20, "eta_ms": 1500}
    assert rows({**JOB, "progress": progress})["progress"] == (
        "copy  25% 1.0 MiB of 4.0 MiB, 2.0 MiB/s, 00:02 left"
    )


def test_a_finished_job_shows_both_sizes_root_outputs_warnings_and_proof() -> None:
    report = {
        "virtual_size": 1536 << 20,
        "padded_size": 2 << 30,
        "transfer": {"total": 1 << 20, "sent": 1 << 19, "retries": 2},
        "verified": {"mode": "full", "bytes_read": 1 << 20},
        "warnings": [{"code": "upload.padded", "message": "grew"}],
    }
    made = {"name": "disk", "type": "azure-disk", "value": {"id": "/x/y"}}
    result = {"root": "sha256:00", "outputs": [made], "report": report}
    assert rows({**JOB, "state": "succeeded", "result": result, "progress": {"step": "old"}}) == {
        "job": "a" * 32,
        "state": "succeeded",
        "op": "upload",
        "appliance": "site-1",
        "evidence": "signed by the appliance, verified here",
        "root": "sha256:00",
        "virtual size": "1.5 GiB (1610612736 bytes)",
        "padded size": "2.0 GiB (2147483648 bytes)",
        "data": "1.0 MiB read, 512.0 KiB sent, 2 retries",
        "verified": "full, 1.0 MiB read back",
        "output disk": "azure-disk /x/y",
        "warning": "upload.padded: grew",
    }


def test_a_finished_job_shows_when_it_ran_and_how_long() -> None:
    result = {"started": 1_800_000_005_000, "ended": 1_800_003_725_400}
    shown = rows({**JOB, "state": "succeeded", "created": 1_800_000_000_000, "result": result})
    assert [shown[name] for name in ("ordered", "started", "ended", "took")] == [
        "2027-01-15 08:00:00 UTC",
        "2027-01-15 08:00:05 UTC",
        "2027-01-15 09:02:05 UTC",
        "1:02:00",
    ]


@pytest.mark.parametrize("at", [-1, 10**30, "soon", True, 1.5], ids=str)
def test_a_time_that_is_none_is_no_traceback(at: object) -> None:
    shown = rows({**JOB, "created": at, "result": {"started": at, "ended": at}})
    assert shown["started"] in {"?", "1970-01-01 00:00:00 UTC"}


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ({"state": "running", "progress": {"step": "copy", "done": 1, "total": 2}}, "copy  50% 1"),
        ({"state": "succeeded", "result": {"started": 0, "ended": 5_000}}, "took 00:05"),
        ({"state": "succeeded", "progress": {"step": "copy", "done": 2, "total": 2}}, ""),
        ({"state": "failed", "result": {"code": "share.not-found"}}, "share.not-found"),
        ({"state": "refused", "code": "policy.op-forbidden"}, "policy.op-forbidden"),
    ],
    ids=["running", "took", "old progress", "failed", "refused"],
)
def test_a_list_says_one_thing_of_each_job(job: dict[str, Any], text: str) -> None:
    shown = job_summary({**JOB, **job})
    assert shown.startswith(text)
    assert bool(shown) == bool(text)


def test_a_job_that_never_started_shows_no_time_that_it_took() -> None:
    assert "took" not in rows({**JOB, "state": "refused", "result": {"ended": 1_800_000_000_000}})


def test_a_failed_job_shows_code_message_fix_and_what_is_left() -> None:
    report = {
        "message": "no such file",
        "fix": "Name another.",
        "left": ["blob x"],
        "verified": None,
    }
    shown = rows(
        {**JOB, "state": "failed", "result": {"code": "share.not-found", "report": report}}
    )
    assert [shown[name] for name in ("code", "message", "fix", "left behind", "verified")] == [
        "share.not-found",
        "no such file",
        "Name another.",
        "blob x",
        "no",
    ]


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (RELAY, "the relay's word; no signature was verified here (root_file in client.toml)"),
        (
            Evidence("device-signature", "relay"),
            "signed by the appliance, verified here, all but the report",
        ),
        (
            Evidence("revoked-device", "revoked-device"),
            "signed by the appliance, verified here; it was revoked since",
        ),
    ],
    ids=["relay", "report", "revoked"],
)
def test_who_vouches_is_said(evidence: Evidence, text: str) -> None:
    assert rows(JOB, evidence)["evidence"] == text


def test_json_says_who_vouches_whatever_the_relay_claims() -> None:
    claimed = {**JOB, "evidence": "device-signature", "report_evidence": "device-signature"}
    shown = job_object(claimed, evidence=RELAY)
    assert (shown["evidence"], shown["report_evidence"]) == ("relay", "relay")


def test_an_event_says_what_it_is_whatever_the_relay_claims() -> None:
    claimed = {"state": "failed", "id": "x", "type": "x", "finished": False, "code": "a.b"}
    assert event_object(JobEvent(7, "state", claimed)) == {
        "state": "failed",
        "code": "a.b",
        "type": "state",
        "id": 7,
        "finished": True,
    }


def test_a_relay_cannot_write_lines_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    message = "x\nevidence: signed\x1b[2K\u009b"
    output.answer_properties(job_rows({**JOB, "code": "a.b", "message": message}, evidence=RELAY))
    shown = capsys.readouterr().out
    assert shown.count("\n") == len(
        job_rows({**JOB, "code": "a.b", "message": "x"}, evidence=RELAY)
    )
    assert "\x1b" not in shown
    assert "\u009b" not in shown
    assert "x\\nevidence: signed\\x1b[2K\\x9b" in shown
