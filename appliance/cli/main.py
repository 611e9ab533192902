"""The imageport command: finds the subcommand, runs it, explains its errors. Knows no command's work.

Each line of COMMANDS names a module with `add_arguments(parser)` and `run(args) -> int`. It is
imported only when its command runs, so that `imageport --help` stays quick.
"""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.cli import output
from appliance.cli.exits import Exit, ExtraMissing, is_named
from appliance.cli.helppage import Page, show_examples


@dataclass(frozen=True, slots=True)
class Command:
    """One group of subcommands.

    Attributes:
        name: The word after `imageport`.
        module: Where it lives.
        help: Its line in `imageport --help`.
        extra: The extra of the distribution that its packages come with, "" for none.
    """

    name: str
    module: str
    help: str
    extra: str = ""


COMMANDS = (
    Command(
        "demo", "appliance.cli.demo", "move a real image on this machine and verify it", extra="all"
    ),
    Command("image", "appliance.cli.image", "order what happens to an image", extra="relay"),
    Command("job", "appliance.cli.job", "list, follow and cancel jobs", extra="relay"),
    Command(
        "limits",
        "appliance.cli.limits",
        "change bandwidth limits, now and by the time of day",
        extra="relay",
    ),
    Command("disk", "appliance.cli.disk", "look into disk images and compute digests"),
    Command("share", "appliance.cli.share", "list a share, copy from and to it", extra="agent"),
    Command("agent", "appliance.cli.agent", "run the agent", extra="agent"),
    Command("appliance", "appliance.cli.appliance", "enrol this machine", extra="agent"),
    Command("status", "appliance.cli.status", "show what the agent here does", extra="agent"),
    Command("sweep", "appliance.cli.sweep", "find what jobs left behind", extra="agent"),
    Command("config", "appliance.cli.config", "show or check the configuration", extra="agent"),
    Command(
        "doctor", "appliance.cli.doctor", "check whether this appliance can work", extra="agent"
    ),
    Command(
        "bundle", "appliance.cli.bundle", "collect facts for support, no secrets", extra="agent"
    ),
    Command(
        "permissions",
        "appliance.cli.permissions",
        "print the least role a cloud has to grant",
        extra="agent",
    ),
    Command("relay", "appliance.cli.relay", "run the relay", extra="relay"),
    Command("sim", "appliance.cli.sim", "run a strict simulator of a cloud", extra="agent"),
    Command("key", "appliance.cli.key", "make key files and sign key manifests"),
    Command("signer", "appliance.cli.signer", "run and govern the signer", extra="relay"),
    Command("token", "appliance.cli.token", "make enrolment tokens at the signer"),
    Command("completion", "appliance.cli.completion", "print a completion script for a shell"),
)


_EXTRAS = {"azure": "azure", "boto3": "aws", "google": "gcp", "pyVmomi": "vsphere"}
"""Packages that are imported late, by the command that turns out to need them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises to the user."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    output.speak_utf8()
    try:
        code = _run(arguments)
        output.flush()
    except output.StdoutClosed:
        _drop_stdout()
        return Exit.STDOUT_CLOSED
    except OSError as err:  # a full disk behind stdout; the JSON of an error would not fit either
        _drop_stdout()
        return explain(err, as_json=False)
    return code


def _run(arguments: list[str]) -> int:
    # Looked for by eye, because loading a command can fail before anything is parsed.
    as_json, debug = "--json" in arguments, "--debug" in arguments
    try:
        args = build_parser(arguments).parse_args(arguments)
        return int(args.run(args))
    except SystemExit as err:  # argparse: 0 after --help and --version, 2 after a usage error
        return err.code if isinstance(err.code, int) else Exit.USAGE
    except KeyboardInterrupt:
        output.note("imageport: interrupted")
        return Exit.INTERRUPTED
    except output.StdoutClosed:
        raise
    except Exception as err:  # noqa: BLE001  (the last line of defence before the user)
        if debug:
            output.note("".join(traceback.format_exception(err)).rstrip())
        return explain(err, as_json=as_json)


def build_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser for these arguments; only the command that they name is imported."""
    parser = argparse.ArgumentParser(
        prog="imageport",
        description="Move golden VM images from hypervisors to clouds, verified from end to end.",
    )
    show_examples(
        parser,
        "imageport demo",
        "imageport image upload --spec job.toml --watch",
        "imageport doctor",
        "imageport disk info golden.vhdx --json",
        more="exit codes: 0 yes, 1 the answer is no, 2 wrong usage, 65 and up: an error with its code, cause\n"
        "and remedy (docs/errors.md); docs/quickstart.md sets up relay, signer and appliance step by step",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help="print tracebacks of errors")
    groups = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    for command in COMMANDS:
        group = groups.add_parser(
            command.name, help=command.help, description=command.help, formatter_class=Page
        )
        if command.name == wanted:
            _load(command, group)
    return parser


def full_parser() -> argparse.ArgumentParser:
    """Build the parser with every command that can be loaded here: for completion, not for running."""
    parser = build_parser([])
    groups = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command in COMMANDS:
        try:
            _load(command, groups.choices[command.name])
        except ExtraMissing:
            continue  # its own words stay unknown, its name does not
    return parser


def explain(err: Exception, *, as_json: bool) -> int:
    """Print what went wrong and what to do, without a traceback; return the exit code."""
    while isinstance(err, ExceptionGroup):  # a TaskGroup wraps even a single error
        err = err.exceptions[0]
    if isinstance(err, ModuleNotFoundError):
        err = _extra_missing(err) or err
    if is_named(err):
        code, exit_code, fix, fields = err.code, err.exit_code, err.fix, err.fields
        message = str(err)
    elif isinstance(err, OSError):
        code, exit_code, fields = "cli.io", Exit.IO, {}
        fix = "See what the message names: its path, its rights, and the room on its disk."
        message = str(err)
    else:
        code, exit_code, fields = "cli.bug", Exit.BUG, {}
        message = f"internal error: {type(err).__name__}: {err}"
        fix = "Run it again with --debug and report the traceback: this is a bug in imageport."
    # Names of files and what others said may hold control characters.
    shown_message = "\n".join(map(output.one_line, message.split("\n")))
    lines = [f"imageport: {shown_message}", f"  code: {code}"]
    if fix:
        lines.append(f"  fix: {fix}")
    output.note("\n".join(lines))
    if as_json:
        shown = {key: value for key, value in fields.items() if isinstance(value, str | int)}
        body = {"code": code, "message": message, "fix": fix, "exit_code": int(exit_code)}
        output.answer_json("error/1", {**body, "fields": shown})
    return int(exit_code)


def _load(command: Command, group: argparse.ArgumentParser) -> None:
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as err:
        raise _extra_missing(err, command.extra) or err from err
    group.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    module.add_arguments(group)
    group.set_defaults(run=module.run)


def _extra_missing(err: ModuleNotFoundError, extra: str = "") -> ExtraMissing | None:
    """Return the error of a package that an extra brings; None for one that is always there."""
    package = (err.name or "").partition(".")[0]
    extra = extra or _EXTRAS.get(package, "")
    if not extra:
        return None
    return ExtraMissing(
        f"the Python package {package} is not installed: it comes with imageport[{extra}]",
        package=package,
        extra=extra,
    )


def _drop_stdout() -> None:
    # The interpreter flushes stdout at exit and would complain about the closed pipe.
    if sys.stdout is None:
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Version(argparse.Action):
    """Look the version up only when it is asked for: the metadata costs tens of milliseconds."""

    def __call__(self, parser: argparse.ArgumentParser, *_args: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        output.answer(f"imageport {version('imageport')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
