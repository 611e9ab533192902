"""`imageport disk`: look into disk image files. Reads them and nothing else; changes nothing."""

import argparse
from collections.abc import Callable
from dataclasses import asdict

from appliance.cli import diskcheck, output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from imaging.digest import digest_device
from imaging.formats import FORMATS, DiskImage, open_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    _add_verb(verbs, "info", _info, "print format, sizes and state of an image")
    _add_verb(verbs, "digest", _digest, "print the root digest of the disk inside an image")
    text = "look for damage that reading survives, and for space that nothing uses; change nothing"
    _add_verb(verbs, "check", None, text)


def run(args: argparse.Namespace) -> int:
    """Open the image and answer the verb's question."""
    if args.answer is None:
        return diskcheck.run(args)
    with open_path(args.image, format=args.format) as image:
        for warning in image.info.warnings:
            output.note(f"imageport: warning: {args.image}: {warning}")
        answer: Callable[[DiskImage, bool], None] = args.answer
        answer(image, args.json)
    return Exit.OK


def _add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    answer: Callable[[DiskImage, bool], None] | None,
    help_line: str,
) -> None:
    parser = add_verb(verbs, name, help_line, f"imageport disk {name} golden.vhdx")
    parser.add_argument("image", metavar="IMG", help="the image file or block device")
    parser.add_argument(
        "--format", choices=FORMATS, help="what the file is (default: looks into it)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(answer=answer)


def _info(image: DiskImage, as_json: bool) -> None:  # noqa: FBT001  (these verbs share one shape)
    info = image.info
    if as_json:
        output.answer_json("disk-info/1", asdict(info))
        return
    output.answer_properties(
        [
            ("format", info.format + (f" ({info.subformat})" if info.subformat else "")),
            ("virtual size", output.exact_size(info.virtual_size)),
            ("file size", output.exact_size(info.file_size)),
            ("block size", output.size(info.block_size) if info.block_size else "none"),
            ("parent", info.parent or "none"),
            ("dirty", "yes" if info.dirty else "no"),
        ]
    )


def _digest(image: DiskImage, as_json: bool) -> None:  # noqa: FBT001
    with output.ProgressLine("digest", image.size) as line:
        digest = digest_device(image, progress=line.advance)
    if as_json:
        output.answer_json("disk-digest/1", asdict(digest))
    else:
        output.answer(digest.root)
