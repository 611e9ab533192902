"""`imageport bundle`: write a support bundle without secrets. Works while the agent is down; sends it nowhere."""

import argparse
import asyncio
import time
from pathlib import Path

from agent.app import real_clocks
from appliance import bundle
from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import show_examples
from appliance.doctor.base import read_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    show_examples(
        parser, "imageport bundle -o support.zip", "imageport bundle --log agent.log --json"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="F.zip",
        help="the zip to write (default: imageport-bundle-TIME.zip here)",
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a log to put in, secrets taken out (repeatable)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="the agent's configuration: exactly this file (default: the conf.d folders)",
    )
    parser.add_argument("--json", action="store_true", help="answer with the index as JSON")


def run(args: argparse.Namespace) -> int:
    """Collect and write; exit code 0 also when some files could not be had, which the index says."""
    wall = real_clocks().wall
    now = wall()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    path = args.output or Path(f"imageport-bundle-{stamp}.zip")
    request = bundle.Request(read_config(args.config), tuple(args.log), wall)
    collected = asyncio.run(bundle.collect(request))
    bundle.write(collected, path, created=now)
    for name, why in sorted(collected.missing.items()):
        output.note(f"imageport: without {name}: {why}")
    if args.json:
        index = collected.index(now)
        del index["schema"]
        output.answer_json("bundle/1", {"path": str(path), **index})
    else:
        output.answer(str(path))
        output.note("imageport: secrets were taken out; look it through before you give it away")
    return Exit.OK
