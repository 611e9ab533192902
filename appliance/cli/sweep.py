"""`imageport sweep [--apply]`: what jobs on this appliance left behind; removed only with --apply. Asks the agent."""

import argparse
from pathlib import Path

from agent.config import load
from appliance.cli import output
from appliance.cli.agentsocket import ask_agent
from appliance.cli.exits import Exit
from appliance.cli.helppage import show_examples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    show_examples(parser, "imageport sweep", "imageport sweep --apply")
    parser.add_argument(
        "--apply", action="store_true", help="delete what is provably ours (default: only list it)"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="the agent's configuration: exactly this file (default: the conf.d folders)",
    )
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def run(args: argparse.Namespace) -> int:
    """List leftovers; exit code 1 if any remain."""
    config = load(args.config).config
    rows = ask_agent(config, {"get": "sweep", "apply": args.apply})["leftovers"]
    remaining = [row for row in rows if row["outcome"] != "removed"]
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
