"""`imageport config show|check`: the agent's merged configuration with the origin of each value. Changes nothing."""

import argparse
import json
from pathlib import Path

from agent.config import load
from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    for name, help_line in (
        ("show", "print every key with its value and where it comes from"),
        ("check", "read all files and say whether the agent would start with them"),
    ):
        verb = add_verb(verbs, name, help_line, f"imageport config {name} --config agent.toml")
        verb.add_argument(
            "--config",
            type=Path,
            metavar="F",
            help="the agent's configuration: exactly this file (default: the conf.d folders)",
        )
        verb.add_argument("--json", action="store_true", help="answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Show or check; a configuration that cannot be used is explained as an error (exit code 78)."""
    loaded = load(args.config)
    rows = [(key, value, origin) for key, value, origin in loaded.rows()]
    files = sorted({origin for _, _, origin in rows if origin != "default"})
    if args.verb == "check":
        if args.json:
            output.answer_json("config-check/1", {"ok": True, "files": files})
        else:
            output.answer(f"ok: {len(files)} file{'' if len(files) == 1 else 's'} read")
        return Exit.OK
    if args.json:
        values = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        output.answer_json("config/1", {"values": values})
    else:
        shown = [(key, json.dumps(value), origin) for key, value, origin in rows]
        output.answer_table(("KEY", "VALUE", "FROM"), shown)
    return Exit.OK
