"""`imageport disk convert`: write the disk of an image as another image. The only verb of `disk` that makes a file."""

import argparse
import os
import time
import uuid
from contextlib import closing, nullcontext
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import add_verb
from imaging.convert import TARGETS, Options, convert, target_name
from imaging.counting import CountingDevice
from imaging.deflate import LEVELS
from imaging.digest import DigestBuilder
from imaging.digest.sidecar import Sidecar
from imaging.errors import UnsupportedImage
from imaging.formats import FORMATS, DiskImage, open_path
from imaging.newfile import PARTIAL, NewFile


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its options."""
    text = "write the disk inside an image as another image"
    examples = ("golden.vmdk golden.vhdx --to vhdx:dynamic", "a.vhdx a.vhd --to vhd:fixed --json")
    parser = add_verb(
        verbs, "convert", text, *(f"imageport disk convert {one}" for one in examples)
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="the image file or block device")
    parser.add_argument("target", type=Path, metavar="DST", help="the file that is made")
    parser.add_argument(
        "--to",
        type=_target,
        required=True,
        metavar="FORMAT[:SUBFORMAT]",
        help=f"what it becomes: {', '.join(TARGETS)}",
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        default=LEVELS[0],
        help=f"of formats that compress; small takes three times as long (default: {LEVELS[0]})",
    )
    parser.add_argument("--format", choices=FORMATS, help="what SRC is (default: looks into it)")
    parser.add_argument(
        "--no-digest", action="store_true", help="compute no digests and write no DST.digest"
    )
    parser.add_argument("--replace", action="store_true", help="DST may be there already")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the root of what was converted."""
    _require_apart(args.source, args.target)
    with open_path(args.source, format=args.format) as image:
        if image.info.parent:
            _require_apart(args.source.resolve().with_name(image.info.parent), args.target)
        for warning in image.info.warnings:
            output.note(f"imageport: warning: {args.source}: {warning}")
        started = time.monotonic()
        answer = _convert(image, args)
    if args.json:
        seconds = round(time.monotonic() - started, 3)
        output.answer_json("disk-convert/1", {**answer, "seconds": seconds})
    elif answer["root"]:
        output.answer(str(answer["root"]))
    return Exit.OK


def _convert(image: DiskImage, args: argparse.Namespace) -> dict[str, int | str | None]:
    sector_size = image.info.sector_size
    size = TARGETS[args.to].padded_size(image.size, sector_size=sector_size)
    if size != image.size:
        output.note(
            f"imageport: warning: {args.target}: the disk is {size - image.size} bytes longer than its"
            f" source: {args.to} has no disk of {image.size} bytes"
        )
    options = Options(
        uuid.uuid4(),
        time.time_ns() // 1_000_000_000,
        sector_size,
        image.extents(0, image.size),
        args.level,
    )
    digest = None if args.no_digest else DigestBuilder(image.size, folder=args.target.parent)
    source = CountingDevice(image)
    held = closing(digest) if digest else nullcontext()
    with (
        held,
        Sidecar(args.target, image.size if digest else 0) as sidecar,
        NewFile(args.target, replace=args.replace) as file,
    ):
        sink = TARGETS[args.to].make(file, size, options)
        with output.ProgressLine("convert", image.size) as line:
            convert(source, sink, digest=digest, progress=line.advance)
        root = sidecar.write(digest, format=args.to, size=file.size) if digest else None
        sidecar.withdraw()
        file.commit()
        sidecar.commit()
    form, _, subformat = args.to.partition(":")
    return {
        "format": form,
        "subformat": subformat,
        "virtual_size": image.size,
        "padded_size": size,
        "file_size": args.target.stat().st_size,
        "root": root,
        "digest_manifest": str(sidecar.path) if digest else None,
        "bytes_read": source.bytes_read,
        "bytes_written": file.bytes_written,
    }


def _require_apart(source: Path, target: Path) -> None:
    """Refuse to write over the source or its parent, be it by way of the partial file or of another name of it."""
    for written in (target, target.with_name(target.name + PARTIAL)):
        if os.path.realpath(source) == os.path.realpath(written) or _is_same(source, written):
            raise BadUsage(f"{written}: is the source itself", path=str(written))


def _is_same(source: Path, written: Path) -> bool:
    try:
        return source.samefile(written)
    except OSError:  # one of them is not there: opening says so
        return False


def _target(text: str) -> str:
    try:
        return target_name(text)
    except UnsupportedImage as err:
        raise argparse.ArgumentTypeError(str(err)) from err
