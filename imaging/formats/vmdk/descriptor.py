"""The text that describes a VMDK disk: parsed and checked; opens none of the files that it names.

Implements "Virtual Disk Format 5.0" ("The Descriptor File"). Keys and words may be in any case, lines end in LF or
CRLF, NUL bytes fill an embedded descriptor up to its sectors.
"""

import re
from dataclasses import dataclass
from enum import Enum

from imaging.errors import InvalidImage, UnsupportedImage
from imaging.formats.signatures import VMDK_DESCRIPTOR
from imaging.units import SECTOR_SIZE, TiB

NO_PARENT = 0xFFFF_FFFF
"""parentCID of a disk that stands alone."""
MAX_EXTENTS = 4096
"""8 TiB in files of 2 GiB, the most that VMware Workstation makes."""
_MAX_SECTORS = 64 * TiB // SECTOR_SIZE
_VERSIONS = ("1", "2", "3")

_ONE_EXTENT = ("monolithicFlat", "vmfs", "vmfsThin")
_CREATE_TYPES = (
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "2GbMaxExtentSparse",
    "2GbMaxExtentFlat",
    "vmfs",
    "vmfsThin",
    "vmfsPreallocated",
    "vmfsEagerZeroedThick",
    "streamOptimized",
    "custom",
)
"""What we read, in the specification's spelling; the extents decide the rest."""

_ENCODINGS = re.compile(
    r"utf-?8|us-ascii|windows-[0-9]{3,4}|iso-8859-[0-9]{1,2}|gbk|gb2312|gb18030|big5|shift[_-]jis|euc-(jp|kr|cn)"
)
"""The encodings of text; Python knows many that are none."""
_ENCODING_LINE = re.compile(
    rb'^[ \t]*encoding[ \t]*=[ \t]*"?([^"\r\n]*)"?', re.IGNORECASE | re.MULTILINE
)
_EXTENT = re.compile(r'(\w+)\s+([0-9]{1,20})\s+(\w+)(?:\s+"([^"]*)"(.*))?', re.DOTALL)
_KEY = re.compile(r'([\w.:\-]+)\s*=\s*(?:"(.*)"|([^"]*))', re.DOTALL)
_ACCESS = ("RW", "RDONLY", "NOACCESS")


class ExtentType(Enum):
    """Kinds of extents that we read, by the words of the descriptor."""

    FLAT = "FLAT"
    VMFS = "VMFS"
    SPARSE = "SPARSE"
    ZERO = "ZERO"


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """One extent of the disk; they follow each other without gaps, in the order of the lines.

    Attributes:
        length: Bytes of the disk.
        type: What the file is.
        name: The file, as the text has it; "" for ZERO, which has none.
        file_offset: Byte of the file where a flat extent begins.
    """

    length: int
    type: ExtentType
    name: str
    file_offset: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor says.

    Attributes:
        create_type: As the specification spells it.
        cid: Content id, which a child names as its `parent_cid`.
        parent_cid: None if the disk stands alone.
        parent_hint: Path of the parent as its writer had it; "" if there is none.
        extents: At least one.
        has_database: Whether there is any key of the disk data base, which every writer puts behind the extents.
    """

    create_type: str
    cid: int
    parent_cid: int | None
    parent_hint: str
    extents: tuple[ExtentLine, ...]
    has_database: bool

    @property
    def has_one_extent(self) -> bool:
        """Whether its type has exactly one extent, and it is there."""
        return self.create_type in _ONE_EXTENT and len(self.extents) == 1

    @property
    def virtual_size(self) -> int:
        """Bytes of the disk."""
        return sum(extent.length for extent in self.extents)


def parse_descriptor(data: bytes, file_offset: int = 0) -> Descriptor:
    """Parse a descriptor.

    Args:
        data: The whole file, or the sectors of an embedded descriptor.
        file_offset: Where it begins, for messages.

    Raises:
        InvalidImage: It breaks the rules; no line is skipped because it was not understood.
        UnsupportedImage: It describes a kind of disk, or of extent, that we do not read.
    """
    data = data.split(b"\0", 1)[0]
    if not data.startswith(VMDK_DESCRIPTOR):
        raise InvalidImage(
            f"no VMDK descriptor at file offset {file_offset}: expected {VMDK_DESCRIPTOR!r}, found"
            f" {data[: len(VMDK_DESCRIPTOR)]!r}",
            offset=file_offset,
        )
    keys: dict[str, str] = {}
    extents: list[ExtentLine] = []
    # Not splitlines(): a name may hold what Unicode calls the end of a line.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", _decode(data, file_offset)), 1):
        _take_line(line.strip(" \t"), f"line {number} of the descriptor", keys, extents)
    return _assemble(keys, extents, file_offset)


def _decode(data: bytes, file_offset: int) -> str:
    found = _ENCODING_LINE.search(data)
    if found is None:
        # Old writers name none and use that of their system: only names beyond ASCII depend on it.
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin-1")
    name = found[1].decode("ascii", "replace").strip().lower()
    if not _ENCODINGS.fullmatch(name):
        raise UnsupportedImage(
            f"the descriptor at file offset {file_offset} has the encoding {name[:40]!r}",
            offset=file_offset,
            found=name[:40],
        )
    try:
        return data.decode(name)
    except (UnicodeDecodeError, LookupError) as err:
        raise InvalidImage(
            f"the descriptor at file offset {file_offset} is not in its encoding {name}: {err}",
            offset=file_offset,
        ) from err


def _take_line(line: str, where: str, keys: dict[str, str], extents: list[ExtentLine]) -> None:
    if not line or line.startswith("#"):
        return
    extent = _EXTENT.fullmatch(line)
    if extent is not None and extent[1].upper() in _ACCESS:
        if len(extents) == MAX_EXTENTS:
            raise InvalidImage(f"{where}: more than {MAX_EXTENTS} extents")
        extents.append(_extent_of(extent, where))
        return
    pair = _KEY.fullmatch(line)
    if pair is None:
        raise InvalidImage(
            f"{where} is neither an extent nor a key: {line[:80]!r}", found=line[:80]
        )
    key, value = pair[1].lower(), pair[2] if pair[2] is not None else pair[3].strip()
    if keys.setdefault(key, value) != value and not key.startswith("ddb."):
        raise InvalidImage(
            f"{where} gives {pair[1][:80]} a second value, {value[:80]!r}", found=value[:80]
        )


def _extent_of(found: "re.Match[str]", where: str) -> ExtentLine:
    access, sectors, kind, name, rest = (
        found[1].upper(),
        int(found[2]),
        found[3].upper(),
        *found.group(4, 5),
    )
    if kind not in ExtentType.__members__:
        raise UnsupportedImage(
            f"{where}: extents of type {kind[:40]} are not read", found=kind[:40]
        )
    if access == "NOACCESS":
        raise UnsupportedImage(f"{where}: an extent without access", found=access)
    if not 0 < sectors <= _MAX_SECTORS:
        raise InvalidImage(f"{where}: an extent of {sectors} sectors", found=sectors)
    extent_type = ExtentType(kind)
    if (extent_type is ExtentType.ZERO) == bool(name):
        raise InvalidImage(
            f"{where}: an extent of type {kind} {'has a' if name else 'without a'} file"
        )
    return ExtentLine(
        length=sectors * SECTOR_SIZE,
        type=extent_type,
        name=name or "",
        file_offset=_file_offset(rest or "", extent_type, where),
    )


def _file_offset(rest: str, extent_type: ExtentType, where: str) -> int:
    text = rest.strip()
    if not text:
        return 0
    flat = extent_type in (ExtentType.FLAT, ExtentType.VMFS)
    if not re.fullmatch(r"[0-9]{1,20}", text) or not rest[0].isspace() or (int(text) and not flat):
        raise InvalidImage(
            f"{where}: {text[:40]!r} behind the file name, expected an offset", found=text[:40]
        )
    return int(text) * SECTOR_SIZE


def _assemble(keys: dict[str, str], extents: list[ExtentLine], file_offset: int) -> Descriptor:
    _require_readable(keys, file_offset)
    if not extents:
        raise InvalidImage("the descriptor has no extents", offset=file_offset)
    if sum(extent.length for extent in extents) > _MAX_SECTORS * SECTOR_SIZE:
        raise InvalidImage("the extents are larger than 64 TiB together", offset=file_offset)
    parent = _content_id(keys, "parentCID", file_offset, default=NO_PARENT)
    return Descriptor(
        create_type=_create_type(keys, file_offset),
        cid=_content_id(keys, "CID", file_offset),
        parent_cid=None if parent == NO_PARENT else parent,
        parent_hint=keys.get("parentfilenamehint", ""),
        extents=tuple(extents),
        has_database=any(key.startswith("ddb.") for key in keys),
    )


def _require_readable(keys: dict[str, str], file_offset: int) -> None:
    version = keys.get("version", "")
    if version not in _VERSIONS:
        raise UnsupportedImage(
            f"the descriptor has version {version[:20]!r}, expected 1, 2 or 3",
            offset=file_offset,
            found=version[:20],
        )
    encrypted = next((key for key in keys if key.startswith("encryption.")), None)
    if encrypted is not None:
        raise UnsupportedImage(f"an encrypted disk ({encrypted[:80]})", offset=file_offset)


def _create_type(keys: dict[str, str], file_offset: int) -> str:
    found = keys.get("createtype")
    if found is None:
        raise InvalidImage("the descriptor has no createType", offset=file_offset)
    for known in _CREATE_TYPES:
        if known.lower() == found.lower():
            return known
    raise UnsupportedImage(
        f"disks of createType {found[:40]!r} are not read", offset=file_offset, found=found[:40]
    )


def _content_id(
    keys: dict[str, str], key: str, file_offset: int, *, default: int | None = None
) -> int:
    text = keys.get(key.lower())
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"[0-9a-fA-F]{1,8}", text):
        raise InvalidImage(
            f"the descriptor's {key} is {text!r:.40}, expected up to eight hexadecimal digits",
            offset=file_offset,
        )
    return int(text, 16)
