"""Options: what a new image needs to know besides its size and its bytes. Values; no clock and no randomness."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from imaging.extent import Extent


@dataclass(frozen=True, slots=True)
class Options:
    """What makes a new image.

    Attributes:
        unique_id: Like no other image's; all ids in the file are derived from it.
        timestamp: When it was made, in seconds since 1970.
        sector_size: Logical sector of the disk, 512 or 4096 bytes, where the format knows such a thing.
        extents: Of the source, to be walked once: for formats that announce them before the data.
        level: One of `imaging.deflate.LEVELS`: for formats that compress.
        one_member: One gzip member in all instead of one for each unit.
    """

    unique_id: UUID
    timestamp: int
    sector_size: int = 512
    extents: Iterable[Extent] = ()
    level: str = "fast"
    one_member: bool = False
