"""Check an OVA that can be opened: the manifest's digests, and the disk as a VMDK. Changes nothing.

Reads every member that the manifest names, whole.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from imaging.check import Finding, Severity
from imaging.device import BlockDevice, read_bytes
from imaging.formats.base import DiskImage
from imaging.formats.ova.device import OvaImage
from imaging.formats.ova.manifest import ALGORITHMS, MAX_MANIFEST_SIZE, Digest, parse_manifest
from imaging.formats.tar.members import TarMember
from imaging.formats.vmdk.check import check_vmdk
from imaging.units import MiB

_STEP = 1 * MiB
_SHOWN = 100
"""Characters of a name or line from the archive in a message."""


def check_ova(file: BlockDevice, image: DiskImage) -> Iterator[Finding]:
    """Yield what is wrong or doubtful in an OVA."""
    assert isinstance(image, OvaImage)
    for name, member in image.members.items():
        if name.lower().endswith(".mf"):
            yield from _check_manifest(file, image.members, member)
        elif name.lower().endswith(".cert"):
            yield Finding(
                "check.signature-unread",
                Severity.NOTE,
                f"the signature in {name[:_SHOWN]!r} was not verified",
                member.offset,
                member.size,
            )
    start = image.members[image.disk_name].offset
    for finding in check_vmdk(image.content, image.disk):
        offset = finding.offset
        yield finding if offset is None else replace(finding, offset=start + offset)


def _check_manifest(
    file: BlockDevice, members: dict[str, TarMember], manifest: TarMember
) -> Iterator[Finding]:
    if manifest.size > MAX_MANIFEST_SIZE:
        message = f"the manifest has {manifest.size} bytes, expected up to {MAX_MANIFEST_SIZE}"
        yield _damaged(message, manifest)
        return
    named: set[str] = set()
    for line in parse_manifest(read_bytes(file, manifest.offset, manifest.size)):
        if isinstance(line, str) or line.algorithm not in ALGORITHMS:
            said = line if isinstance(line, str) else line.algorithm
            yield _damaged(f"the manifest says {said[:_SHOWN]!r}, expected a digest", manifest)
        elif line.name in named:
            yield _damaged(f"the manifest names {line.name[:_SHOWN]!r} twice", manifest)
        else:
            named.add(line.name)
            yield from _check_member(file, members, line, manifest)
    for name, member in members.items():
        if name not in named and not name.lower().endswith((".mf", ".cert")):
            message = f"the manifest has no digest of {name[:_SHOWN]!r}"
            yield Finding(
                "check.digest-missing", Severity.WARNING, message, member.offset, member.size
            )


def _check_member(
    file: BlockDevice, members: dict[str, TarMember], digest: Digest, manifest: TarMember
) -> Iterator[Finding]:
    member = members.get(digest.name)
    if member is None:
        yield Finding(
            "check.digest-missing",
            Severity.WARNING,
            f"the manifest names {digest.name[:_SHOWN]!r}, which is not in the archive",
            manifest.offset,
        )
        return
    found = _digest(file, member, ALGORITHMS[digest.algorithm])
    if found != digest.value:
        yield Finding(
            "check.digest-differs",
            Severity.ERROR,
            f"{digest.name[:_SHOWN]!r} has the {digest.algorithm} {found}, but {digest.value} by the manifest:"
            " it was changed or damaged",
            member.offset,
            member.size,
        )


def _digest(file: BlockDevice, member: TarMember, algorithm: str) -> str:
    state = hashlib.new(algorithm, usedforsecurity=False)
    buffer = bytearray(min(_STEP, member.size))
    done = 0
    with memoryview(buffer) as view:
        while done < member.size:
            part = view[: min(_STEP, member.size - done)]
            file.read_into(member.offset + done, part)
            state.update(part)
            done += len(part)
    return state.hexdigest()


def _damaged(message: str, manifest: TarMember) -> Finding:
    return Finding(
        "check.manifest-damaged", Severity.ERROR, message, manifest.offset, manifest.size
    )
