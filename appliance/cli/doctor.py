"""`imageport doctor`: whether this appliance can work, and what to do if not. Repairs nothing.

Works before enrolment and while the agent is down.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.app import real_clocks
from agent.secrets import Secret
from agent.shares.smb.ref import SmbCredential, SmbShareRef
from agent.targets.endpoints import endpoints_of
from appliance.cli import agentlog, output
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import show_examples
from appliance.cli.inputs import seconds
from appliance.cli.spec import load_upload
from appliance.cli.speckeys import BadSpec
from appliance.doctor.base import DEFAULT_TIMEOUT_S, Finding, Options, Status
from appliance.doctor.registry import CHECKS
from appliance.doctor.run import summary, worst
from appliance.doctor.service import consult, report
from appliance.doctor.sharespec import parse_share, read_credential
from protocol.ops import TargetRef


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    show_examples(
        parser,
        "imageport doctor",
        "imageport doctor relay clock --json",
        "imageport doctor share --share smb://fs01/images --credential-file fs01.secret",
        "imageport doctor --spec job.toml",
        "imageport doctor target --target https://ACCOUNT.blob.core.windows.net",
    )
    parser.add_argument(
        "checks", nargs="*", metavar="CHECK", help="only these, as --list names them (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="list the checks and run none")
    parser.add_argument(
        "--timeout",
        type=seconds(0.1),
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help=f"seconds for all checks together (default: {DEFAULT_TIMEOUT_S:g})",
    )
    parser.add_argument(
        "--share", metavar="URL", help="a share to try: smb://server[:port]/share[/folder]"
    )
    parser.add_argument(
        "--credential-file",
        type=Path,
        metavar="F",
        help="its account: lines username=, password=, domain=",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="URL",
        help="an endpoint to try (repeatable)",
    )
    parser.add_argument(
        "--spec",
        type=Path,
        metavar="F",
        help="an upload's spec: try its share, with its account, and every service that its target asks",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="the agent's configuration: exactly this file (default: the conf.d folders)",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 for warnings too")
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Examine this machine; exit code 1 if something failed."""
    if args.list:
        return _list(as_json=args.json)
    agentlog.speak()
    findings = asyncio.run(
        consult(
            tuple(args.checks),
            config_file=args.config,
            wall=real_clocks().wall,
            options=_options(args),
            timeout_s=args.timeout,
        )
    )
    if args.json:
        output.answer_json("doctor/1", report(findings))
    else:
        _show(findings)
    bad = {Status.FAIL, Status.WARN} if args.strict else {Status.FAIL}
    return Exit.NO if worst(findings) in bad else Exit.OK


def _options(args: argparse.Namespace) -> Options:
    if (args.share is None) != (args.credential_file is None):
        raise BadUsage("--share and --credential-file belong together")
    for url in args.target:
        if not url.startswith(("http://", "https://")):
            raise BadUsage(f"--target {url!r}: expected an http:// or https:// URL")
    if args.spec is not None:
        if args.share is not None:
            raise BadUsage("--spec names the share: no --share beside it")
        return of_spec(load_upload(args.spec), tuple(args.target))
    if args.share is None:
        return Options(targets=tuple(args.target))
    credential = read_credential(args.credential_file)
    return Options(parse_share(args.share), credential, tuple(args.target))


def of_spec(spec: dict[str, Any], more: tuple[str, ...]) -> Options:
    """Return what a job needs of the world: its share and account, the services of its target, and `more` of them."""
    source, target = spec["args"]["source"], dict(spec["args"]["target"])
    target.pop("credential", None)
    try:
        ref = msgspec.convert(target, TargetRef)
    except msgspec.ValidationError as err:
        raise BadSpec(f"the spec does not fit: [target] {err}") from err
    targets = (*more, *endpoints_of(ref))
    if source["kind"] != "smb" or "credential" not in source:
        return Options(targets=targets, of_job=True)
    account = source["credential"]
    share = SmbShareRef(
        source["server"], source["share"], source.get("port", 445), source.get("folder", "")
    )
    credential = SmbCredential(
        account["username"], Secret(account["password"]), account.get("domain", "")
    )
    return Options(share, credential, targets, of_job=True)


def _list(*, as_json: bool) -> int:
    if as_json:
        rows = [{"name": check.name, "title": check.title} for check in CHECKS]
        output.answer_json("doctor-list/1", {"checks": rows})
    else:
        output.answer_table(("CHECK", "LOOKS AT"), [(check.name, check.title) for check in CHECKS])
    return Exit.OK


def _show(findings: Sequence[Finding]) -> None:
    width = max(len(finding.id) for finding in findings)
    for finding in findings:
        head = f"[{finding.status.value}] {finding.id:<{width}}"
        output.answer(f"{head}  {finding.title}: {finding.detail}")
        if finding.fix:
            output.answer(f"{'':<7}fix: {finding.fix}")
    counts = summary(findings)
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    output.answer(f"\n{told}")
