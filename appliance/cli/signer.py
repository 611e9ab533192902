"""`imageport signer`: run the signer, and govern a running one over its unix socket."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance import keyfiles
from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from appliance.cli.inputs import name, read_bytes
from appliance.cli.signersocket import add_socket_options, ask, socket_of
from appliance.keyfiles import KeyFileError

Answer = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    serve = add_verb(
        verbs,
        "serve",
        "run the signer until SIGTERM",
        "imageport signer serve --config cp/signer.toml",
    )
    serve.add_argument(
        "--config",
        type=Path,
        metavar="F",
        help="exactly this file (default: /etc/imageport/signer.toml, then signer.d/*.toml)",
    )
    serve.set_defaults(verb_run=_serve)
    _verb(verbs, "status", _status, "print what the running signer is", "imageport signer status")
    _verb(
        verbs,
        "appliances",
        _appliances,
        "list enrolled appliances and their orders",
        "imageport signer appliances --socket cp/signer.sock",
    )
    revoke = _verb(
        verbs,
        "revoke",
        _revoke,
        "end an appliance: nothing is signed for it any more",
        "imageport signer revoke site-1",
    )
    revoke.add_argument("appliance", type=name, metavar="APPLIANCE", help="its id")
    rebase = _verb(
        verbs,
        "raise-epoch",
        _raise_epoch,
        "begin a new epoch: what waits for an appliance is signed again, in a new line",
        "imageport signer raise-epoch site-1",
    )
    rebase.add_argument("appliance", type=name, metavar="APPLIANCE", help="its id")
    manifest = _verb(
        verbs,
        "manifest",
        _manifest,
        "put a newer key manifest in force",
        "imageport signer manifest manifest-2",
    )
    manifest.add_argument(
        "file", type=Path, metavar="FILE", help="as `imageport key manifest` signed it"
    )
    _add_caller(verbs)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return int(args.verb_run(args))


def _add_caller(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "who may ask the signer"
    caller = verbs.add_parser("caller", help=text, description=text)
    acts = caller.add_subparsers(metavar="ACT", dest="act", required=True)
    _verb(acts, "list", _callers, "list callers", "imageport signer caller list")
    add = _verb(
        acts,
        "add",
        _caller_add,
        "register a caller's public key, or change its role",
        "imageport signer caller add cp/caller.pub --tenant acme --socket cp/signer.sock",
    )
    add.add_argument("public", type=Path, metavar="FILE", help="the caller's .pub file")
    add.add_argument(
        "--tenant", type=name, required=True, metavar="T", help="whose jobs the caller orders"
    )
    add.add_argument(
        "--role",
        choices=("admin", "operator", "reader"),
        default="operator",
        help="what it may do (default: operator)",
    )
    add.add_argument("--name", metavar="TEXT", help="for the list (default: the file's name)")
    revoke = _verb(
        acts,
        "revoke",
        _caller_revoke,
        "believe a caller's key no more",
        "imageport signer caller revoke 0123456789abcdef0123456789abcdef",
    )
    revoke.add_argument("id", type=name, metavar="ID", help="as `caller list` prints it")


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb: str,
    answer: Answer,
    *page: str,
) -> argparse.ArgumentParser:
    """Declare a verb; `page` is its line of help and its examples."""
    parser = add_verb(verbs, verb, *page)
    add_socket_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(verb_run=answer)
    return parser


def _serve(args: argparse.Namespace) -> int:
    from relay.signer.app import run as serve  # noqa: PLC0415  (the other verbs do not need it)

    serve(args.config, ready=lambda: output.note("signer: ready"))
    return Exit.OK


def _status(args: argparse.Namespace) -> int:
    found = ask(socket_of(args), "GET", "/v1/status")
    if args.json:
        output.answer_json("signer-status/1", found)
    else:
        output.answer_properties((key, str(value)) for key, value in found.items())
    return Exit.OK if found["audit_broken_at"] is None else Exit.NO


def _appliances(args: argparse.Namespace) -> int:
    found = ask(socket_of(args), "GET", "/v1/appliances")
    if args.json:
        output.answer_json("signer-appliances/1", found)
        return Exit.OK
    output.answer_table(
        ("appliance", "tenant", "epoch", "signed", "waiting", "results", "blocked"),
        [_row(appliance) for appliance in found["appliances"]],
    )
    return Exit.OK


def _row(appliance: dict[str, Any]) -> list[str]:
    state = "revoked" if appliance["revoked"] is not None else appliance["blocked"]
    numbers = (appliance[key] for key in ("epoch", "signed", "waiting", "results"))
    return [appliance["id"], appliance["tenant"], *map(str, numbers), state]


def _revoke(args: argparse.Namespace) -> int:
    found = ask(socket_of(args), "POST", f"/v1/appliances/{args.appliance}/revoke")
    return _said(args, "signer-appliance/1", found, f"{args.appliance} is revoked")


def _raise_epoch(args: argparse.Namespace) -> int:
    found = ask(socket_of(args), "POST", f"/v1/appliances/{args.appliance}/raise-epoch")
    text = f"{args.appliance}: epoch {found['epoch']} was ordered; it counts once the appliance answers"
    return _said(args, "signer-appliance/1", found, text)


def _manifest(args: argparse.Namespace) -> int:
    found = ask(socket_of(args), "PUT", "/v1/manifest", read_bytes(args.file, "the key manifest"))
    text = (
        f"key manifest {found['serial']} is in force; appliances with re-based orders: {len(found['raised'])}, "
        f"with something signed again: {len(found['signed_again'])}"
    )
    return _said(args, "signer-manifest/1", found, text)


def _callers(args: argparse.Namespace) -> int:
    found = ask(socket_of(args), "GET", "/v1/callers")
    if args.json:
        output.answer_json("signer-callers/1", found)
        return Exit.OK
    output.answer_table(
        ("id", "tenant", "role", "name", "state"),
        [
            (c["id"], c["tenant"], c["role"], c["name"], "revoked" if c["revoked"] else "")
            for c in found["callers"]
        ],
    )
    return Exit.OK


def _caller_add(args: argparse.Namespace) -> int:
    key = keyfiles.read(args.public)
    if key.role != "caller":
        msg = f"{args.public} holds a {key.role} key, expected a caller's"
        raise KeyFileError(msg)
    spec = {
        "public": key.public.hex(),
        "tenant": args.tenant,
        "role": args.role,
        "name": args.name or args.public.stem,
    }
    found = ask(socket_of(args), "POST", "/v1/callers", spec)
    return _said(
        args, "signer-caller/1", found, f"{found['id']} is {found['role']} of {args.tenant}"
    )


def _caller_revoke(args: argparse.Namespace) -> int:
    found = ask(socket_of(args), "POST", f"/v1/callers/{args.id}/revoke")
    return _said(args, "signer-caller/1", found, f"{args.id} is not believed any more")


def _said(args: argparse.Namespace, schema: str, found: dict[str, Any], text: str) -> int:
    if args.json:
        output.answer_json(schema, found)
    else:
        output.answer(text)
    return Exit.OK
