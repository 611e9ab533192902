"""`imageport image upload`: order an upload by a TOML spec, show what it would be, or follow it to its end."""

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from appliance.cli.imageplan import show_plan
from appliance.cli.job import add_client_arguments, follow, whole_id, with_client
from appliance.cli.spec import load_upload
from appliance.cli.speckeys import BadSpec, in_file
from protocol.errors import BadField
from protocol.jobspec import JobSpec, read_args

if TYPE_CHECKING:
    from appliance.cli.clientconfig import Client
    from relay.client import RelayClient

_OPTIONS = ("if_exists", "verify", "bandwidth")
_PLACES = {key: f"options.{key}" for key in _OPTIONS} | {
    f"{key}_s": f"options.{key}" for key in ("valid", "start_by", "timeout")
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    text = "bring a disk image from a share to a cloud"
    upload = add_verb(
        verbs,
        "upload",
        text,
        "imageport image upload --spec job.toml --plan",
        "imageport image upload --spec job.toml --watch",
        "imageport image upload --spec job.toml --retry 4af6f252 --watch",
        "imageport image upload --client cp/client.toml --spec job.toml --watch --json | jq .state",
    )
    upload.add_argument(
        "--spec",
        type=Path,
        required=True,
        metavar="FILE.toml",
        help="which image, from where, to where (docs/jobspec.md); - is standard input",
    )
    upload.add_argument(
        "--plan",
        action="store_true",
        help="show what would be ordered, and what the appliance finds that it would make, need and cost",
    )
    upload.add_argument(
        "--offline", action="store_true", help="with --plan: ask nobody, look at the spec only"
    )
    upload.add_argument(
        "--retry",
        metavar="ID",
        help="go on with this job, which ended without success, where it stopped; the spec is the same or mended",
    )
    upload.add_argument("--watch", action="store_true", help="follow the job to its end")
    add_client_arguments(upload)


def run(args: argparse.Namespace) -> int:
    """Order, or show."""
    spec = load_upload(args.spec)
    try:
        check(spec)
    except BadSpec as err:
        raise in_file(args.spec, err) from err
    if args.plan:
        shown = spec if args.retry is None else {**spec, "retry_of": args.retry}
        return show_plan(shown, args, order=spec)

    async def order(client: "Client", relay: "RelayClient") -> int:
        if args.retry is not None:
            spec["retry_of"] = await whole_id(relay, args.retry)
        job = await relay.submit({"tenant": client.tenant, **spec})
        output.note(f"job {job.id} ordered for {job.appliance}")
        if args.watch:
            return await follow(client, relay, job.id, as_json=args.json, just_ordered=True)
        if args.json:
            output.answer_json("job-ordered/1", {"id": job.id, "appliance": job.appliance})
        else:
            output.answer(job.id)
        return Exit.OK

    return with_client(args, order)


def check(spec: dict[str, Any]) -> None:
    """Hold a spec to what the signer takes, with the signer's own code; raises BadSpec with the place."""
    plain = {**spec, "args": _unsealed(spec["args"])}
    try:
        body = json.dumps({"tenant": "x", "request": "0" * 32, **plain}, allow_nan=False)
        read_args(msgspec.json.decode(body, type=JobSpec))
    except (
        TypeError,
        ValueError,
    ) as err:  # TOML knows dates and nan; ValidationError is a ValueError
        raise BadSpec(f"the spec does not fit: {_placed(err)}") from err
    except BadField as err:
        raise BadSpec(f"the spec does not fit: {_placed(err)}") from err


def _placed(err: Exception) -> str:
    """Return the message with the places as the spec calls them."""
    return re.sub(
        r"`\$\.?([^`]*)`", lambda at: f"`{_PLACES.get(at[1], at[1] or 'the spec')}`", str(err)
    )


def _unsealed(args: dict[str, Any]) -> dict[str, Any]:
    """Return the args without credentials: those are sealed after this check."""
    return {
        key: {k: v for k, v in value.items() if k != "credential"}
        if isinstance(value, dict)
        else value
        for key, value in args.items()
    }
