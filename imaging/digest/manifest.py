"""The digest manifest: the digests of a disk in a file of their own. Written and read page by page, whatever the size.

Layout: `imaging.digest.layout`. Knows no image format; of the image's file it knows what it is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from imaging.device import BlockDevice, read_bytes
from imaging.digest import layout
from imaging.digest.builder import ZERO_BLOCK_DIGEST, DigestBuilder, RootHash, block_count
from imaging.digest.pages import DIGEST_SIZE, PAGE_BLOCKS
from imaging.errors import DigestManifestInvalid
from imaging.output import OutputFile


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is said about the file that the disk is in: bare name, format ("vhdx:dynamic"), size in bytes."""

    name: str
    format: str
    size: int


def write_manifest(file: OutputFile, digest: DigestBuilder, image: ImageFacts) -> str:
    """Write the digests of a disk and flush them; return the root. Committing is the caller's.

    Memory: a page, 64 KiB.

    Raises:
        DigestIncomplete: Some block was never set.
        DeviceError: The file cannot be written.
    """
    root = RootHash(digest.virtual_size)
    at, pages = layout.HEADER_SIZE, 0
    for number, first in enumerate(range(0, digest.count, PAGE_BLOCKS)):
        digests = digest.blocks(first, min(PAGE_BLOCKS, digest.count - first))
        root.update(digests)
        page = layout.build_page(number, digests)
        if page:
            file.write(at, page)
            at += len(page)
            pages += 1
    room = at - layout.HEADER_SIZE - pages * layout.PAGE_OVERHEAD
    header = layout.Header(
        virtual_size=digest.virtual_size,
        root=root.text(),
        data_blocks=room // DIGEST_SIZE,
        pages=pages,
        image_size=image.size,
        image_format=image.format,
        image_name=image.name,
    )
    file.write(0, layout.build_header(header))
    file.flush()
    return header.root


class DigestManifest:
    """A digest manifest in a file, which stays open when this is let go of. Memory: a page."""

    def __init__(self, file: BlockDevice) -> None:
        """Read the header.

        Raises:
            DigestManifestInvalid: It is none, or not complete.
        """
        self._file = file
        head = read_bytes(file, 0, min(layout.HEADER_SIZE, file.size))
        self.header = layout.parse_header(head, file.size)

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield (first block, digests) of each 1 GiB of the disk, in order; whoever reads to the end knows it is sound.

        Raises:
            DigestManifestInvalid: A page is damaged, or (at the end) the root does not follow from the digests.
        """
        header, root = self.header, RootHash(self.header.virtual_size)
        blocks = block_count(header.virtual_size)
        stored = self._stored(blocks)
        following = next(stored, None)
        zeros = ZERO_BLOCK_DIGEST * PAGE_BLOCKS
        for number, first in enumerate(range(0, blocks, PAGE_BLOCKS)):
            digests = zeros[: (blocks - first) * DIGEST_SIZE]
            if following is not None and following[0] == number:
                digests, following = following[1], next(stored, None)
            root.update(digests)
            yield first, digests
        if root.text() != header.root:
            raise DigestManifestInvalid(
                f"the root {header.root} does not follow from the digests, which make {root.text()}",
                offset=48,
                found=header.root,
                expected=root.text(),
            )

    def load(self, digest: DigestBuilder) -> None:
        """Set all blocks of a builder for a disk of this size; raises as `pages`."""
        for first, digests in self.pages():
            count = len(digests) // DIGEST_SIZE
            if digests == ZERO_BLOCK_DIGEST * count:
                digest.set_zero(first, count)
            else:
                digest.set_blocks(first, digests)

    def _stored(self, blocks: int) -> Iterator[tuple[int, bytes]]:
        at, least = layout.HEADER_SIZE, 0
        for _ in range(self.header.pages):
            size = layout.page_size(self._read(at, layout.PAGE_HEAD_SIZE), offset=at)
            page = self._read(at, size)
            number, digests = layout.parse_page(page, offset=at, blocks=blocks, least=least)
            yield number, digests
            at, least = at + size, number + 1
        if at != self._file.size:
            raise DigestManifestInvalid(
                f"the pages end at byte {at}, the file at {self._file.size}",
                offset=at,
                found=at,
                expected=self._file.size,
            )

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._file.size:
            raise DigestManifestInvalid(
                f"the page at byte {offset} goes on behind the end of the file",
                offset=offset,
                found=offset + size,
                expected=self._file.size,
            )
        return read_bytes(self._file, offset, size)
