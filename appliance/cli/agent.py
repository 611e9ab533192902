"""`imageport agent run`: run the agent in the foreground, as its systemd unit does. Configures; decides nothing."""

import argparse
from pathlib import Path

from agent import app
from agent.config import load
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from appliance.doctor.service import agent_checks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb and its options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    help_line = "connect to the relay and carry out signed jobs until SIGTERM"
    verb = add_verb(verbs, "run", help_line, "imageport agent run --config agent.toml")
    verb.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="the agent's configuration: exactly this file (default: the conf.d folders)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the agent until SIGTERM or SIGINT; jobs resume with the next start."""
    checks = agent_checks(args.config, app.real_clocks().wall)
    app.run(load(args.config).config, checks=checks)
    return Exit.OK
