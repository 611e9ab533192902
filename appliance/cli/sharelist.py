"""`imageport share ls` and `stat`: what is on a share; the files of a vDisk of Citrix Provisioning as one."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TypeAlias

from agent.shares.base import Entry
from agent.shares.pvs import VDisk, group_vdisks
from agent.shares.smb.newfile import PART
from agent.shares.smb.ref import SmbShareRef
from agent.shares.smb.share import SmbShare
from appliance.cli import output
from appliance.cli.exits import Exit
from appliance.cli.helppage import add_verb
from appliance.doctor.sharespec import parse_file, parse_share
from imaging.extent import Kind

Opener: TypeAlias = Callable[[SmbShareRef], AbstractContextManager[SmbShare]]
"""Connects a share as the command line says, and closes it."""

_NS = 1_000_000


def add_arguments(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> Sequence[argparse.ArgumentParser]:
    """Declare the verbs and their own options."""
    credential = "--credential-file fs01.secret"
    ls = add_verb(
        verbs,
        "ls",
        "list a folder of a share",
        f"imageport share ls smb://fs01/images {credential}",
        f"imageport share ls '\\\\fs01\\store\\golden' {credential} --all",
    )
    ls.add_argument("url", metavar="URL", help="smb://server[:port]/share[/folder], or a UNC path")
    ls.add_argument(
        "--all", action="store_true", help="every file by itself, those of a PVS vDisk too"
    )
    ls.set_defaults(handler=_ls)
    stat = add_verb(
        verbs,
        "stat",
        "print size, times and allocated bytes of a file on a share",
        f"imageport share stat smb://fs01/images/golden.vhdx {credential}",
    )
    stat.add_argument("url", metavar="URL", help="smb://server[:port]/share/file, or a UNC path")
    stat.set_defaults(handler=_stat)
    return ls, stat


def _ls(args: argparse.Namespace, opened: Opener) -> int:
    ref = parse_share(args.url)
    with opened(ref) as share:
        entries, free = share.entries(""), share.free_space()
    disks, rest = ([], list(entries)) if args.all else group_vdisks(entries)
    if args.json:
        fields = {
            "free": free,
            "vdisks": [_disk_fields(disk) for disk in disks],
            "entries": [_entry_fields(entry) for entry in rest],
        }
        output.answer_json("share-ls/1", fields)
        return Exit.OK
    rows = [_disk_row(disk) for disk in disks] + [_entry_row(entry) for entry in rest]
    output.answer_table(("NAME", "SIZE", "ALLOCATED", "WRITTEN", "WHAT"), rows)
    output.note(f"{output.size(free)} free")
    return Exit.OK


def _stat(args: argparse.Namespace, opened: Opener) -> int:
    ref, name = parse_file(args.url)
    with opened(ref) as share:
        identity = share.stat(name)
        with_data = share.open_read(name)
        extents = with_data.extents(0, identity.size)
        data = sum(extent.length for extent in extents if extent.kind is Kind.DATA)
        with_data.close()
    if args.json:
        fields = {**asdict(identity), "allocated": data}
        output.answer_json("share-stat/1", {"name": name, **fields})
        return Exit.OK
    output.answer_properties(
        [
            ("name", name),
            ("size", output.exact_size(identity.size)),
            ("allocated", output.exact_size(data)),
            ("written", output.moment(identity.write_time_ns // _NS)),
            ("changed", output.moment(identity.change_time_ns // _NS)),
            ("file number", str(identity.file_id)),
        ]
    )
    return Exit.OK


def _entry_row(entry: Entry) -> tuple[str, ...]:
    if entry.is_folder:
        return f"{entry.name}/", "", "", output.moment(entry.write_time_ns // _NS), "folder"
    sizes = output.size(entry.size), output.size(entry.allocated)
    return entry.name, *sizes, output.moment(entry.write_time_ns // _NS), _what(entry)


def _what(entry: Entry) -> str:
    name, mark, job = entry.name.rpartition(PART)
    if mark:
        return f"unfinished {name}, of job {job}"
    return "unfinished" if entry.name.endswith(".partial") else ""


def _disk_row(disk: VDisk) -> tuple[str, ...]:
    files = [version.file for version in disk.versions]
    newest = disk.versions[-1]
    notes = [
        f"vDisk, {len(files)} version{'s'[: len(files) - 1]}",
        *(["locked"] if disk.is_locked else []),
        *([] if disk.is_whole else ["not whole"]),
        *([] if newest.has_properties else ["no .pvp"]),
    ]
    return (
        newest.file.name,
        output.size(sum(file.size for file in files)),
        output.size(sum(file.allocated for file in files)),
        output.moment(newest.file.write_time_ns // _NS),
        ", ".join(notes),
    )


def _entry_fields(entry: Entry) -> dict[str, object]:
    return {**asdict(entry), "unfinished": PART in entry.name or entry.name.endswith(".partial")}


def _disk_fields(disk: VDisk) -> dict[str, object]:
    versions = [
        {
            "number": version.number,
            "file": version.file.name,
            "size": version.file.size,
            "allocated": version.file.allocated,
            "is_base": version.is_base,
            "has_properties": version.has_properties,
            "is_locked": version.is_locked,
        }
        for version in disk.versions
    ]
    chain = [version.file.name for version in disk.chain]
    return {
        "name": disk.name,
        "versions": versions,
        "chain": chain,
        "is_whole": disk.is_whole,
        "is_locked": disk.is_locked,
    }
