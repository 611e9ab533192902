"""Compressed clusters of a qcow2: read, inflated, a few of them kept; knows no table.

Compression type 0 is raw deflate (RFC 1951) with a window of 4 KiB, type 1 one Zstandard frame (RFC 8878). What a
table gives as the length is rounded up to sectors: decompression ends by itself, when the cluster is full. It makes
exactly a cluster: less is damage, and more is never made, whatever the bytes say.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

from backports import zstd

from imaging.device import BlockDevice
from imaging.errors import InvalidImage
from imaging.formats.qcow2.layout import ZSTD, CompressedCluster
from imaging.inflate import inflate_raw
from imaging.units import KiB, MiB

_WINDOW_BITS = 12
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
"""The window that RFC 8878 wants every decoder to have, 8 MiB: a frame may ask for 2 GiB."""
_KEPT = 4
"""Clusters kept inflated, at most 8 MiB: only those of which a part was read, for the rest of them."""
_MAX_GAP = 64 * KiB
_MAX_READ = 1 * MiB
"""Compressed clusters lie one behind the other: they are read at once, because a share answers slowly."""


class CompressedClusters:
    """Reads compressed clusters of one file. May be used from several threads.

    Memory: `_KEPT` clusters; during a read as much again as `_MAX_READ`, or one cluster's compressed bytes.
    """

    def __init__(self, file: BlockDevice, *, cluster_size: int, compression: int) -> None:
        self._file = file
        self._size = cluster_size
        self._inflate: Callable[[memoryview, int], bytes | bytearray]
        self._inflate = _zstd if compression == ZSTD else _deflate
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes | bytearray] = OrderedDict()

    def read_into(self, wanted: Sequence[tuple[CompressedCluster, int, memoryview]]) -> None:
        """Fill buffers with parts of clusters.

        Args:
            wanted: (cluster, offset inside it, buffer), in any order.

        Raises:
            InvalidImage: The bytes of a cluster do not inflate to exactly a cluster.
        """
        missing = []
        for part in wanted:
            content = self._recall(part[0].offset)
            if content is None:
                missing.append(part)
            else:
                _cut(content, *part[1:])
        for group in _groups(sorted(missing, key=lambda part: part[0].offset)):
            self._read_group(group)

    def _read_group(self, group: list[tuple[CompressedCluster, int, memoryview]]) -> None:
        start = group[0][0].offset
        end = min(max(cluster.offset + cluster.length for cluster, _, _ in group), self._file.size)
        packed = memoryview(bytearray(end - start))
        self._file.read_into(start, packed)
        for cluster, inside, buffer in group:
            at = cluster.offset - start
            try:
                content = self._inflate(packed[at : at + cluster.length], self._size)
            except (zlib.error, zstd.ZstdError, ValueError) as err:
                raise InvalidImage(
                    f"the compressed cluster at file offset {cluster.offset} is damaged: {err}",
                    offset=cluster.offset,
                ) from err
            if len(buffer) < self._size:
                self._keep(cluster.offset, content)
            _cut(content, inside, buffer)

    def _recall(self, offset: int) -> bytes | bytearray | None:
        with self._lock:
            return self._kept.get(offset)

    def _keep(self, offset: int, content: bytes | bytearray) -> None:
        with self._lock:
            self._kept[offset] = content
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)


def _cut(content: bytes | bytearray, inside: int, buffer: memoryview) -> None:
    buffer[:] = memoryview(content)[inside : inside + len(buffer)]


def _groups(
    parts: list[tuple[CompressedCluster, int, memoryview]],
) -> list[list[tuple[CompressedCluster, int, memoryview]]]:
    """Divide parts, sorted by file offset, into those that one read fetches."""
    groups = [parts[:1]] if parts else []
    for left, right in pairwise(parts):
        gap = right[0].offset - left[0].offset - left[0].length
        reach = right[0].offset + right[0].length - groups[-1][0][0].offset
        if gap <= _MAX_GAP and reach <= _MAX_READ:
            groups[-1].append(right)
        else:
            groups.append([right])
    return groups


def _deflate(packed: memoryview, size: int) -> bytes | bytearray:
    try:
        return inflate_raw(packed, size, window_bits=_WINDOW_BITS)
    except InvalidImage:  # a stream that would go on is no damage here
        return _require_size(zlib.decompressobj(-_WINDOW_BITS).decompress(packed, size), size)


def _zstd(packed: memoryview, size: int) -> bytes:
    frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
    content = _require_size(frame.decompress(packed, size), size)
    if not frame.eof and (frame.decompress(b"", 1) or not frame.eof):
        raise ValueError("its frame does not end with the cluster")
    return content


def _require_size(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise ValueError(f"it inflates to {len(content)} bytes, expected {size}")
    return content
