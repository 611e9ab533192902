"""`imageport key`: make key files and sign key manifests. The only command that ever needs the root key."""

import argparse
import secrets
import time
from pathlib import Path

from appliance import keyfiles
from appliance.cli import output
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import add_verb
from appliance.cli.inputs import any_or_name, count, name, number, read_bytes
from appliance.controlplane import api_key_block, create_control_plane, new_api_secret
from appliance.keyfiles import KeyFile, KeyFileError
from appliance.keymanifest import MANIFEST_ROLES, ManifestPlan, Running, describe, sign_manifest
from protocol.enrol import root_fingerprint
from protocol.errors import FrameError
from protocol.keys import KeyRing

API_ROLES = ("admin", "operator", "reader", "control")
DEFAULT_DAYS = 398
MOST_DAYS = 36_500
MOST_MS = 2**53
"""As long as JSON readers keep it whole (protocol.ids)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    _add_new(verbs)
    _add_manifest(verbs)


def run(args: argparse.Namespace) -> int:
    """Make what the verb names."""
    return int(args.verb_run(args))


def _add_new(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help_line = "make a key file, an API key, or all keys of a small control plane"
    parser = add_verb(
        verbs,
        "new",
        help_line,
        "imageport key new control-plane --dir cp --tenant acme",
        "imageport key new api --role reader --tenant acme -o reader.token",
        "imageport key new caller --tenant acme -o caller.key",
    )
    roles = (*keyfiles.ROLES, "api", "control-plane")
    parser.add_argument("role", metavar="ROLE", choices=roles, help=", ".join(roles))
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the private key file, a new one; its public half becomes FILE with .pub",
    )
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="control-plane: the folder for all its files"
    )
    parser.add_argument(
        "--tenant",
        type=any_or_name,
        default="*",
        metavar="T",
        help='whom the key may sign for (default: "*", every tenant)',
    )
    parser.add_argument(
        "--role",
        dest="api_role",
        choices=API_ROLES,
        default="operator",
        metavar="ROLE",
        help="api: admin, operator, reader or control, which is the signer (default: operator)",
    )
    parser.add_argument(
        "--name",
        type=name,
        metavar="ID",
        help="api: id of the key, for logs (default: role and a random number)",
    )
    parser.set_defaults(verb_run=_new)


def _add_manifest(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    help_line = "sign a key manifest with the root key, or print one"
    parser = add_verb(
        verbs,
        "manifest",
        help_line,
        "imageport key manifest --show cp/manifest --root cp/root.pub",
        "imageport key manifest --root root.key --serial 2 -o manifest-2 --key command:command.key"
        " --key time:time.key --key record:record.key --revoke command-1a2b3c4d:stop",
    )
    parser.add_argument("--show", type=Path, metavar="FILE", help="print this key manifest")
    parser.add_argument("--root", type=Path, metavar="FILE", help="root key; with --show, its .pub")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="ROLE:FILE",
        help="a key that the manifest lists: private or public file, repeatable",
    )
    parser.add_argument(
        "--revoke",
        action="append",
        default=[],
        metavar="ID:stop|finish",
        help="revoke a listed key; its running jobs are stopped or may finish (repeatable)",
    )
    parser.add_argument("--serial", type=count, metavar="N", help="higher than any manifest before")
    parser.add_argument(
        "--days",
        type=number(1, MOST_DAYS),
        default=DEFAULT_DAYS,
        metavar="N",
        help=f"days that its keys are valid (default: {DEFAULT_DAYS})",
    )
    parser.add_argument(
        "--floor",
        type=number(0, MOST_MS),
        metavar="MS",
        help="ms since 1970, UTC: appliances believe no earlier time (default: as it was)",
    )
    parser.add_argument("--next-root", type=Path, metavar="FILE", help="public root key to follow")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the new manifest's file")
    parser.add_argument("--json", action="store_true", help="print the manifest as one JSON object")
    parser.set_defaults(verb_run=_manifest)


def _new(args: argparse.Namespace) -> int:
    if args.role == "api":
        return _new_api(args)
    if args.role == "control-plane":
        return _new_control_plane(args)
    if args.output is None:
        raise BadUsage("a key goes to a file: give -o FILE")
    key = keyfiles.generate(args.role, tenant=args.tenant)
    public = args.output.with_suffix(".pub")
    if public == args.output:
        raise BadUsage("the private key file may not end in .pub")
    keyfiles.create(args.output, key)
    keyfiles.create(public, key.public_half())
    output.answer(f"{key.id}  {args.output}  {public}")
    if key.role == "root":
        output.answer(f"root fingerprint  {root_fingerprint(key.public)}")
        output.note(f"imageport: move {args.output} offline; only `key manifest` needs it")
    return Exit.OK


def _new_api(args: argparse.Namespace) -> int:
    if args.tenant == "*" and args.api_role != "control":
        raise BadUsage(f"an API key of role {args.api_role} is one tenant's: give --tenant")
    secret = new_api_secret()
    key = args.name or f"{args.api_role}-{secrets.token_hex(4)}"
    if args.output is not None:
        keyfiles.create_file(args.output, f"{secret}\n".encode(), mode=0o600)
        output.note(f"imageport: the secret is in {args.output}; the relay needs only the block")
    else:
        output.note("imageport: the first line is the secret; it is shown this once")
        output.answer(secret)
    output.answer(api_key_block(key, tenant=args.tenant, role=args.api_role, secret=secret))
    return Exit.OK


def _new_control_plane(args: argparse.Namespace) -> int:
    if args.dir is None:
        raise BadUsage("all keys of a control plane go into a new folder: give --dir DIR")
    if args.tenant == "*":
        raise BadUsage("a control plane orders for a tenant: give --tenant")
    made = create_control_plane(args.dir, tenant=args.tenant, now_ms=time.time_ns() // 1_000_000)
    output.answer_properties([(what, str(path)) for what, path in made.files])
    output.answer_properties([("root fingerprint", made.fingerprint)])
    output.note(
        f"imageport: MOVE {made.root_key} TO A MACHINE OR STICK THAT IS NEVER ON A NETWORK.\n"
        "  Whoever holds it can replace every key of this control plane. The signer does not start\n"
        "  while a root key lies among its keys; only `imageport key manifest` needs it."
    )
    return Exit.OK


def _manifest(args: argparse.Namespace) -> int:
    if args.show is not None:
        return _show(args)
    if args.root is None or args.output is None or args.serial is None or not args.key:
        raise BadUsage("a new manifest needs --root, --key, --serial and -o")
    plan = ManifestPlan(
        serial=args.serial,
        issued=time.time_ns() // 1_000_000,
        days=args.days,
        revoked=dict(_revocation(text) for text in args.revoke),
        floor=args.floor,
        next_root=_root(args.next_root).public if args.next_root else None,
    )
    root = _root(args.root)
    data = sign_manifest(root.signing_key(), [_listed(text) for text in args.key], plan)
    keyfiles.create_file(args.output, data, mode=0o644)
    if args.json:
        shown = describe(KeyRing.open(data, root=root.public).manifest)
        output.answer_json("key-manifest/1", shown)
    else:
        output.answer(f"key manifest {args.serial}  {args.output}")
    return Exit.OK


def _show(args: argparse.Namespace) -> int:
    if args.root is None:
        raise BadUsage("--show checks the signature: give --root with the root's .pub file")
    data = read_bytes(args.show, "the key manifest")
    root = _root(args.root).public
    try:
        shown = describe(KeyRing.open(data, root=root).manifest)
    except FrameError as err:
        msg = f"{args.show} is no key manifest: {err}"
        raise KeyFileError(msg, path=str(args.show)) from err
    if args.json:
        output.answer_json("key-manifest/1", shown)
        return Exit.OK
    output.answer_properties([("serial", str(shown["serial"])), ("issued", str(shown["issued"]))])
    output.answer_table(
        ("key", "role", "tenants", "valid until (ms UTC)", "revoked"),
        [
            (k["id"], k["role"], " ".join(k["tenants"]), str(k["exp"]), k["revoked"] or "")
            for k in shown["keys"]
        ],
    )
    return Exit.OK


def _root(path: Path) -> KeyFile:
    key = keyfiles.read(path)
    if key.role != "root":
        msg = f"{path} holds a {key.role} key, expected a root key"
        raise KeyFileError(msg, path=str(path))
    return key


def _listed(text: str) -> KeyFile:
    role, colon, file = text.partition(":")
    if not colon or role not in MANIFEST_ROLES:
        msg = f"--key {text}: expected ROLE:FILE with a role of {', '.join(MANIFEST_ROLES)}"
        raise BadUsage(msg)
    key = keyfiles.read(Path(file))
    if key.role != role:
        msg = f"{file} holds a {key.role} key, --key says {role}"
        raise KeyFileError(msg)
    return key.public_half()


def _revocation(text: str) -> tuple[str, Running]:
    key, _, running = text.rpartition(":")
    if running == "stop":
        return key, "stop"
    if running == "finish":
        return key, "finish"
    msg = f"--revoke {text}: expected ID:stop or ID:finish"
    raise BadUsage(msg)
