"""The content digest of a disk: the same root for the same bytes in every image format."""

from imaging.digest.builder import (
    DIGEST_BLOCK,
    ZERO_BLOCK_DIGEST,
    DigestBuilder,
    DiskDigest,
    block_count,
    hash_block,
)
from imaging.digest.device import digest_device
from imaging.digest.pages import DIGEST_SIZE

__all__ = [
    "DIGEST_BLOCK",
    "DIGEST_SIZE",
    "ZERO_BLOCK_DIGEST",
    "DigestBuilder",
    "DiskDigest",
    "block_count",
    "digest_device",
    "hash_block",
]
