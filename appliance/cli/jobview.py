"""How a job looks: the properties that people read and the object that `--json` prints. Pure."""

from typing import TYPE_CHECKING, Any

from appliance.cli import output
from appliance.cli.evidence import Evidence
from appliance.cli.progress import event_text

if TYPE_CHECKING:
    from relay.client_watch import JobEvent

ENDED = frozenset({"failed", "cancelled", "refused", "succeeded"})


def job_object(job: dict[str, Any], *, evidence: Evidence) -> dict[str, Any]:
    """Return the fields of `job/1`: the relay's, and who vouches for the state and for the report."""
    return {**job, "evidence": evidence.state, "report_evidence": evidence.report}


def event_object(event: "JobEvent") -> dict[str, Any]:
    """Return the fields of `job-event/1`: the relay's, below what this command says itself."""
    return {**event.data, "type": event.kind, "id": event.id, "finished": event.final}


def job_rows(job: dict[str, Any], *, evidence: Evidence) -> list[tuple[str, str]]:
    """Return name and value of everything that people ask for."""
    result = job.get("result") or {}
    report = result.get("report") or {}
    rows = [
        ("job", str(job["id"])),
        ("state", str(job["state"])),
        ("op", str(job["op"])),
        ("appliance", str(job["appliance"])),
        ("evidence", _evidence_text(evidence)),
    ]
    if job.get("progress") and not result:
        rows.append(("progress", event_text("", job).strip()))
    rows += [("workflow", str(job["workflow"]))] if job.get("workflow") else []
    rows += _time_rows(job, result)
    rows += _error_rows(job, result, report)
    rows += [("root", str(result["root"]))] if result.get("root") else []
    rows += [
        (name.replace("_", " "), output.exact_size(report[name]))
        for name in ("virtual_size", "padded_size")
        if isinstance(report.get(name), int)
    ]
    rows += _transfer_rows(report)
    for made in result.get("outputs") or []:
        rows.append((f"output {made['name']}", f"{made['type']} {made['value'].get('id', '')}"))
    for warning in report.get("warnings") or []:
        rows.append(("warning", f"{warning.get('code')}: {warning.get('message')}"))
    for left in report.get("left") or []:
        rows.append(("left behind", str(left)))
    return rows


def job_summary(job: dict[str, Any]) -> str:
    """Return what a list says of a job besides its state: its code, how long it took, or how far it is."""
    result = job.get("result") or {}
    code = result.get("code") or job.get("code")
    if code:
        return str(code)
    took = dict(_time_rows(job, result)).get("took")
    if took:
        return f"took {took}"
    return "" if job.get("state") in ENDED else event_text("", job).strip()


def _evidence_text(evidence: Evidence) -> str:
    if evidence.state == "relay":
        return "the relay's word; no signature was verified here (root_file in client.toml)"
    report = ", all but the report" if evidence.report == "relay" else ""
    revoked = "; it was revoked since" if evidence.state == "revoked-device" else ""
    return f"signed by the appliance, verified here{report}{revoked}"


def _time_rows(job: dict[str, Any], result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return when it was ordered, started and ended, and how long it took; a running job has no end to show."""
    started, ended = result.get("started"), result.get("ended")
    times = (("ordered", job.get("created")), ("started", started), ("ended", ended))
    rows = [(name, output.moment(at)) for name, at in times if at is not None]
    if isinstance(started, int) and isinstance(ended, int) and ended >= started:
        rows.append(("took", output.duration((ended - started) / 1000)))
    return rows


def _error_rows(
    job: dict[str, Any], result: dict[str, Any], report: dict[str, Any]
) -> list[tuple[str, str]]:
    code = result.get("code") or job.get("code")
    if not code:
        return []
    rows = [("code", str(code))]
    message = report.get("message") or job.get("message")
    rows += [("message", str(message))] if message else []
    return rows + ([("fix", str(report["fix"]))] if report.get("fix") else [])


def _transfer_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    transfer, verified = report.get("transfer"), report.get("verified")
    rows = []
    if isinstance(transfer, dict):
        sent, total = output.size(transfer.get("sent", 0)), output.size(transfer.get("total", 0))
        rows.append(("data", f"{total} read, {sent} sent, {transfer.get('retries', 0)} retries"))
        if isinstance(held := transfer.get("held_by"), dict) and held:
            rows.append(
                ("held back by", ", ".join(f"{side} {part} %" for side, part in held.items()))
            )
    if isinstance(verified, dict):
        rows.append(
            (
                "verified",
                f"{verified.get('mode')}, {output.size(verified.get('bytes_read', 0))} read back",
            )
        )
    elif "verified" in report:
        rows.append(("verified", "no"))
    return rows
