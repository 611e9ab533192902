"""Open the one disk of an OVA, a tar of an OVF descriptor and VMDK files, without unpacking it.

Implements DMTF DSP0243, 6.4 "OVF package in a single file". The manifest's digests are not compared: that is a whole
read of the file, and opening reads only metadata.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

from imaging.device import BlockDevice, read_bytes
from imaging.errors import InvalidImage, UnsupportedImage
from imaging.formats.base import Closable, ImageInfo
from imaging.formats.ova.ovf import MAX_OVF_SIZE, OvfDisk, parse_ovf
from imaging.formats.place import NOWHERE, Place, naming
from imaging.formats.raw.device import FlatImage
from imaging.formats.tar.members import TarFolder, TarMember, tar_members
from imaging.formats.vmdk.device import VmdkImage, open_vmdk
from imaging.siblings import bare_name

_GZIP_MAGIC = b"\x1f\x8b"


class OvaImage(FlatImage):
    """The disk of an OVA, whatever kind of VMDK it is in.

    Attributes:
        disk: The same, as a VMDK.
        content: The file of the VMDK, in the archive.
        disk_name: The member that it is.
        members: All of the archive.
    """

    def __init__(
        self,
        disk: VmdkImage,
        info: ImageInfo,
        *,
        content: BlockDevice,
        disk_name: str,
        members: dict[str, TarMember],
        owned: Sequence[Closable],
    ) -> None:
        super().__init__(disk, info, owned=owned)
        self.disk = disk
        self.content = content
        self.disk_name = disk_name
        self.members = members


def holds_ovf(file: BlockDevice) -> bool:
    """Tell whether the tar in `file` has an OVF descriptor: it is the first member of every OVA.

    Raises:
        InvalidImage, UnsupportedImage: The tar is damaged, or has what no OVA has.
    """
    return any(_is_ovf(member.name) for member in tar_members(file))


def open_ova(file: BlockDevice, place: Place = NOWHERE) -> OvaImage:
    """Check the archive, the descriptor and all metadata of the disk, and open it.

    Raises:
        InvalidImage: One of them breaks its rules.
        UnsupportedImage: Not exactly one disk, or one that we do not read.
        FileMissing, ReferenceRefused: The descriptor names a file that is not in the archive.
    """
    members = _members_by_name(file)
    disk = _only_disk(_read_ovf(file, members))
    name, warnings = _require_plain(disk), _doubts(disk, members)
    folder = TarFolder(file, members)
    with ExitStack() as opened:
        content = opened.enter_context(closing(folder.open(name)))
        _require_not_gzip(content, name)
        # No chain leads out of the archive, so none can come back to what led here.
        inner = Place(name, folder, place.open_as)
        with naming(name):
            image = opened.enter_context(closing(open_vmdk(content, inner)))
        info = _describe(file, image.info, warnings)
        owned = [opened.pop_all()]
        return OvaImage(image, info, content=content, disk_name=name, members=members, owned=owned)


def _is_ovf(name: str) -> bool:
    return name.lower().endswith(".ovf")


def _members_by_name(file: BlockDevice) -> dict[str, TarMember]:
    members: dict[str, TarMember] = {}
    for member in tar_members(file):
        if members.setdefault(member.name, member) is not member:
            raise InvalidImage(
                f"the archive has the member {member.name[:100]!r} twice", offset=member.offset
            )
    return members


def _read_ovf(file: BlockDevice, members: dict[str, TarMember]) -> list[OvfDisk]:
    found = [member for name, member in members.items() if _is_ovf(name)]
    if len(found) != 1:
        raise UnsupportedImage(
            f"the tar archive has {len(found)} OVF descriptors, expected one", found=len(found)
        )
    member = found[0]
    if member.size > MAX_OVF_SIZE:
        raise InvalidImage(
            f"the OVF descriptor has {member.size} bytes, expected up to {MAX_OVF_SIZE}",
            offset=member.offset,
        )
    return parse_ovf(read_bytes(file, member.offset, member.size))


def _only_disk(disks: list[OvfDisk]) -> OvfDisk:
    if len(disks) == 1:
        return disks[0]
    names = ", ".join(f"{disk.disk_id!r} ({disk.href[:100]!r})" for disk in disks[:20]) or "none"
    raise UnsupportedImage(
        f"the OVA has {len(disks)} disks with a file, expected one: {names}", found=len(disks)
    )


def _require_plain(disk: OvfDisk) -> str:
    """Return the member that holds the disk if it is stored as it is, in one piece, as a VMDK."""
    name = bare_name(disk.href, what=f"file of disk {disk.disk_id!r}")
    if disk.compression:
        raise UnsupportedImage(
            f"{name} is compressed ({disk.compression!r}) inside the OVA", found=disk.compression
        )
    if disk.is_chunked:
        raise UnsupportedImage(f"{name} is cut into chunks inside the OVA")
    if "vmdk" not in disk.format.lower():
        raise UnsupportedImage(
            f"{name} has the format {disk.format!r}, expected a VMDK", found=disk.format
        )
    return name


def _require_not_gzip(content: BlockDevice, name: str) -> None:
    if read_bytes(content, 0, min(2, content.size)) == _GZIP_MAGIC:
        raise UnsupportedImage(f"{name} is compressed (gzip) inside the OVA", found="gzip")


def _doubts(disk: OvfDisk, members: dict[str, TarMember]) -> tuple[str, ...]:
    doubts = [
        f"the digests in {name[:100]!r} were not compared"
        for name in members
        if name.lower().endswith((".mf", ".cert"))
    ]
    member = members.get(disk.href)
    if member is not None and disk.size is not None and disk.size != member.size:
        doubts.append(
            f"{disk.href!r} has {member.size} bytes, but {disk.size} by the OVF descriptor"
        )
    return tuple(doubts)


def _describe(file: BlockDevice, inner: ImageInfo, warnings: tuple[str, ...]) -> ImageInfo:
    return replace(inner, format="ova", file_size=file.size, warnings=(*warnings, *inner.warnings))
