"""Check `journal`: the agent's memory can be read and is sound. Reads beside a running agent; never writes."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.journal import results
from agent.journal.jobs import open_jobs
from agent.journal.schema import open_reader
from agent.journal.state import FLOOR, counters, get_value, load_state
from agent.journal.store import FILE
from appliance.doctor.base import Check, Context, Finding, failed, passed, skipped, warned
from appliance.doctor.threads import in_thread

TITLE = "journal"
_FIX = "Stop the agent and restore the state folder's backup: the signer notices and re-bases (PROTOCOL 8)."


async def run(context: Context) -> AsyncIterator[Finding]:
    """Open, check, count."""
    path = context.config.state / FILE
    yield await in_thread(lambda: _looked_at(path))


def _looked_at(path: Path) -> Finding:
    try:
        if not path.exists():
            return skipped("journal", TITLE, f"{path} is not there: the agent has not run yet")
        with closing(open_reader(path)) as conn:
            (sound,) = conn.execute("PRAGMA integrity_check(1)").fetchone()
            facts = read_facts(conn)
    except PermissionError:
        return skipped("journal", TITLE, f"{path} belongs to another user: run the doctor as root")
    except sqlite3.Error as err:
        return failed("journal", TITLE, f"{path}: {err}", fix=_FIX, path=str(path))
    if sound != "ok":
        return failed("journal", TITLE, f"{path} is damaged: {sound}", fix=_FIX, **facts)
    if facts.get("locked"):
        return warned(
            "journal",
            TITLE,
            f"orders are locked: {facts['locked']}",
            fix="At the control plane: `imageport signer raise-epoch APPLIANCE`.",
            **facts,
        )
    counts = f"{facts['unfinished_jobs']} unfinished jobs, {facts['unconfirmed_results']} unconfirmed results"
    return passed("journal", TITLE, f"sound; {counts}", **facts)


def read_facts(conn: sqlite3.Connection) -> dict[str, Any]:
    """Return the counts that a support engineer asks for first; no envelope, no secret."""
    facts: dict[str, Any] = {
        "floor_ms": get_value(conn, FLOOR),
        "unfinished_jobs": len(open_jobs(conn)),
        "unconfirmed_results": 0,
        "counters": counters(conn),
    }
    state = load_state(conn)
    if state is not None:
        count, size = results.backlog(conn, state)
        facts |= {
            "unconfirmed_results": count,
            "unconfirmed_bytes": size,
            "epoch": state.head.epoch,
            "have": state.head.have,
            "locked": state.locked,
            "journal": state.journal.hex(),
        }
    return facts


CHECK = Check("journal", "the journal can be read and is sound", run, needs=("config",))
