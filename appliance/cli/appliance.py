"""`imageport appliance enroll`: make this machine an appliance of a control plane. Takes no secret in argv."""

import argparse
import asyncio
import shlex
from pathlib import Path

import msgspec

from agent import identity
from agent.config import CONF_D, AgentConfig, load
from appliance import enrol
from appliance.cli import output
from appliance.cli.exits import CliError, Exit
from appliance.cli.helppage import add_verb
from appliance.cli.inputs import CannotCreate, name, read_text
from appliance.tomltext import quoted
from protocol.enrol import Token, parse_token
from protocol.errors import EnrolmentRejected

RELAY_FILE = CONF_D / "50-relay.toml"


class BadToken(CliError):
    """The file holds no enrolment token, or a cut one."""

    code = "cli.bad-token"
    exit_code = Exit.BAD_DATA
    http_status = 422
    fix = "Give the file with the one line that `imageport token new` printed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    help_line = "make keys, prove them with a token, and keep the signed record"
    enroll = add_verb(
        verbs,
        "enroll",
        help_line,
        "imageport appliance enroll --relay https://relay.example --token-file token --name site-1",
        "imageport appliance enroll --relay https://relay.example --token-file - <token",
    )
    enroll.add_argument(
        "--relay", required=True, metavar="URL", help="the relay, https://host[:port]"
    )
    enroll.add_argument(
        "--token-file",
        type=Path,
        required=True,
        metavar="F",
        help="file with the token of `imageport token new`; - is standard input",
    )
    enroll.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="the agent's configuration: exactly this file (default: the conf.d folders)",
    )
    enroll.add_argument(
        "--state-dir", metavar="DIR", help="folder of identity and journal (default: state_dir)"
    )
    enroll.add_argument(
        "--name",
        type=name,
        metavar="ID",
        help="id that it would like to have (default: the signer's)",
    )
    enroll.add_argument("--json", action="store_true", help="answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Enrol."""
    config = _config(args)
    token = _token(args.token_file)
    try:
        me = asyncio.run(enrol.enrol(config, token, name=args.name))
    except OSError as err:  # the network's are RelayUnreachable by now
        msg = f"state_dir {config.state_dir}: {err.strerror or err}"
        raise CannotCreate(msg, path=config.state_dir) from err
    if args.config is None and RELAY_FILE.parent.is_dir():
        _write_relay(config)
    facts = {
        "appliance": me.record.id,
        "tenant": me.record.tenant,
        "state_dir": config.state_dir,
        "relay": config.relay.url,
        "manifest": me.ring.manifest.serial,
    }
    if args.json:
        output.answer_json("enrolment/1", facts)
    else:
        output.answer_properties([(key, str(value)) for key, value in facts.items()])
        given = "" if args.config is None else f" --config {shlex.quote(str(args.config))}"
        output.note(f"enrolled; start the agent with `imageport agent run{given}`")
    return Exit.OK


def _token(path: Path) -> Token:
    try:
        return parse_token(read_text(path, "the token file"))
    except EnrolmentRejected as err:
        raise BadToken(f"{path}: {err}", path=str(path)) from err


def _config(args: argparse.Namespace) -> AgentConfig:
    config = load(args.config).config
    relay = msgspec.structs.replace(config.relay, url=args.relay)
    config = msgspec.structs.replace(config, relay=relay)
    if args.state_dir:
        folder = str(Path(args.state_dir).absolute())
        config = msgspec.structs.replace(config, state_dir=folder)
    return config


def _write_relay(config: AgentConfig) -> None:
    """Keep the relay's URL where the agent reads it."""
    text = (
        f"# Written by `imageport appliance enroll`.\n[relay]\nurl = {quoted(config.relay.url)}\n"
    )
    identity.write_durable(RELAY_FILE, text.encode())
    RELAY_FILE.chmod(0o644)
