"""`imageport disk check`: prints what a check of an image found. Looks at nothing itself, changes nothing."""

import argparse
from dataclasses import asdict

from appliance.cli import output
from appliance.cli.exits import Exit
from imaging.check import Finding
from imaging.formats import CheckReport, check_path


def run(args: argparse.Namespace) -> int:
    """Check one image; the exit code says whether it is clean."""
    report = check_path(args.image, format=args.format)
    if args.json:
        fields = {**asdict(report), "clean": report.clean}
        fields["findings"] = [_fields(finding) for finding in report.findings]
        output.answer_json("disk-check/1", fields)
    else:
        _print(report)
    return Exit.OK if report.clean else Exit.NO


def _fields(finding: Finding) -> dict[str, object]:
    return {**asdict(finding), "severity": finding.severity.value}


def _print(report: CheckReport) -> None:
    for finding in report.findings:
        output.answer(
            output.one_line(f"{finding.severity.value}: {finding.message} ({finding.code})")
        )
    name = " ".join(part for part in (report.subformat, report.format) if part)
    output.answer(f"{name}: {'clean' if report.clean else 'not clean'}")
