"""The OVF descriptor of an appliance: which disks it has and in which files; opens none of them.

Implements DMTF DSP0243 (OVF 1.x and 2.x), 7.1 "References" and 9.1 "DiskSection". The text is hostile: no document
type, so no entities, and nothing is kept but a few attributes.
"""

import xml.parsers.expat
from dataclasses import dataclass, field

from imaging.errors import InvalidImage, UnsupportedImage

MAX_OVF_SIZE = 4 << 20
_MAX_ITEMS = 1024


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """A disk that has a file.

    Attributes:
        disk_id: Its name in the descriptor.
        href: The file's name in the archive.
        compression: "" if the file is stored as it is.
        is_chunked: Whether the file is cut into several.
        format: URI of the disk's format.
        size: Bytes of the file if the descriptor says so, else None.
    """

    disk_id: str
    href: str
    compression: str
    is_chunked: bool
    format: str
    size: int | None


@dataclass(slots=True)
class _Found:
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    disks: list[dict[str, str]] = field(default_factory=list)


def parse_ovf(data: bytes) -> list[OvfDisk]:
    """Return the disks that have a file, in the order of the descriptor.

    Raises:
        InvalidImage: It is no XML, declares a document type, or names a file that it does not have.
    """
    found = _Found()
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = lambda name, attributes: _take(found, name, attributes)
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)  # noqa: FBT003  (the parser's own signature)
    except (xml.parsers.expat.ExpatError, LookupError, ValueError) as err:
        raise InvalidImage(f"the OVF descriptor is no XML: {err}") from err
    return [_disk(disk, found.files) for disk in found.disks if disk.get("fileRef")]


def _take(found: _Found, name: str, attributes: dict[str, str]) -> None:
    element = name.rsplit(" ", 1)[-1]
    if element not in ("File", "Disk"):
        return
    # The attributes are in OVF's namespace, whose URI differs by version.
    values = {key.rsplit(" ", 1)[-1]: value for key, value in attributes.items()}
    if element == "Disk":
        found.disks.append(values)
    elif found.files.setdefault(values.get("id", ""), values) is not values:
        raise InvalidImage(
            f"the OVF descriptor has two files with the id {values.get('id', '')[:80]!r}"
        )
    if len(found.disks) + len(found.files) > _MAX_ITEMS:
        raise InvalidImage(f"the OVF descriptor has more than {_MAX_ITEMS} files and disks")


def _refuse_doctype(name: str, *_: object) -> None:
    raise InvalidImage(f"the OVF descriptor declares a document type ({name[:80]!r})")


def _disk(disk: dict[str, str], files: dict[str, dict[str, str]]) -> OvfDisk:
    disk_id, reference = disk.get("diskId", "")[:80], disk["fileRef"]
    file = files.get(reference)
    if file is None:
        raise InvalidImage(
            f"disk {disk_id!r} is in file {reference[:80]!r}, which the descriptor lacks"
        )
    size = file.get("size", "")
    if size and not (size.isascii() and size.isdecimal() and len(size) <= 20):
        raise InvalidImage(f"file {reference[:80]!r} has the size {size[:40]!r}")
    if disk.get("parentRef"):
        raise UnsupportedImage(f"disk {disk_id!r} is a delta link over {disk['parentRef'][:80]!r}")
    compression = file.get("compression", "")
    return OvfDisk(
        disk_id=disk_id,
        href=file.get("href", ""),
        compression="" if compression == "identity" else compression[:40],
        is_chunked="chunkSize" in file,
        format=disk.get("format", "")[:200],
        size=int(size) if size else None,
    )
