"""`imageport disk resize`: a larger disk in the same image. Knows no format."""

import argparse
import re

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from imaging.formats import RESIZABLE, open_path, resize_path, said_format
from imaging.units import GiB, KiB, MiB, TiB

_UNITS = {"": 1, "K": KiB, "M": MiB, "G": GiB, "T": TiB}
_SIZE = re.compile(r"(\+?)([0-9]{1,19})(?:([KMGT])(?:iB)?)?")


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its options."""
    parser = add_verb(
        verbs,
        "resize",
        "make the disk inside an image larger; what is added reads as zeros. Differencing images over it (checkpoints,"
        " versions) no longer fit it afterwards",
        "imageport disk resize golden.vhdx 80GiB",
        "imageport disk resize golden.vhd +512MiB --json",
    )
    parser.add_argument("image", metavar="IMG", help="the image file; it is changed in place")
    parser.add_argument(
        "size",
        type=_size,
        metavar="SIZE",
        help="bytes, or with KiB, MiB, GiB, TiB (K, M, G, T mean the same); +SIZE: so much more",
    )
    parser.add_argument(
        "--format", choices=RESIZABLE, help="what the file is (default: what its name says)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> Exit:
    """Resize one image."""
    form = said_format(args.image, format=args.format)
    with open_path(args.image, format=form) as image:
        before = image.size
    is_more, count = args.size
    resize_path(args.image, before + count if is_more else count, format=form)
    with open_path(args.image, format=form) as image:
        info = image.info
    output.note(
        "imageport: the guest sees the new space as unused: extend its partition; on a GPT disk the backup header is"
        " to be moved to the new end first (sgdisk -e; Windows does it by itself)"
    )
    if args.json:
        answer = {
            "format": info.format,
            "subformat": info.subformat,
            "virtual_size_before": before,
            "virtual_size": info.virtual_size,
            "file_size": info.file_size,
        }
        output.answer_json("disk-resize/1", answer)
    else:
        output.answer(f"{info.virtual_size} bytes, {before} before")
    return Exit.OK


def _size(text: str) -> tuple[bool, int]:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size: write 80GiB, 85899345920 or +10GiB"
        )
    return bool(match[1]), int(match[2]) * _UNITS[match[3] or ""]
