"""`imageport job`: list, show, watch, cancel and log jobs over the relay. Knows the relay's SDK only."""

import argparse
import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from appliance.cli import output
from appliance.cli.clientconfig import PERSONAL, SYSTEM, Client, load_client
from appliance.cli.evidence import RELAY, BadEvidence, Evidence, judge, needs_proof
from appliance.cli.exits import CliError, Exit
from appliance.cli.helppage import add_verb
from appliance.cli.inputs import count, name
from appliance.cli.jobview import event_object, job_object, job_rows, job_summary
from appliance.cli.progress import event_line, event_text
from protocol.jobs import State

if TYPE_CHECKING:
    from relay.client import RelayClient
    from relay.client_watch import JobEvent
    from relay.errors import ClientError

T = TypeVar("T")

ID_HEX = 32
STATES = ("queued", *State)


class JobUnknown(CliError):
    """No job, or more than one, begins like that."""

    code = "cli.job-unknown"
    exit_code = Exit.NO_INPUT
    http_status = 404
    fix = "`imageport job list` shows the ids; a unique beginning is enough."


class Refused(CliError):
    """The relay or the signer refused; shown under its own code, with its own advice."""

    code = "cli.refused"
    exit_code = Exit.UNAVAILABLE
    http_status = 502
    fix = "The message is the relay's or the signer's own."

    def __init__(self, err: "ClientError") -> None:
        super().__init__(output.one_line(str(err)), **err.fields)
        exits = {401: Exit.NO_PERMISSION, 403: Exit.NO_PERMISSION, 404: Exit.NO_INPUT, 409: Exit.NO}
        exits |= {400: Exit.BAD_DATA, 413: Exit.BAD_DATA, 422: Exit.BAD_DATA}
        exits |= {429: Exit.RETRY, 503: Exit.RETRY, 504: Exit.RETRY}
        # what the other side said stands before what the class says
        self.__dict__["exit_code"] = exits.get(err.status, Exit.UNAVAILABLE)
        if err.problem:
            self.__dict__["code"] = output.one_line(err.problem)
        if err.advice:
            self.__dict__["fix"] = output.one_line(err.advice)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    listing = _verb(
        verbs,
        "list",
        _list,
        "list jobs, the newest first",
        "imageport job list",
        "imageport job list --state running --appliance site-1 --json | jq -r .jobs[].id",
    )
    listing.add_argument("--appliance", type=name, metavar="ID", help="only jobs of this appliance")
    listing.add_argument(
        "--state", choices=STATES, metavar="STATE", help=f"only jobs that are {', '.join(STATES)}"
    )
    listing.add_argument(
        "--limit", type=count, default=50, metavar="N", help="at most so many (default: 50)"
    )
    for verb, answer, text in (
        ("show", _show, "show one job and its result"),
        ("watch", _watch, "follow one job to its end; exit code 1 if it did not succeed"),
        ("cancel", _cancel, "order a job's end"),
        ("log", _log, "print a job's events, up to its end"),
    ):
        _verb(verbs, verb, answer, text, f"imageport job {verb} 3f2a9c").add_argument(
            "id", metavar="ID", help="the job's id, or a unique beginning of it"
        )


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that talks to a relay takes."""
    parser.add_argument(
        "--client",
        type=Path,
        metavar="FILE",
        help=f"client.toml to use (default: ~/{PERSONAL}, else {SYSTEM})",
    )
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    answer: Callable[..., Awaitable[int]] = args.verb_run
    return with_client(args, lambda client, relay: answer(args, client, relay))


def _say_once() -> "Callable[[ClientError], None]":
    """Return what tells that a request is sent again, each reason once: half a minute of silence looks like a hang."""
    told: set[str] = set()

    def say(err: "ClientError") -> None:
        if str(err) not in told:
            told.add(str(err))
            output.note(f"imageport: {err}; trying again")

    return say


def with_client(
    args: argparse.Namespace, work: "Callable[[Client, RelayClient], Awaitable[T]]"
) -> T:
    """Run `work` with an open connection to the relay that client.toml names."""
    from relay.client import RelayClient  # noqa: PLC0415 - 0.3 s to import
    from relay.errors import ClientError, Unreachable  # noqa: PLC0415

    client = load_client(args.client, home=Path.home())

    async def connected() -> T:
        try:
            return await asked()
        except Unreachable:
            raise
        except ClientError as err:
            raise Refused(err) from err

    async def asked() -> T:
        async with RelayClient(
            client.url,
            api_key=client.api_key,
            caller=client.caller,
            vault_key=client.vault_key,
            ca_file=client.ca_file,
            proxy=client.proxy,
            retrying=_say_once(),
        ) as relay:
            return await work(client, relay)

    return asyncio.run(connected())


async def follow(
    client: Client, relay: "RelayClient", job: str, *, as_json: bool, just_ordered: bool = False
) -> int:
    """Show a job's events until its end, then the job; the exit code says how it ended."""
    show = event_line()
    async for event in relay.watch(job, just_ordered=just_ordered):
        if as_json:
            _answer_event(event)
        else:
            show(event.state, event.data)
    return await answer_job(client, relay, job, as_json=as_json)


async def answer_job(client: Client, relay: "RelayClient", job: str, *, as_json: bool) -> int:
    """Print a job, its result verified where that is possible; return the exit code of its state.

    Raises:
        BadEvidence: What the relay shows is not what the appliance signed.
    """
    shown = await relay.job(job)
    if shown.get("id") != job:
        msg = f"asked for job {job}, the relay showed {shown.get('id')!r}"
        raise BadEvidence(msg, job=job)
    evidence = await _evidence(client, relay, shown)
    if as_json:
        output.answer_json("job/1", job_object(shown, evidence=evidence))
    else:
        output.answer_properties(job_rows(shown, evidence=evidence))
    return Exit.OK if shown["state"] == State.SUCCEEDED else Exit.NO


async def _evidence(client: Client, relay: "RelayClient", job: dict[str, Any]) -> Evidence:
    from relay.errors import ClientError  # noqa: PLC0415

    trust = client.trust()
    if trust is None or not needs_proof(job):
        return RELAY
    appliance = str(job.get("appliance"))
    try:
        manifest, record = await relay.keys(), await relay.record(appliance)
    except ClientError as err:
        if err.status != HTTPStatus.NOT_FOUND:
            raise
        msg = f"the relay shows no signed record of {appliance}, so nothing proves this result"
        raise BadEvidence(msg) from err
    ring = trust.ring(_envelope(manifest, "manifest"))
    return judge(job, trust.record(ring, appliance, _envelope(record, "record")))


def _envelope(answer: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(str(answer.get(name)), validate=True)
    except binascii.Error as err:
        msg = f"the relay's {name} is no base64"
        raise BadEvidence(msg) from err


async def _list(args: argparse.Namespace, _client: Client, relay: "RelayClient") -> int:
    found = []
    async for job in relay.jobs(appliance=args.appliance or "", state=args.state or ""):
        found.append(job)
        if len(found) >= args.limit:
            break
    if args.json:
        output.answer_json("jobs/1", {"jobs": found})
    else:
        rows = [(j["id"][:12], j["state"], j["op"], j["appliance"], job_summary(j)) for j in found]
        output.answer_table(("job", "state", "op", "appliance", ""), rows)
    return Exit.OK


async def _show(args: argparse.Namespace, client: Client, relay: "RelayClient") -> int:
    await answer_job(client, relay, await whole_id(relay, args.id), as_json=args.json)
    return Exit.OK


async def _watch(args: argparse.Namespace, client: Client, relay: "RelayClient") -> int:
    return await follow(client, relay, await whole_id(relay, args.id), as_json=args.json)


async def _cancel(args: argparse.Namespace, _client: Client, relay: "RelayClient") -> int:
    job = await whole_id(relay, args.id)
    handle = await relay.cancel(job)
    if args.json:
        output.answer_json("job-cancel/1", {"id": handle.id, "target": job})
    else:
        output.answer(f"cancel {handle.id} ordered for job {job}")
    return Exit.OK


async def _log(args: argparse.Namespace, _client: Client, relay: "RelayClient") -> int:
    job = await whole_id(relay, args.id)
    async for event in relay.watch(job):
        if args.json:
            _answer_event(event)
        else:
            output.answer(f"{event.id:>8}  {event_text(event.state, event.data)}")
            output.flush()
    return Exit.OK


def _answer_event(event: "JobEvent") -> None:
    output.answer_json("job-event/1", event_object(event))
    output.flush()  # whoever reads a pipe wants to see it now, not at the job's end


async def whole_id(relay: "RelayClient", beginning: str) -> str:
    """Return the id that begins like that."""
    text = beginning.lower()
    if len(text) == ID_HEX:
        return text
    found = {job["id"] async for job in relay.jobs() if job["id"].startswith(text)}
    if len(found) != 1 or not text:
        msg = f"{len(found) or 'no'} jobs begin with {beginning!r}"
        raise JobUnknown(msg, job=beginning)
    whole: str = found.pop()
    return whole


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb: str,
    answer: Callable[..., Awaitable[int]],
    text: str,
    *examples: str,
) -> argparse.ArgumentParser:
    parser = add_verb(verbs, verb, text, *examples)
    add_client_arguments(parser)
    parser.set_defaults(verb_run=answer)
    return parser
