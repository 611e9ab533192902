"""`imageport token`: one-use enrolment tokens, made by the signer over its unix socket."""

import argparse
import re

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from appliance.cli.inputs import count, name
from appliance.cli.signersocket import add_socket_options, ask, socket_of

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_MOST_S = 10**9
"""As the signer reads it; what it allows is less."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb and its options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    help_line = "make an enrolment token and print it, this once"
    new = add_verb(
        verbs,
        "new",
        help_line,
        "imageport token new --tenant acme > token",
        "imageport token new --tenant acme --uses 20 --ttl 7d --socket cp/signer.sock",
    )
    new.add_argument(
        "--tenant",
        type=name,
        default="default",
        metavar="T",
        help='whose appliance it will be (default: "default")',
    )
    new.add_argument(
        "--uses",
        type=count,
        default=1,
        metavar="N",
        help="appliances that it may enrol (default: 1)",
    )
    new.add_argument(
        "--ttl",
        type=duration,
        default="24h",
        metavar="TIME",
        help="how long it may be used: 90s, 30m, 24h, 7d (default: 24h)",
    )
    new.add_argument(
        "--replaces", type=name, metavar="ID", help="the appliance that the new one retires"
    )
    add_socket_options(new)
    new.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make a token."""
    spec = {"tenant": args.tenant, "uses": args.uses, "ttl_s": args.ttl}
    if args.replaces:
        spec["replaces"] = args.replaces
    made = ask(socket_of(args), "POST", "/v1/tokens", spec)
    if args.json:
        output.answer_json("token/1", made)
    else:
        output.answer(made["token"])
        output.note("imageport: whoever has this token can enrol; give it to the appliance only")
    return Exit.OK


def duration(text: str) -> int:
    """Read `90s`, `30m`, `24h` or `7d` as seconds."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None or int(match[1]) * _UNITS[match[2]] > _MOST_S:
        msg = f"{text!r} is no duration: write 90s, 30m, 24h or 7d"
        raise argparse.ArgumentTypeError(msg)
    return int(match[1]) * _UNITS[match[2]]
