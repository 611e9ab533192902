"""`imageport disk check`: prints what a check of an image found, and has it mended. Looks at nothing itself."""

import argparse
from collections import Counter
from dataclasses import asdict

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from imaging.check import Finding
from imaging.formats import FORMATS, CheckReport, check_path, repair_path


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "check",
        "look for damage that reading survives, and for space that nothing uses; exit code 1 if there is any",
        "imageport disk check golden.vhdx",
        "imageport disk check golden.vhdx --repair --json",
    )
    parser.add_argument("image", metavar="IMG", help="the image file or block device")
    parser.add_argument(
        "--format", choices=FORMATS, help="what the file is (default: looks into it)"
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="mend what changes no byte of the disk and has nothing to guess: findings that a check calls repairable",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Check one image; the exit code says whether it is clean, after the repair if one was asked for."""
    if args.repair:
        before, report = repair_path(args.image, format=args.format)
    else:
        before = report = check_path(args.image, format=args.format)
    left = Counter(report.findings)
    found = [(finding, left[finding] == 0) for finding in before.findings]
    if args.json:
        fields = {**asdict(report), "clean": report.clean}
        fields["findings"] = [_fields(*each) for each in found]
        output.answer_json("disk-check/1", fields)
    else:
        _print(report, found)
    return Exit.OK if report.clean else Exit.NO


def _fields(finding: Finding, repaired: bool) -> dict[str, object]:  # noqa: FBT001
    return {**asdict(finding), "severity": finding.severity.value, "repaired": repaired}


def _print(report: CheckReport, found: list[tuple[Finding, bool]]) -> None:
    for finding, repaired in found:
        word = "repaired" if repaired else finding.severity.value
        hint = " [repairable: --repair]" if finding.repairable and not repaired else ""
        output.answer(output.one_line(f"{word}: {finding.message} ({finding.code}){hint}"))
    name = " ".join(part for part in (report.subformat, report.format) if part)
    output.answer(f"{name}: {'clean' if report.clean else 'not clean'}")
