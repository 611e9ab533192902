"""`imageport disk create-child`: a differencing VHDX beside its parent; `convert` to one, too. Writes no parent."""

import argparse
import uuid
from contextlib import closing, nullcontext
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import add_verb
from imaging.counting import CountingDevice
from imaging.digest import DigestBuilder
from imaging.formats import DiskImage
from imaging.late import load

DIFFERENCING = "vhdx:differencing"
"""The target of `convert` that needs a parent."""
_CREATE = "imaging.convert.child:create_child"
_CONTENT = "imaging.convert.child:Content"


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its options."""
    text = (
        "make an empty differencing VHDX (a checkpoint, a version) over a VHDX in the same folder"
    )
    parser = add_verb(
        verbs, "create-child", text, "imageport disk create-child golden.vhdx golden.1.avhdx"
    )
    parser.add_argument("parent", type=Path, metavar="PARENT", help="a VHDX; it is only read")
    parser.add_argument("child", type=Path, metavar="CHILD", help="the file that is made beside it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Make it; prints nothing but errors and warnings, unless JSON is asked for."""
    info = load(_CREATE)(args.parent, args.child, unique_id=uuid.uuid4()).info
    for warning in info.warnings:
        output.note(f"imageport: warning: {args.child}: {warning}")
    if args.json:
        answer = {
            "format": info.format,
            "subformat": info.subformat,
            "parent": info.parent,
            "virtual_size": info.virtual_size,
            "block_size": info.block_size,
            "sector_size": info.sector_size,
            "file_size": info.file_size,
        }
        output.answer_json("disk-create-child/1", answer)
    return Exit.OK


def require_parent(to: str, parent: Path | None) -> None:
    """Refuse a target that needs a parent without one, and a parent where none is needed."""
    if (to == DIFFERENCING) != (parent is not None):
        raise BadUsage(f"--parent and --to {DIFFERENCING} need each other")


def convert_to_child(image: DiskImage, args: argparse.Namespace) -> dict[str, int | str | None]:
    """Write what `image` has that the parent has not; return the answer."""
    digest = None if args.no_digest else DigestBuilder(image.size, folder=args.target.parent)
    source = CountingDevice(image)
    with (
        closing(digest) if digest else nullcontext(),
        output.ProgressLine("convert", image.size) as line,
    ):
        content = load(_CONTENT)(
            source,
            0 if image.info.format == "raw" else image.info.sector_size,
            digest=digest,
            progress=line.advance,
        )
        created = load(_CREATE)(
            args.parent,
            args.target,
            unique_id=uuid.uuid4(),
            content=content,
            overwrite=args.replace,
        )
        root = digest.root() if digest else None
    info = created.info
    if info.virtual_size != image.size:
        output.note(
            f"imageport: warning: {args.target}: the disk is {info.virtual_size - image.size} bytes longer than its"
            f" source: {DIFFERENCING} has no disk of {image.size} bytes"
        )
    return {
        "format": info.format,
        "subformat": info.subformat,
        "parent": info.parent,
        "virtual_size": image.size,
        "padded_size": info.virtual_size,
        "file_size": info.file_size,
        "root": root,
        "bytes_read": source.bytes_read,
        "bytes_written": created.bytes_written,
    }
