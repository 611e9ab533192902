"""The bytes of a digest manifest, version 1 (docs/digest-manifest.md): header and pages. Pure; opens no file.

Header, 512 bytes, numbers big-endian:

    offset size  field
    0      16    "imageport-digest"
    16     4     version, 1
    20     4     bytes of a digest block, 524288
    24     8     virtual size of the disk in bytes
    32     8     blocks that hold data
    40     8     pages that follow
    48     32    root digest (SHA-256)
    80     8     bytes of the image file
    88     32    format of the image file, ASCII, filled up with zeros
    120    2     bytes of its name
    122    255   its name, UTF-8, filled up with zeros
    377    131   zeros
    508    4     CRC-32C of bytes 0 to 507

A page is 2048 neighbouring blocks (1 GiB); those without data are left out, the others follow in order:

    0      4     number of the page
    4      4     blocks of it that hold data, n
    8      256   bitmap, see `imaging.digest.packed`
    264    32*n  digests
    ...    4     CRC-32C of the page up to here
"""

import struct
from dataclasses import dataclass

from imaging.crc32c import crc32c
from imaging.digest.builder import DIGEST_BLOCK, ZERO_BLOCK_DIGEST, block_count
from imaging.digest.packed import bitmap_size, pack_digests, unpack_digests
from imaging.digest.pages import DIGEST_SIZE, PAGE_BLOCKS
from imaging.errors import DigestManifestInvalid, DiskTooLarge
from imaging.units import TiB

MAGIC = b"imageport-digest"
HEADER_SIZE = 512
MAX_VIRTUAL_SIZE = 1024 * TiB
"""Of the disk; the digests of a larger one would not be held in memory either (8 bytes a GiB)."""

_VERSION = 1
_HEADER = struct.Struct(">16sIIQQQ32sQ32sH255s131x")
_CHECKSUM = struct.Struct(">I")
_PAGE = struct.Struct(f">II{PAGE_BLOCKS // 8}s")
PAGE_HEAD_SIZE = _PAGE.size
PAGE_OVERHEAD = _PAGE.size + _CHECKSUM.size
_ZERO_PAGE = ZERO_BLOCK_DIGEST * PAGE_BLOCKS


@dataclass(frozen=True, slots=True)
class Header:
    """What a digest manifest says about the disk and about the file that the disk was in.

    Attributes:
        virtual_size: Bytes of the disk.
        root: `sha256:<hex>`.
        data_blocks: Blocks that are not zeros.
        pages: Pages with such a block.
        image_size: Bytes of the image file when the manifest was made.
        image_format: "vhdx:dynamic" and the like.
        image_name: Name of the image file. For people: it is never opened.
    """

    virtual_size: int
    root: str
    data_blocks: int
    pages: int
    image_size: int
    image_format: str
    image_name: str

    @property
    def file_size(self) -> int:
        """Bytes of the whole manifest."""
        return HEADER_SIZE + self.pages * PAGE_OVERHEAD + self.data_blocks * DIGEST_SIZE


def require_size(virtual_size: int) -> None:
    """Refuse a disk that no manifest can describe.

    Raises:
        DiskTooLarge: With the limit.
    """
    if virtual_size > MAX_VIRTUAL_SIZE:
        raise DiskTooLarge(
            f"a digest manifest is for disks up to {MAX_VIRTUAL_SIZE} bytes, not {virtual_size}",
            size=virtual_size,
            limit=MAX_VIRTUAL_SIZE,
        )


def build_header(header: Header) -> bytes:
    """Return the header's bytes."""
    name = header.image_name.encode("utf-8", "surrogateescape")
    body = _HEADER.pack(
        *(MAGIC, _VERSION, DIGEST_BLOCK, header.virtual_size, header.data_blocks, header.pages),
        *(bytes.fromhex(header.root.removeprefix("sha256:")), header.image_size),
        *(header.image_format.encode("ascii"), len(name), name),
    )
    return body + _CHECKSUM.pack(crc32c(body))


def parse_header(data: bytes, file_size: int) -> Header:
    """Return what the first 512 bytes of a file of `file_size` bytes say.

    Raises:
        DigestManifestInvalid: It is no digest manifest of this version, or damaged, or not complete.
    """
    if len(data) < HEADER_SIZE or not data.startswith(MAGIC):
        raise DigestManifestInvalid(
            "no digest manifest", offset=0, found=data[: len(MAGIC)].hex(), expected=MAGIC.hex()
        )
    _require(_CHECKSUM.unpack_from(data, _HEADER.size)[0], crc32c(data[:-4]), 508, "checksum")
    fields = _HEADER.unpack_from(data)
    _, version, block_size, size, data_blocks, pages, root, image_size, form, length, name = fields
    _require(version, _VERSION, 16, "version")
    _require(block_size, DIGEST_BLOCK, 20, "block size")
    _require(0 < size <= MAX_VIRTUAL_SIZE, True, 24, f"virtual size {size} in range")  # noqa: FBT003
    header = Header(
        virtual_size=size,
        root=f"sha256:{root.hex()}",
        data_blocks=data_blocks,
        pages=pages,
        image_size=image_size,
        image_format=form.rstrip(b"\0").decode("ascii", "replace"),
        image_name=name[:length].decode("utf-8", "surrogateescape"),
    )
    is_possible = pages <= data_blocks <= min(block_count(size), pages * PAGE_BLOCKS)
    _require(is_possible, True, 32, f"{data_blocks} data blocks in {pages} pages possible")  # noqa: FBT003
    _require(file_size, header.file_size, file_size, "file size")
    return header


def build_page(number: int, digests: bytes) -> bytes:
    """Return a page's bytes; none if all its blocks are zeros."""
    if digests == _ZERO_PAGE[: len(digests)]:  # a thousand times faster than looking at each
        return b""
    bitmap, kept = pack_digests(digests, ZERO_BLOCK_DIGEST)
    body = _PAGE.pack(number, len(kept) // DIGEST_SIZE, bitmap) + kept
    return body + _CHECKSUM.pack(crc32c(body))


def page_size(head: bytes, *, offset: int) -> int:
    """Return the bytes of the page that begins with `head`, PAGE_HEAD_SIZE bytes of it.

    Raises:
        DigestManifestInvalid: It has more blocks than a page can have, or none.
    """
    count = _PAGE.unpack(head)[1]
    is_possible = 0 < count <= PAGE_BLOCKS
    _require(is_possible, True, offset + 4, f"{count} data blocks in a page possible")  # noqa: FBT003
    return PAGE_OVERHEAD + int(count) * DIGEST_SIZE


def parse_page(data: bytes, *, offset: int, blocks: int, least: int) -> tuple[int, bytes]:
    """Return number and digests of a page, those of zeros included.

    Args:
        data: The whole page.
        offset: Where it lies in the file.
        blocks: Blocks of the whole disk.
        least: The smallest number that it may have.

    Raises:
        DigestManifestInvalid: It is damaged, out of order, or not of this disk.
    """
    end = len(data) - _CHECKSUM.size
    _require(_CHECKSUM.unpack_from(data, end)[0], crc32c(data[:end]), offset + end, "checksum")
    number, _, bitmap = _PAGE.unpack_from(data)
    is_next = least <= number < -(-blocks // PAGE_BLOCKS)
    _require(is_next, True, offset, f"page {number} in order and inside the disk")  # noqa: FBT003
    count = min(PAGE_BLOCKS, blocks - number * PAGE_BLOCKS)
    used = bitmap_size(count)
    digests = unpack_digests(bitmap[:used], data[_PAGE.size : end], count, ZERO_BLOCK_DIGEST)
    if digests is None or any(bitmap[used:]):
        raise DigestManifestInvalid(
            f"page {number}: bitmap and digests contradict each other", offset=offset + 8
        )
    return number, digests


def _require(found: object, expected: object, offset: int, what: str) -> None:
    if found != expected:
        raise DigestManifestInvalid(
            f"{what} at byte {offset}: {found}, expected {expected}",
            offset=offset,
            found=found,
            expected=expected,
        )
