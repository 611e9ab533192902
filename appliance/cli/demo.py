"""`imageport demo`: everything on this machine, a real image, a live transfer, an independent proof.

The story itself is in appliance.demo.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import BadUsage
from appliance.cli.helppage import show_examples
from appliance.cli.inputs import CannotCreate
from appliance.cli.progress import event_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    show_examples(parser, "imageport demo", "imageport demo --keep demo-files --json")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep all files in DIR, new or empty (default: they are removed)",
    )
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    if args.keep is None:
        with tempfile.TemporaryDirectory(prefix="imageport-demo-") as folder:
            return _demo(Path(folder), args)
    return _demo(_new_folder(args.keep), args)


def _new_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise CannotCreate(f"--keep {path}: {err.strerror}", path=str(path)) from err
    if any(path.iterdir()):
        msg = f"{path} is not empty"
        raise BadUsage(msg)
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError as err:
        raise BadUsage(
            f"--keep {path}: the name is no UTF-8, which no configuration holds"
        ) from err
    return path.resolve()


def _demo(work: Path, args: argparse.Namespace) -> int:
    from appliance.demo.flow import run_demo  # noqa: PLC0415 - relay, agent and SDKs are not needed for --help

    shown = asyncio.run(run_demo(work, output.note, event_line()))
    if args.keep is not None:
        output.note(
            f"kept: {work} (configuration, keys, logs); run the commands of the README on it"
        )
    output.note(
        f"moved and verified in {shown.seconds:.1f} s; next: README.md, docs/architecture.md"
    )
    if args.json:
        fields = {
            "verified": True,
            "root": shown.root,
            "seconds": round(shown.seconds, 3),
            "job": shown.result,
        }
        output.answer_json("demo/1", fields)
    else:
        output.answer(f"demo: verified {shown.root}")
    return 0
