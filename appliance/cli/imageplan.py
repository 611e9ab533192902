"""`imageport image upload --plan`: the order, and what the appliance found that it would do, need and cost.

The appliance is asked by a signed `preflight` order, which changes nothing; without a control plane at hand the plan
is the order alone, and says so.
"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from appliance.cli import output
from appliance.cli.clientconfig import ClientConfigError
from appliance.cli.exits import CliError, Exit
from appliance.cli.job import with_client
from appliance.cli.spec import without_secrets

if TYPE_CHECKING:
    from appliance.cli.clientconfig import Client
    from relay.client import RelayClient

_MIB = 1024 * 1024


def show_plan(shown: dict[str, Any], args: argparse.Namespace, *, order: dict[str, Any]) -> int:
    """Print the plan; the exit code says whether the upload could start.

    Args:
        shown: The order as it is shown.
        args: Of the command.
        order: The order as the signer takes it.
    """
    found, why = None, "--offline"
    if not args.offline:
        found, why = _ask(args, order)
    public = without_secrets(shown)
    if args.json:
        output.answer_json("image-plan/1", {**public, "plan": found})
    else:
        output.answer_properties([*_order_rows(public), *_plan_rows(found or {})])
    if found is None:
        output.note(f"nothing was sent and the appliance was not asked ({why})")
        return Exit.OK
    output.note("the appliance looked and asked; nothing was made, written or deleted")
    return Exit.NO if found["problems"] or found["missing"] else Exit.OK


def _ask(args: argparse.Namespace, order: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return what the appliance found, or None and why it could not be asked."""

    async def ask(client: "Client", relay: "RelayClient") -> dict[str, Any]:
        job = await relay.submit({**order, "tenant": client.tenant, "op": "preflight"})
        async for _ in relay.watch(job.id, just_ordered=True):
            pass  # until its end
        return await relay.job(job.id)

    try:
        job = with_client(args, ask)
    except (ClientConfigError, CliError) as err:
        return None, str(err)
    report = (job.get("result") or {}).get("report") or {}
    if job["state"] == "succeeded" and isinstance(report.get("plan"), dict):
        return report["plan"], ""
    problem = {
        "code": str((job.get("result") or {}).get("code") or job["state"]),
        "message": str(report.get("message") or f"the preflight {job['state']}"),
        "fix": str(report.get("fix") or ""),
    }
    return {"problems": [problem], "missing": []}, ""


def _order_rows(shown: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("appliance", str(shown["appliance"])), ("op", "upload")]
    rows += [(name, _one_line(value)) for name, value in shown["args"].items()]
    extra = ("workflow", "valid_s", "start_by_s", "retry_of")
    return rows + [(name, str(shown[name])) for name in extra if name in shown]


def _plan_rows(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of what the appliance found."""
    rows = [("creates", made) for made in plan.get("objects", [])]
    if "bytes" in plan:
        size = f"{plan['virtual_size']} bytes, {plan['padded_size']} at the target"
        sent = f"at most {plan['bytes']} bytes in {plan['requests']} requests"
        rows += [("disk", size), ("sends", sent), ("reads back", f"{plan['read_back']} bytes")]
        rows.append(("takes", _time(plan)))
    if cost := plan.get("cost_usd"):
        told = (
            f"about {cost['requests']:.2f} for requests, {cost['read_back']:.2f} for reading back,"
            f" {cost['month']:.2f} a month to keep (US dollars, list prices of {plan['prices_of']})"
        )
        rows.append(("costs", told))
    rows += [("missing", action) for action in plan.get("missing", [])]
    if unprobed := plan.get("unprobed"):
        rows.append(("not probed", ", ".join(unprobed)))
    for problem in plan.get("problems", []):
        rows.append(("problem", f"{problem['code']}: {problem['message']}"))
        rows += [("fix", problem["fix"])] if problem["fix"] else []
    return rows


def _time(plan: dict[str, Any]) -> str:
    if plan["minutes"] is None:
        return "unknown: no upload to this kind of target has been measured here yet"
    rate = plan["rate"] / _MIB
    source = "the limit" if plan["rate"] != plan["rate_measured"] else "as the last upload"
    return f"about {plan['minutes']} min at {rate:.1f} MiB/s ({source})"


def _one_line(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(_flat(value))


def _flat(table: dict[str, object], before: str = "") -> Iterator[str]:
    """Yield key and value of a table, those of inner ones under the whole name; nothing of a credential."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.") if key != "credential" else ()
        else:
            yield f"{before}{key} {value}"
