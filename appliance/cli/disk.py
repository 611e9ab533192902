"""`imageport disk`: look into images; changes none. See also `diskcheck`, `diskdigest`, `diskconvert`, `diskchild`."""

import argparse
from collections.abc import Callable
from dataclasses import asdict

from appliance.cli import diskcheck, diskchild, diskconvert, diskdigest, diskresize, output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from imaging.compare import Comparison, compare_devices
from imaging.formats import FORMATS, DiskImage, open_path

_FORMAT_HELP = "what {} is (default: looks into it)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their options."""
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    _add_verb(verbs, "info", _info, "print format, sizes and state of an image")
    _add_verb(verbs, "map", _map, "list what is data, zeros and holes in the disk inside an image")
    diskdigest.add_arguments(verbs)
    diskcheck.add_arguments(verbs)
    _add_compare(verbs)
    diskconvert.add_arguments(verbs)
    diskresize.add_arguments(verbs)
    diskchild.add_arguments(verbs)


def run(args: argparse.Namespace) -> int:
    """Answer the verb's question; 1 if the answer is no."""
    handler: Callable[[argparse.Namespace], int] = args.handler
    return handler(args)


def _add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    answer: Callable[[DiskImage, bool], None],
    help_line: str,
) -> None:
    parser = add_verb(verbs, name, help_line, f"imageport disk {name} golden.vhdx")
    parser.add_argument("image", metavar="IMG", help="the image file or block device")
    parser.add_argument("--format", choices=FORMATS, help=_FORMAT_HELP.format("the file"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=_answer_about_one, answer=answer)


def _add_compare(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "compare",
        "tell whether the disks inside two images are equal, bit by bit; exit code 1 if not",
        "imageport disk compare golden.vhdx downloaded.vhd",
        "imageport disk compare golden.qcow2 /dev/sdb --format-b raw --strict",
    )
    for letter in "ab":
        name = letter.upper()
        parser.add_argument(letter, metavar=name, help="an image file or block device")
    for letter in "ab":
        what = _FORMAT_HELP.format(letter.upper())
        parser.add_argument(f"--format-{letter}", choices=FORMATS, help=what)
    parser.add_argument(
        "--strict",
        action="store_true",
        help="disks of unequal size differ, even where the excess of the larger one reads as zeros",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=_compare)


def _answer_about_one(args: argparse.Namespace) -> Exit:
    """Open the image and answer a question that every image has an answer to."""
    with open_path(args.image, format=args.format) as image:
        _tell_doubts(args.image, image)
        args.answer(image, args.json)
    return Exit.OK


def _tell_doubts(path: str, image: DiskImage) -> None:
    for warning in image.info.warnings:
        output.note(f"imageport: warning: {path}: {warning}")


def _info(image: DiskImage, as_json: bool) -> None:  # noqa: FBT001  (the verbs share one shape)
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


def _map(image: DiskImage, as_json: bool) -> None:  # noqa: FBT001
    extents = image.extents(0, image.size)
    if as_json:
        listed = [
            {"offset": extent.offset, "length": extent.length, "kind": extent.kind.value}
            for extent in extents
        ]
        output.answer_json("disk-map/1", {"virtual_size": image.size, "extents": listed})
        return
    rows = ((str(extent.offset), str(extent.length), extent.kind.value) for extent in extents)
    output.answer_table(("OFFSET", "LENGTH", "KIND"), rows)


def _compare(args: argparse.Namespace) -> Exit:
    with (
        open_path(args.a, format=args.format_a) as a,
        open_path(args.b, format=args.format_b) as b,
    ):
        _tell_doubts(args.a, a)
        _tell_doubts(args.b, b)
        with output.ProgressLine("compare", max(a.size, b.size)) as line:
            found = compare_devices(a, b, progress=line.advance)
    unequal_sizes = found.size_a != found.size_b
    is_equal = found.first_difference is None and not (args.strict and unequal_sizes)
    if is_equal and unequal_sizes:
        output.note(
            f"imageport: warning: the sizes differ, {found.size_a} and {found.size_b} bytes: what the"
            " larger disk has more reads as zeros"
        )
    if args.json:
        output.answer_json("disk-compare/1", {"equal": is_equal} | asdict(found))
    else:
        output.answer("equal" if is_equal else _difference(found))
    return Exit.OK if is_equal else Exit.NO


def _difference(found: Comparison) -> str:
    if found.first_difference is None:
        return f"different: the sizes are {found.size_a} and {found.size_b} bytes"
    return f"different: the first byte that differs is at {found.first_difference}"
