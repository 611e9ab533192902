"""What an upload costs at list prices, roughly: a dated table in US dollars, without discounts and taxes. Pure.

Evidence: EBS direct's requests from its price page as stored on 2026-11-23 (D); everything else from memory (M), to
give the order of magnitude. Nobody is billed by this table.
"""

import math
from dataclasses import dataclass

from imaging.units import GiB, KiB, MiB

DATE = "2026-11-23"


@dataclass(frozen=True, slots=True)
class _Prices:
    """US dollars.

    Attributes:
        write / read: A thousand requests.
        chunk: Bytes of one.
        egress: A GiB that is read back over the internet.
        month: A GiB of the result kept for a month.
        keeps_size: Whether the whole disk is billed, not its data.
    """

    write: float
    read: float
    chunk: int
    egress: float
    month: float
    keeps_size: bool


_TABLE = {
    "aws-snapshot": _Prices(0.006, 0.003, 512 * KiB, 0.09, 0.05, keeps_size=False),
    "aws-s3": _Prices(0.005, 0.0004, 8 * MiB, 0.09, 0.05, keeps_size=False),
    "azure-disk": _Prices(0.0, 0.0, 4 * MiB, 0.087, 0.15, keeps_size=True),
    "azure-disk/snapshot": _Prices(0.0, 0.0, 4 * MiB, 0.087, 0.05, keeps_size=False),
    "azure-disk/image-version": _Prices(0.0, 0.0, 4 * MiB, 0.087, 0.05, keeps_size=False),
    "azure-page-blob": _Prices(0.0015, 0.0004, 4 * MiB, 0.087, 0.045, keeps_size=False),
    "gcp-image": _Prices(0.005, 0.0004, 8 * MiB, 0.12, 0.05, keeps_size=False),
}


def estimate(
    kind: str, *, data: int, padded: int, read_back: int, result: str = ""
) -> dict[str, float] | None:
    """Return dollars of sending `data`, of reading `read_back` bytes again, and of a month; None without a table.

    `result` is what is left at the end, where a kind has several.
    """
    prices = _TABLE.get(f"{kind}/{result}") or _TABLE.get(kind)
    if prices is None:
        return None
    writes, reads = math.ceil(data / prices.chunk), math.ceil(read_back / prices.chunk)
    kept = padded if prices.keeps_size else data
    return {
        "requests": round(writes / 1000 * prices.write + reads / 1000 * prices.read, 4),
        "read_back": round(read_back / GiB * prices.egress, 2),
        "month": round(kept / GiB * prices.month, 2),
    }
