"""`imageport disk digest`: the root digest of a disk; its digest manifest, written or compared. Changes no image."""

import argparse
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from imaging.digest import DIGEST_BLOCK, DigestBuilder, digest_device
from imaging.digest.manifest import DigestManifest
from imaging.digest.sidecar import Sidecar
from imaging.digest.verify import Verdict, compare_digests
from imaging.errors import DigestManifestInvalid
from imaging.filedev import FileDevice
from imaging.formats import FORMATS, DiskImage, open_path


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb and its options."""
    text = "print the root digest of the disk inside an image, or compare it with a digest manifest"
    parser = add_verb(
        verbs,
        "digest",
        text,
        "imageport disk digest golden.vhdx",
        "imageport disk digest golden.vhdx --manifest",
        "imageport disk digest copy.vhd --verify golden.vhdx.digest",
    )
    parser.add_argument("image", metavar="IMG", help="the image file or block device")
    parser.add_argument(
        "--format", choices=FORMATS, help="what the file is (default: looks into it)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--manifest",
        action="store_true",
        help="write the digests of all blocks beside the image, as IMG.digest",
    )
    which.add_argument(
        "--verify",
        type=Path,
        metavar="FILE",
        help="compare with this digest manifest and name the blocks that differ; exit code 1 if any does",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> Exit:
    """Answer for one image."""
    with open_path(args.image, format=args.format) as image:
        for warning in image.info.warnings:
            output.note(f"imageport: warning: {args.image}: {warning}")
        if args.manifest:
            return _write(image, args)
        if args.verify is not None:
            return _verify(image, args)
        return _print(image, args)


def _print(image: DiskImage, args: argparse.Namespace) -> Exit:
    with output.ProgressLine("digest", image.size) as line:
        digest = digest_device(image, progress=line.advance)
    if args.json:
        output.answer_json("disk-digest/1", asdict(digest))
    else:
        output.answer(digest.root)
    return Exit.OK


def _write(image: DiskImage, args: argparse.Namespace) -> Exit:
    path, info = Path(args.image), image.info
    form = info.format + (f":{info.subformat}" if info.subformat else "")
    with (
        Sidecar(path, image.size) as sidecar,
        closing(DigestBuilder(image.size, folder=path.parent)) as digest,
    ):
        with output.ProgressLine("digest", image.size) as line:
            found = digest_device(image, progress=line.advance, builder=digest)
        sidecar.write(digest, format=form, size=info.file_size)
        sidecar.commit()
    if args.json:
        fields = {**asdict(found), "digest_manifest": str(sidecar.path)}
        output.answer_json("disk-digest/1", fields)
    else:
        output.answer(found.root)
    return Exit.OK


def _verify(image: DiskImage, args: argparse.Namespace) -> Exit:
    with closing(FileDevice(args.verify)) as file, closing(DigestBuilder(image.size)) as digest:
        try:
            manifest = DigestManifest(file)
            with output.ProgressLine("verify", image.size) as line:
                found = digest_device(image, progress=line.advance, builder=digest)
            verdict = compare_digests(digest, manifest)
        except DigestManifestInvalid as err:
            raise DigestManifestInvalid(
                f"{args.verify}: {err}", **{**err.fields, "path": str(args.verify)}
            ) from err
    if args.json:
        output.answer_json("disk-verify/1", _fields(verdict, found.root, manifest))
    else:
        _tell(verdict, manifest)
    return Exit.OK if verdict.equal else Exit.NO


def _fields(verdict: Verdict, root: str, manifest: DigestManifest) -> dict[str, object]:
    return {
        "equal": verdict.equal,
        "virtual_size": verdict.size,
        "expected_virtual_size": verdict.expected_size,
        "root": root,
        "expected_root": manifest.header.root,
        "block_size": DIGEST_BLOCK,
        "differing_blocks": verdict.differing,
        "first_blocks": list(verdict.first),
    }


def _tell(verdict: Verdict, manifest: DigestManifest) -> None:
    if verdict.equal:
        output.answer(f"equal: {manifest.header.root}")
        if verdict.size != verdict.expected_size:
            output.note(
                f"imageport: warning: the disk has {verdict.size} bytes, its manifest {verdict.expected_size}:"
                " what the disk has more reads as zeros"
            )
        return
    if verdict.size < verdict.expected_size:
        output.answer(
            f"different: the disk has {verdict.size} bytes, its manifest {verdict.expected_size}"
        )
    for block in verdict.first:
        output.answer(f"different: block {block} (at byte {block * DIGEST_BLOCK})")
    if verdict.differing > len(verdict.first):
        output.answer(f"different: {verdict.differing} blocks in all")
