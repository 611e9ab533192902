"""One compressed grain: what its marker must say and what must come out of its data; reads no file.

"Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents". Readers with tables (`stream`) and those
that only go forward share it.
"""

from imaging.errors import InvalidImage
from imaging.formats.vmdk.layout import MARKER_SIZE, Marker
from imaging.inflate import inflate_zlib
from imaging.units import SECTOR_SIZE, round_up


class GrainDecoder:
    """Checks and inflates the grains of one extent. May be used from any thread."""

    def __init__(self, capacity: int, grain_size: int) -> None:
        """Take the extent's geometry, in bytes."""
        self.grain_size = grain_size
        self.max_length = round_up(MARKER_SIZE + 2 * grain_size, SECTOR_SIZE)
        """Bytes of the longest grain in a file: deflate can make data longer, nobody's doubles them."""
        self._sectors = grain_size // SECTOR_SIZE
        self._last = (capacity - 1) // grain_size
        self._last_size = capacity - self._last * grain_size

    def length(self, marker: Marker, grain: int, file_offset: int) -> int:
        """Check the marker of `grain` at `file_offset`; return the bytes from it to the end of the data.

        Raises:
            InvalidImage: It is another grain's, or no grain's.
        """
        if marker.value != grain * self._sectors:
            raise InvalidImage(
                f"the marker at file offset {file_offset} is that of sector {marker.value}, expected"
                f" {grain * self._sectors} (grain {grain})",
                offset=file_offset,
                found=marker.value,
                expected=grain * self._sectors,
            )
        if not 0 < marker.size <= 2 * self.grain_size:
            raise InvalidImage(
                f"the marker of grain {grain} at file offset {file_offset} has {marker.size} bytes of"
                f" data, expected 1 to {2 * self.grain_size}",
                offset=file_offset + 8,
                found=marker.size,
            )
        return MARKER_SIZE + marker.size

    def inflate(self, data: memoryview | bytes, grain: int, file_offset: int) -> bytes | bytearray:
        """Return the bytes of `grain`: a whole grain, of the last one perhaps only what the disk has of it.

        Raises:
            InvalidImage: The data, behind the marker at `file_offset`, hold something else.
        """
        try:
            return self._inflate(data, grain)
        except InvalidImage as err:
            raise InvalidImage(
                f"grain {grain} at file offset {file_offset}: {err}",
                **{**err.fields, "offset": file_offset, "block": grain},
            ) from err

    def _inflate(self, data: memoryview | bytes, grain: int) -> bytes | bytearray:
        try:
            return inflate_zlib(data, self.grain_size)
        except InvalidImage as err:
            if grain != self._last or err.fields.get("found") != self._last_size:
                raise
        return inflate_zlib(data, self._last_size)
