"""`imageport limits`: change the bandwidth of an appliance or of one job, now and by the time of day."""

import argparse
import re
from typing import TYPE_CHECKING, Any

from appliance.cli import output
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import show_examples
from appliance.cli.job import add_client_arguments, follow, whole_id, with_client
from appliance.cli.spec import rate
from appliance.cli.speckeys import BadSpec
from protocol.ops import DAYS

if TYPE_CHECKING:
    from appliance.cli.clientconfig import Client
    from relay.client import RelayClient

_WINDOW = re.compile(
    r"(?:(?P<days>[a-z,-]+) +)?(?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d) +(?P<rate>\S.*)"
)
NONE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    show_examples(
        parser,
        "imageport limits site-1 --bandwidth 50MiB/s --window 'mon-fri 08:00-18:00 5MiB/s'",
        "imageport limits site-1 --job 4af6f252 --bandwidth 100MiB/s",
        "imageport limits site-1 --bandwidth none",
    )
    parser.add_argument("appliance", help="whose limits: the name given at enrolment")
    parser.add_argument("--job", metavar="ID", help="only of this job, which may be running")
    parser.add_argument(
        "--bandwidth",
        required=True,
        metavar="RATE",
        help="most bytes a second towards clouds, 50MiB/s; none lifts the limit",
    )
    parser.add_argument(
        "--window",
        action="append",
        default=[],
        metavar="'[DAYS ]HH:MM-HH:MM RATE'",
        help="another rate at that time of day (the appliance's local time), repeatable; the first that holds wins",
    )
    add_client_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Order it and follow it to its end."""
    wanted: dict[str, Any] = {"bandwidth": _rate(args.bandwidth)}
    wanted["windows"] = [window(text) for text in args.window]

    async def order(client: "Client", relay: "RelayClient") -> int:
        if args.job is not None:
            found = await whole_id(relay, args.job)
            wanted["job"] = bytes.fromhex(found)
        spec = {"tenant": client.tenant, "appliance": args.appliance, "op": "set-limits"}
        job = await relay.submit({**spec, "args": wanted})
        output.note(f"job {job.id} ordered for {job.appliance}")
        return await follow(client, relay, job.id, as_json=args.json, just_ordered=True)

    result = with_client(args, order)
    return Exit.OK if result == Exit.OK else Exit.NO


def window(text: str) -> dict[str, Any]:
    """Read "mon-fri 08:00-18:00 5MiB/s"; raises BadUsage."""
    found = _WINDOW.fullmatch(
        text.strip().lower().replace("mib/s", "MiB/s").replace("kib/s", "KiB/s")
    )
    if found is None:
        msg = f"--window {text!r}: expected '[DAYS ]HH:MM-HH:MM RATE', as 'mon-fri 08:00-18:00 5MiB/s'"
        raise BadUsage(msg)
    return {
        "days": _days(found["days"], text),
        "begin": found["begin"],
        "end": found["end"],
        "bandwidth": _rate(found["rate"]),
    }


def _days(names: str | None, text: str) -> list[str]:
    days: list[str] = []
    for part in (names or "").split(",") if names else []:
        first, _, last = part.partition("-")
        if first not in DAYS or (last and last not in DAYS):
            msg = f"--window {text!r}: days are {', '.join(DAYS)}, or ranges of them"
            raise BadUsage(msg)
        start, count = DAYS.index(first), (DAYS.index(last or first) - DAYS.index(first)) % 7 + 1
        days += [DAYS[(start + number) % 7] for number in range(count)]
    return days


def _rate(text: str) -> int | None:
    if text == NONE:
        return None
    try:
        return rate(text)
    except BadSpec as err:
        raise BadUsage(str(err)) from err
