"""Compare the digests of a disk with a digest manifest, block by block. Reads no disk."""

from collections.abc import Iterator
from dataclasses import dataclass

from imaging.digest.builder import ZERO_BLOCK_DIGEST, DigestBuilder
from imaging.digest.manifest import DigestManifest
from imaging.digest.pages import DIGEST_SIZE

MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found.

    Attributes:
        size: Virtual size of the disk.
        expected_size: That of the manifest. A disk may be longer, and then the rest of it must read as zeros.
        differing: How many blocks differ.
        first: The first of them, at most MAX_LISTED.
    """

    size: int
    expected_size: int
    differing: int
    first: tuple[int, ...]

    @property
    def equal(self) -> bool:
        """Whether the disk is the one that the manifest describes."""
        return not self.differing and self.size >= self.expected_size


def compare_digests(digest: DigestBuilder, manifest: DigestManifest) -> Verdict:
    """Read the whole manifest, which proves it, and tell which blocks differ. Memory: a page.

    Raises:
        DigestManifestInvalid: The manifest is damaged.
        DigestIncomplete: Some block of the disk has no digest.
    """
    count = 0
    first: list[int] = []
    for block in _differing(digest, manifest):
        count += 1
        if len(first) < MAX_LISTED:
            first.append(block)
    return Verdict(digest.virtual_size, manifest.header.virtual_size, count, tuple(first))


def _differing(digest: DigestBuilder, manifest: DigestManifest) -> Iterator[int]:
    done = 0
    for first, expected in manifest.pages():
        done = first + len(expected) // DIGEST_SIZE
        held = max(0, min(done, digest.count) - first)
        found = digest.blocks(first, held) if held else b""
        found += ZERO_BLOCK_DIGEST * (done - first - held)
        if found != expected:
            for at in range(0, len(expected), DIGEST_SIZE):
                if found[at : at + DIGEST_SIZE] != expected[at : at + DIGEST_SIZE]:
                    yield first + at // DIGEST_SIZE
    if done < digest.count:
        yield from digest.data_blocks(done, digest.count - done)
