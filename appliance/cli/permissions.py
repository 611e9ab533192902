"""`imageport permissions`: print the least role that a cloud has to grant, ready for its own tools. Sends nothing."""

import argparse
import json
import re
from collections.abc import Callable
from typing import Any

from agent.targets.permissions import (
    AWS_STRATEGIES,
    AWS_TARGETS,
    AZURE_RESULTS,
    CLOUDS,
    GCP_UPLOADS,
    OBJECT_ONLY,
    PURPOSES,
    Role,
    role_of,
)
from appliance.cli import output
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import show_examples

NAME = "imageport-upload"
_LATER = ("prepare", "publish")
_GROUP = (
    r"/subscriptions/[0-9a-fA-F-]{36}/resourceGroups/[A-Za-z0-9._()-]{1,90}",
    "a resource group's id, /subscriptions/ID/resourceGroups/NAME",
)
_SCOPES = {
    ("azure", "json"): _GROUP,
    ("azure", "terraform"): _GROUP,
    ("gcp", "terraform"): (r"(?:[a-z0-9.-]{1,63}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project's id"),
}
"""Where a format names the place: (cloud, format) -> what it looks like. Bicep takes that of its deployment."""
FORMATS = {
    "azure": ("json", "bicep", "terraform"),
    "aws": ("json", "terraform"),
    "gcp": ("json", "terraform"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    show_examples(
        parser,
        "imageport permissions azure --format bicep > role.bicep",
        "imageport permissions aws --strategy instance-swap > policy.json",
        "imageport permissions aws --target aws-s3 --format terraform",
        "imageport permissions gcp --scope my-project --format terraform",
    )
    parser.add_argument("cloud", choices=CLOUDS, help="whose role")
    parser.add_argument(
        "--for",
        dest="purposes",
        default="upload",
        metavar="PURPOSE[,...]",
        help="what the role is for; prepare and publish come with their stages (default: upload)",
    )
    parser.add_argument(
        "--format",
        default="json",
        choices=("json", "bicep", "terraform", "powercli"),
        help="json is what the cloud's own command takes (default: json)",
    )
    parser.add_argument(
        "--strategy",
        choices=(*AWS_STRATEGIES, OBJECT_ONLY),
        default="",
        help="aws: only what this strategy needs (default: all of them)",
    )
    parser.add_argument(
        "--target",
        choices=AWS_TARGETS,
        default="",
        help="aws: which kind of target (default: aws-snapshot)",
    )
    parser.add_argument(
        "--result",
        choices=AZURE_RESULTS,
        default="",
        help="azure: what is left at the end (default: disk)",
    )
    parser.add_argument(
        "--upload",
        choices=GCP_UPLOADS,
        default="",
        help="gcp: how the archive is sent (default: parallel)",
    )
    parser.add_argument(
        "--scope",
        metavar="ID",
        help="where the role is defined: azure the resource group's id, gcp terraform the project; needed there",
    )


def run(args: argparse.Namespace) -> int:
    """Print the role."""
    for purpose in args.purposes.split(","):
        if purpose in _LATER:
            raise BadUsage(f"--for {purpose}: this release has no such stage yet; known: upload")
        if purpose not in PURPOSES:
            raise BadUsage(f"--for {purpose}: known are {', '.join((*PURPOSES, *_LATER))}")
    if args.format not in FORMATS[args.cloud]:
        known = ", ".join(FORMATS[args.cloud])
        raise BadUsage(f"--format {args.format}: {args.cloud} has {known}")
    for name, cloud in (
        ("strategy", "aws"),
        ("target", "aws"),
        ("result", "azure"),
        ("upload", "gcp"),
    ):
        if getattr(args, name) and args.cloud != cloud:
            raise BadUsage(f"--{name} is for {cloud}")
    if args.strategy == OBJECT_ONLY and args.target != "aws-s3":
        raise BadUsage(f"--strategy {OBJECT_ONLY} is for --target aws-s3")
    scope = _scope(args)
    options = {name: getattr(args, name) for name in ("strategy", "target", "result", "upload")}
    role = role_of(args.cloud, **options)
    output.answer(_WRITERS[args.cloud, args.format](role, scope).rstrip("\n"))
    return Exit.OK


def _scope(args: argparse.Namespace) -> str:
    """Return where the role is defined; raises BadUsage if it is needed and not given, or given and no such thing."""
    known = _SCOPES.get((args.cloud, args.format))
    scope: str = args.scope or ""
    if known is None:
        if scope:
            msg = f"--scope: {args.cloud} --format {args.format} takes none; who gets the role says where it holds"
            raise BadUsage(msg)
        return ""
    pattern, example = known
    if not re.fullmatch(pattern, scope):
        found = f"{scope!r} is none" if scope else "it is needed here"
        raise BadUsage(f"--scope: {found}; expected {example}")
    return scope


def aws_policy(role: Role) -> dict[str, Any]:
    """Return the IAM policy document."""
    statements: list[dict[str, Any]] = [
        {"Sid": "Upload", "Effect": "Allow", "Action": list(role.all), "Resource": "*"}
    ]
    if role.passes:
        statements.append(
            {
                "Sid": "Import",
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": f"arn:aws:iam::*:role/{role.passes}",
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def _aws_json(role: Role, _scope: str) -> str:
    return json.dumps(aws_policy(role), indent=2)


def _aws_terraform(role: Role, _scope: str) -> str:
    policy = json.dumps(aws_policy(role), indent=2)
    return f'resource "aws_iam_policy" "imageport" {{\n  name   = "{NAME}"\n  policy = <<-EOT\n{policy}\n  EOT\n}}'


def _azure_json(role: Role, scope: str) -> str:
    definition = {
        "Name": NAME,
        "IsCustom": True,
        "Description": "Upload disks with imageport.",
        "Actions": list(role.all),
        "NotActions": [],
        "DataActions": [],
        "NotDataActions": [],
        "AssignableScopes": [scope],
    }
    return json.dumps(definition, indent=2)


def _azure_bicep(role: Role, _scope: str) -> str:
    actions = "\n".join(f"          '{action}'" for action in role.all)
    return f"""\
targetScope = 'resourceGroup'

resource imageport 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {{
  name: guid(resourceGroup().id, '{NAME}')
  properties: {{
    roleName: '{NAME}'
    description: 'Upload disks with imageport.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {{
        actions: [
{actions}
        ]
      }}
    ]
  }}
}}"""


def _azure_terraform(role: Role, scope: str) -> str:
    return f"""\
resource "azurerm_role_definition" "imageport" {{
  name  = "{NAME}"
  scope = "{scope}"
  permissions {{
    actions = [
{_quoted(role)}
    ]
  }}
}}"""


def _gcp_json(role: Role, _scope: str) -> str:
    made = {"title": NAME, "stage": "GA", "includedPermissions": list(role.all)}
    return json.dumps(made, indent=2)


def _gcp_terraform(role: Role, scope: str) -> str:
    return f"""\
resource "google_project_iam_custom_role" "imageport" {{
  role_id     = "{NAME.replace("-", "_")}"
  title       = "{NAME}"
  project     = "{scope}"
  permissions = [
{_quoted(role)}
  ]
}}"""


def _quoted(role: Role) -> str:
    return "\n".join(f'      "{action}",' for action in role.all)


_WRITERS: dict[tuple[str, str], Callable[[Role, str], str]] = {
    ("aws", "json"): _aws_json,
    ("aws", "terraform"): _aws_terraform,
    ("azure", "json"): _azure_json,
    ("azure", "bicep"): _azure_bicep,
    ("azure", "terraform"): _azure_terraform,
    ("gcp", "json"): _gcp_json,
    ("gcp", "terraform"): _gcp_terraform,
}
