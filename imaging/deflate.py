"""Pick the compressor of VMDK grains (zlib, RFC 1950) and tar.gz members (gzip, RFC 1952); inflates nothing.

Levels have names: `fast` is ISA-L's level 2, eight times as fast as zlib's 6 and 6 % larger; `small` is libdeflate's
level 6, three times as fast and a little smaller. Both let go of the GIL. The same bytes give the same result: a gzip
member has no time and no name, and ISA-L's level 1 (which is no faster) is left out because what it makes of a few
grains in 10000 depends on what was compressed before.
"""

from collections.abc import Callable
from functools import partial

import deflate
from isal import isal_zlib

Compress = Callable[[bytes], bytes]

LEVELS = ("fast", "small")
"""The first is the default."""

_GZIP_WBITS = 31
"""A window of 32 KiB, in the wrapper of gzip."""


def zlib_compressor(level: str) -> Compress:
    """Return what makes one zlib stream (header, deflate, Adler-32) of bytes, with a level of LEVELS."""
    return _ZLIB[level]


def gzip_compressor(level: str) -> Compress:
    """Return what makes one gzip member of bytes; members one after the other are a gzip file."""
    return _GZIP[level]


def _small_zlib(data: bytes) -> bytes:
    return bytes(deflate.zlib_compress(data, compresslevel=6))


def _small_gzip(data: bytes) -> bytes:
    return bytes(deflate.gzip_compress(data, compresslevel=6))


_ZLIB: dict[str, Compress] = {
    "fast": partial(isal_zlib.compress, level=2),
    "small": _small_zlib,
}
_GZIP: dict[str, Compress] = {
    "fast": partial(isal_zlib.compress, level=2, wbits=_GZIP_WBITS),
    "small": _small_gzip,
}
