"""`imageport status`: what the running agent on this machine does. Asks its control socket; changes nothing."""

import argparse
from pathlib import Path
from typing import Any

from agent.config import load
from appliance.cli import output
from appliance.cli.agentsocket import ask_agent
from appliance.cli.exits import Exit
from appliance.cli.helppage import show_examples

_SHOWN = (
    "appliance",
    "tenant",
    "channel",
    "problem",
    "epoch",
    "have",
    "results",
    "confirmed",
    "locked",
    "journal_full",
    "manifest",
    "bandwidth",
)
_LISTED_JOBS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    show_examples(parser, "imageport status", "imageport status --json | jq .channel")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="the agent's configuration: exactly this file (default: the conf.d folders)",
    )
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the agent's state; exit code 1 while its channel is not proven or something locks it."""
    config = load(args.config).config
    status = ask_agent(config, {"get": "status"})
    jobs = ask_agent(config, {"get": "jobs"}).get("jobs", [])
    if args.json:
        output.answer_json("status/1", {**status, "jobs": jobs})
    else:
        output.answer_properties([(key, _text(status.get(key))) for key in _SHOWN])
        _jobs(jobs[:_LISTED_JOBS])
    well = status.get("channel") == "proven" and not status.get("locked")
    return Exit.OK if well else Exit.NO


def _jobs(jobs: list[dict[str, Any]]) -> None:
    if jobs:
        rows = [
            (job["id"], job["op"], job["state"], str(job["attempt"]), _done(job)) for job in jobs
        ]
        output.answer("")
        output.answer_table(("JOB", "OP", "STATE", "ATTEMPT", "DONE"), rows)


def _done(job: dict[str, Any]) -> str:
    progress = job.get("progress")
    if not progress:
        return job.get("code") or "-"
    done, total = output.size(progress["done"]), output.size(progress["total"])
    return f"{progress['step']} {done} of {total}"


def _text(value: object) -> str:
    return "-" if value in (None, "") else str(value)
