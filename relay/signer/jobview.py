"""How an order looks to those who read it: plain values for JSON. Reads rows, decides nothing else.

| state | means |
|---|---|
| queued | signed and durable here; the appliance has not acknowledged it |
| accepted | the appliance has it in its inbox (device-signed ack); how far it is, the relay's events tell |
| succeeded, failed, cancelled, refused | a device-signed, verified result says so, or the signer closed it (`code`) |
"""

import sqlite3
from typing import Any

from protocol.inbox import JOURNAL_BEHIND
from relay.signer import appliances, results
from relay.signer.orders import Order
from relay.signer.results import Kept


def describe(conn: sqlite3.Connection, order: Order, *, with_report: bool) -> dict[str, Any]:
    """Return one job as plain values."""
    kept = results.standing(conn, order.appliance, order.digest)
    view: dict[str, Any] = {
        "id": order.id.hex(),
        "digest": order.digest.hex(),
        "tenant": order.tenant,
        "appliance": order.appliance,
        "op": order.op,
        "epoch": order.epoch,
        "seq": order.seq,
        "state": state_of(conn, order, kept),
        "created": order.created,
        "caller": order.caller,
        "workflow": order.workflow,
        "retry_of": order.retry_of.hex() if order.retry_of else None,
        "code": order.ended,
    }
    if kept is not None:
        view["code"] = kept.result.code
        view["result"] = _result(kept, with_report=with_report)
    return {key: value for key, value in view.items() if value is not None}


def state_of(conn: sqlite3.Connection, order: Order, kept: Kept | None) -> str:
    """Return a job's state as far as the signer knows it."""
    if kept is not None:
        return kept.result.status
    if order.ended is not None:
        return "failed" if order.ended == JOURNAL_BEHIND else "refused"
    line = appliances.get(conn, order.appliance).line
    return "accepted" if (order.epoch, order.seq) <= line.seen else "queued"


def _result(kept: Kept, *, with_report: bool) -> dict[str, Any]:
    result = kept.result
    view: dict[str, Any] = {
        "status": result.status,
        "attempt": result.attempt,
        "started": result.started,
        "ended": result.ended,
        "root": result.root,
        "outputs": [{"name": o.name, "type": o.type, "value": o.value} for o in result.outputs],
        "journal": result.journal.hex(),
        "n": result.n,
        "verified_at": kept.at,
    }
    if with_report:
        view["envelope"] = kept.env
        view["report"] = kept.report.decode(errors="replace") if kept.report else None
    return {key: value for key, value in view.items() if value is not None}
