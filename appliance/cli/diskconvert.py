"""`imageport disk convert`: write the disk of an image as another image. The only verb of `disk` that makes a file."""

import argparse
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from appliance.cli import diskresume, output
from appliance.cli.diskchild import DIFFERENCING, convert_to_child, require_parent
from appliance.cli.exits import BadUsage, Exit
from appliance.cli.helppage import add_verb
from appliance.cli.signals import Asked, asked_to_end
from imaging.convert import TARGETS, Options, convert, target_name
from imaging.counting import CountingDevice
from imaging.deflate import LEVELS
from imaging.digest import DigestBuilder
from imaging.digest.sidecar import SUFFIX, Sidecar
from imaging.errors import Stopped, UnsupportedImage
from imaging.filedev import FileDevice, FileId
from imaging.formats import FORMATS, DiskImage, open_files
from imaging.newfile import JOURNAL, PARTIAL


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its options."""
    text = "write the disk inside an image as another image"
    examples = (
        "golden.vmdk golden.vhdx --to vhdx:dynamic",
        "a.vhdx a.vhd --to vhd:fixed --json",
        "big.vmdk /mnt/share/big.vhdx --to vhdx:dynamic --resume",
        "new.vmdk v2.avhdx --to vhdx:differencing --parent v1.vhdx",
    )
    parser = add_verb(
        verbs, "convert", text, *(f"imageport disk convert {one}" for one in examples)
    )
    parser.add_argument(
        "source", type=_image_path, metavar="SRC", help="the image file or block device"
    )
    parser.add_argument("target", type=_image_path, metavar="DST", help="the file that is made")
    parser.add_argument(
        "--to",
        type=_target,
        required=True,
        metavar="FORMAT[:SUBFORMAT]",
        help=f"what it becomes: {', '.join((*TARGETS, DIFFERENCING))}",
    )
    parser.add_argument(
        "--parent",
        type=Path,
        help=f"beside DST, of which only what differs is written: for {DIFFERENCING}",
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        help=f"of formats that compress; small takes three times as long (default: {LEVELS[0]})",
    )
    parser.add_argument("--format", choices=FORMATS, help="what SRC is (default: looks into it)")
    parser.add_argument(
        "--no-digest", action="store_true", help="compute no digests and write no DST.digest"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier run with --resume ended, if nothing changed; keep what is done if this one ends"
        " early (not for formats that compress)",
    )
    parser.add_argument("--replace", action="store_true", help="DST may be there already")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the root of what was converted."""
    require_parent(args.to, args.parent)
    _require_sense(args)
    with open_files(args.source, format=args.format) as (image, files):
        parents = [_identify(args.parent)] if args.parent else []
        _require_apart([*files, *parents], args.target)
        if args.resume:
            diskresume.require_resumable(files, args.to)
        for warning in image.info.warnings:
            output.note(f"imageport: warning: {args.source}: {warning}")
        started = time.monotonic()
        with asked_to_end() if args.resume else nullcontext() as asked:
            try:
                if args.to == DIFFERENCING:
                    answer = convert_to_child(image, args)
                else:
                    answer = _convert(image, files, args, asked)
            except Stopped:
                if asked is None or not asked():
                    raise
                return asked.exit_code
    if args.json:
        seconds = round(time.monotonic() - started, 3)
        output.answer_json("disk-convert/1", {**answer, "seconds": seconds})
    elif answer["root"]:
        output.answer(str(answer["root"]))
    return Exit.OK


def _convert(
    image: DiskImage, files: Sequence[FileId], args: argparse.Namespace, stop: Asked | None
) -> dict[str, int | str | None]:
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
        args.level or LEVELS[0],
    )
    digest = None if args.no_digest else DigestBuilder(image.size, folder=args.target.parent)
    source = CountingDevice(image)
    held = closing(digest) if digest else nullcontext()
    begin = diskresume.begin if args.resume else diskresume.begin_anew
    with (
        held,
        Sidecar(args.target, image.size if digest else 0) as sidecar,
        begin(args, image, files, options, digest) as begun,
    ):
        with output.ProgressLine("convert", image.size) as line:
            convert(
                source,
                begun.sink,
                digest=digest,
                progress=line.advance,
                stop=stop,
                checkpoints=begun.checkpoints,
            )
        file = begun.file
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
        "resumed_from": begun.start,
        "bytes_read": source.bytes_read,
        "bytes_written": file.bytes_written,
    }


def _image_path(text: str) -> Path:
    """Take a path: images are read and written at any place, so standard input and output are none."""
    if text == "-":
        raise argparse.ArgumentTypeError(
            "images are no streams: '-' is not taken for standard input or output; write ./- for a file of that name"
        )
    return Path(text)


def _require_sense(args: argparse.Namespace) -> None:
    if args.to == DIFFERENCING and (args.resume or args.level is not None):
        raise BadUsage(f"--resume and --level are not for {DIFFERENCING}")
    if args.resume:
        diskresume.require_resumable((), args.to)
    if args.level is not None and not TARGETS[args.to].is_stream:
        raise BadUsage(f"--level is for formats that compress, and {args.to} does not")


def _require_apart(files: Sequence[FileId], target: Path) -> None:
    """Refuse to write over any file of the source, be it by way of a file beside DST or of another name of it."""
    for ending in ("", PARTIAL, JOURNAL, SUFFIX, SUFFIX + PARTIAL):
        written = target.with_name(target.name + ending)
        for source in files:
            is_named = os.path.realpath(source.path) == os.path.realpath(written)
            if is_named or _is_same(source, written):
                what = (
                    "the source itself"
                    if source is files[0]
                    else f"part of the source, {source.path.name}"
                )
                raise BadUsage(f"{written}: is {what}", path=str(written))


def _identify(path: Path) -> FileId:
    with closing(FileDevice(path)) as file:
        return file.identify()


def _is_same(source: FileId, written: Path) -> bool:
    try:
        found = written.stat()
    except OSError:  # it is not there
        return False
    return (found.st_dev, found.st_ino) == (source.device, source.inode)


def _target(text: str) -> str:
    try:
        return text if text == DIFFERENCING else target_name(text)
    except UnsupportedImage as err:
        raise argparse.ArgumentTypeError(str(err)) from err
