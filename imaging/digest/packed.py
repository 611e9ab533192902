"""Packed digests: those of neighbouring blocks, in which blocks of zeros take one bit each. Bytes to bytes; pure.

Layout, for a count that the reader knows: a bitmap of count bits, filled up to whole bytes with 0, the lowest bit
first; a 1 is a block that holds data. Then the digests of those blocks, in order. Digests have one packed form.
"""

from imaging.digest.pages import DIGEST_SIZE


def pack_digests(digests: bytes, zero_digest: bytes) -> tuple[bytes, bytes]:
    """Return bitmap and digests of the blocks that hold data.

    Args:
        digests: 32 bytes for each block.
        zero_digest: The digest of a block of zeros.
    """
    bits, kept = 0, []
    for index in range(len(digests) // DIGEST_SIZE):
        digest = digests[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]
        if digest != zero_digest:
            bits |= 1 << index
            kept.append(digest)
    return bits.to_bytes(bitmap_size(len(digests) // DIGEST_SIZE), "little"), b"".join(kept)


def unpack_digests(bitmap: bytes, kept: bytes, count: int, zero_digest: bytes) -> bytes | None:
    """Return the digests of `count` blocks; None if it is not what `pack_digests` makes of any."""
    bits = int.from_bytes(bitmap, "little")
    if len(bitmap) != bitmap_size(count) or bits >> count:
        return None
    if len(kept) != bits.bit_count() * DIGEST_SIZE:
        return None
    digests, done = bytearray(zero_digest * count), 0
    for index in range(count):
        if bits >> index & 1:
            digest = kept[done : done + DIGEST_SIZE]
            if digest == zero_digest:
                return None
            digests[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE] = digest
            done += DIGEST_SIZE
    return bytes(digests)


def bitmap_size(count: int) -> int:
    """Return the bytes of the bitmap of `count` blocks."""
    return -(-count // 8)
