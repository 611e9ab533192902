"""`imageport sweep [--apply]`: what jobs left behind; removed only with --apply.

Asks the agent on this machine; with `--spec F` it orders a signed sweep of that spec's appliance with the credential
of its target, which is what deleting in a cloud takes.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import load
from appliance.cli import output
from appliance.cli.agentsocket import ask_agent
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import show_examples
from appliance.cli.job import add_client_arguments, answer_job, with_client
from appliance.cli.spec import load_upload

if TYPE_CHECKING:
    from appliance.cli.clientconfig import Client
    from relay.client import RelayClient

REMOVED = "removed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    show_examples(
        parser,
        "imageport sweep",
        "imageport sweep --apply",
        "imageport sweep --spec job.toml --apply",
    )
    parser.add_argument(
        "--apply", action="store_true", help="delete what is provably ours (default: only list it)"
    )
    parser.add_argument(
        "--spec",
        type=Path,
        metavar="F",
        help="an upload's spec: sweep its appliance, and with its target's credential also its cloud",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="the agent's configuration: exactly this file (default: the conf.d folders)",
    )
    add_client_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """List leftovers; exit code 1 if any remain."""
    if args.spec is None:
        config = load(args.config).config
        rows = ask_agent(config, {"get": "sweep", "apply": args.apply})["leftovers"]
        return show(rows, args)
    if args.config is not None:
        raise BadUsage("--config names the agent of this machine, --spec another: give one of them")
    spec = load_upload(args.spec)
    order = {"appliance": spec["appliance"], "op": "sweep"}
    order["args"] = {"apply": args.apply, "target": spec["args"]["target"]}

    async def ordered(client: "Client", relay: "RelayClient") -> dict[str, Any] | int:
        job = await relay.submit({"tenant": client.tenant, **order})
        output.note(f"job {job.id} ordered for {job.appliance}")
        async for _ in relay.watch(job.id, just_ordered=True):
            pass  # until its end
        found = await relay.job(job.id)
        if found["state"] == "succeeded":
            return found
        return await answer_job(client, relay, job.id, as_json=args.json)

    found = with_client(args, ordered)
    if isinstance(found, int):
        return found
    return show(found["result"]["report"]["leftovers"], args)


def show(rows: list[dict[str, Any]], args: argparse.Namespace) -> int:
    """Print the rows; the exit code says whether any remain."""
    remaining = [row for row in rows if row["outcome"] != REMOVED]
    if args.json:
        output.answer_json("sweep/1", {"applied": args.apply, "leftovers": rows})
    elif rows:
        shown = [
            (row["kind"], row["name"], row["object_id"] or "-", row["outcome"]) for row in rows
        ]
        output.answer_table(("KIND", "NAME", "ID", "OUTCOME"), shown)
    else:
        output.answer("nothing is left behind")
    return Exit.NO if remaining else Exit.OK
