"""`imageport share put` and `get`: move a file to a share or from it, or convert it on its way; begun again, the same
command goes on where the last one ended.
"""

import argparse
import hashlib
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from appliance.cli.sharelist import Opener
from appliance.cli.sharetransfer import (
    Done,
    copy,
    local_source,
    require_room,
    root_on,
    shared_source,
)
from appliance.cli.signals import asked_to_end
from appliance.cli.statefolder import locked_journal
from appliance.doctor.sharespec import parse_file
from imaging.convert import TARGETS, target_name
from imaging.errors import UnsupportedImage
from imaging.newfile import NewFile


def add_arguments(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> Sequence[argparse.ArgumentParser]:
    """Declare the verbs and their own options."""
    credential = "--credential-file fs01.secret"
    put = add_verb(
        verbs,
        "put",
        "copy a file to a share; holes stay holes",
        f"imageport share put golden.vhdx smb://fs01/images/golden.vhdx {credential}",
        f"imageport share put golden.vmdk smb://fs01/images/golden.vhdx --to vhdx:dynamic {credential}",
    )
    put.add_argument("source", type=Path, metavar="SRC", help="the file or block device")
    put.add_argument("url", metavar="URL", help="smb://server[:port]/share/file, or a UNC path")
    put.add_argument(
        "--verify", action="store_true", help="read it back from the share and compare the digests"
    )
    put.set_defaults(handler=_put)
    get = add_verb(
        verbs,
        "get",
        "copy a file from a share; nobody can write it meanwhile",
        f"imageport share get smb://fs01/images/golden.vhdx golden.vhdx {credential}",
        f"imageport share get smb://fs01/store/gold.3.avhdx gold.raw --to raw {credential}",
    )
    get.add_argument("url", metavar="URL", help="smb://server[:port]/share/file, or a UNC path")
    get.add_argument("target", type=Path, metavar="DST", help="the file that is made")
    get.set_defaults(handler=_get)
    for parser in (put, get):
        parser.add_argument(
            "--to",
            type=_target,
            metavar="FORMAT[:SUBFORMAT]",
            help=f"write the disk inside, parents included, as {', '.join(TARGETS)} (default: the file as it is)",
        )
        parser.add_argument(
            "--replace", action="store_true", help="the new file may be there already"
        )
        parser.add_argument("--no-digest", action="store_true", help="compute no digest")
    return put, get


def _put(args: argparse.Namespace, opened: Opener) -> int:
    ref, name = parse_file(args.url)
    started = time.monotonic()
    with (
        asked_to_end() as asked,
        local_source(args.source, args.to) as source,
        opened(ref) as share,
    ):
        job = _job_of(args.source, args.url, args.to)
        with locked_journal(job) as journal:
            if not journal.exists():  # Else a part of it is there already.
                require_room(source, share, args.url)
            with share.create(
                name, job=job, journal=journal, replace=args.replace, keep=True
            ) as file:
                done = copy(source, file, to=args.to, digest=not args.no_digest, stop=asked)
            if done is None:
                return asked.exit_code
        fields: dict[str, object] = {"sent_again": file.sent_again}
        if args.verify and done.root is not None:
            fields["verified"] = root_on(share, name, args.to) == done.root
    return _tell("share-put/1", args, done, started, fields)


def _get(args: argparse.Namespace, opened: Opener) -> int:
    ref, name = parse_file(args.url)
    started = time.monotonic()
    with (
        asked_to_end() as asked,
        opened(ref) as share,
        shared_source(share, name, args.to) as source,
        NewFile(args.target, replace=args.replace, keep=True) as file,
    ):
        done = copy(source, file, to=args.to, digest=not args.no_digest, stop=asked)
    if done is None:
        return asked.exit_code
    return _tell("share-get/1", args, done, started, {})


def _tell(
    schema: str, args: argparse.Namespace, done: Done, started: float, more: dict[str, object]
) -> int:
    """Answer; 1 if what was read back is something else."""
    differs = more.get("verified") is False
    if args.json:
        seconds = round(time.monotonic() - started, 3)
        output.answer_json(schema, {**done.fields(), **more, "seconds": seconds})
    elif done.root is not None:
        output.answer(done.root)
    if differs:
        output.note("imageport: what is on the share now is not what was written: copy it again")
    elif more.get("sent_again"):
        output.note(f"imageport: {more['sent_again']} bytes were sent twice: the server was away")
    return Exit.NO if differs else Exit.OK


def _job_of(source: Path, url: str, to: str | None) -> str:
    """Name this copy, so that the same command finds what it left, and no other one does."""
    parts = (socket.gethostname(), str(source.resolve()), url, to or "")
    return (
        "put-"
        + hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    )


def _target(text: str) -> str:
    try:
        return target_name(text)
    except UnsupportedImage as err:
        raise argparse.ArgumentTypeError(str(err)) from err
