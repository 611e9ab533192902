"""What Compute Engine makes of an archive: `disk.raw` in a gzip'd tar of GNU's old format, unpacked by GNU tar itself.

"Manually import boot disks": one member called disk.raw, `tar --format=oldgnu -Sczf`, a multiple of 1 GiB.
"""

import asyncio
import zlib
from collections.abc import Iterator
from pathlib import Path

GIB = 1 << 30
_MAGIC = b"ustar  \0"
_NAME = b"disk.raw"


class BadArchive(Exception):
    """Compute Engine would refuse the archive."""


async def unpack(pieces: Iterator[bytes], folder: Path) -> int:
    """Unpack an archive into `folder`/disk.raw and return the disk's size in bytes.

    Raises:
        BadArchive: It is no such archive.
    """
    packed = _stored(pieces, folder)
    try:
        _check_header(packed)
        tar = await asyncio.create_subprocess_exec(
            "tar", "--sparse", "-xzf", str(packed), "-C", str(folder),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await tar.communicate()
        if tar.returncode != 0:
            raise BadArchive(f"tar: {said.decode(errors='replace')[:300]}")
    finally:
        packed.unlink()
    return _size_of(folder)


def _stored(pieces: Iterator[bytes], folder: Path) -> Path:
    folder.mkdir()
    packed = folder / "archive.tar.gz"
    with packed.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    return packed


def _size_of(folder: Path) -> int:
    names = [path.name for path in folder.iterdir()]
    if names != ["disk.raw"]:
        raise BadArchive(f"the archive holds {', '.join(names) or 'nothing'}, expected disk.raw")
    size = (folder / "disk.raw").stat().st_size
    if size == 0 or size % GIB:
        raise BadArchive(f"the disk is of {size} bytes, expected a multiple of 1 GiB")
    return size


def _check_header(packed: Path) -> None:
    with packed.open("rb") as file:
        inflate = zlib.decompressobj(31)
        try:
            header = inflate.decompress(file.read(64 * 1024), 512)
        except zlib.error as err:
            raise BadArchive(f"no gzip file: {err}") from err
    if header[257:265] != _MAGIC:
        raise BadArchive("the tar is not of the format oldgnu")
    if header[:100].rstrip(b"\0") != _NAME:
        raise BadArchive(f"the first member is {header[:100]!r}, expected disk.raw")
