"""The Azure simulator in a thread of its own, and footers of fixed VHDs made by hand."""

import struct
from contextlib import AbstractContextManager
from typing import Any

from appliance.sim.azure import AzureSim
from tests.support.simthread import running_sim


def running_azure(**options: Any) -> AbstractContextManager[AzureSim]:
    """Run a simulator while the block runs."""
    return running_sim(AzureSim, **options)


def vhd_footer(size: int, **changes: int | bytes) -> bytes:
    """Make the footer of a fixed VHD by hand, so that no code under test makes its own judge.

    `changes` are fields to make wrong: cookie, version, data_offset, current, kind, checksum.
    """
    fields: dict[str, Any] = {
        "cookie": b"conectix",
        "version": 0x10000,
        "data_offset": 2**64 - 1,
        "current": size,
        "kind": 2,
    }
    fields |= changes
    footer = bytearray(512)
    struct.pack_into(
        ">8sIIQ", footer, 0, fields["cookie"], 2, fields["version"], fields["data_offset"]
    )
    struct.pack_into(">QQ", footer, 40, size, fields["current"])
    struct.pack_into(">I", footer, 60, fields["kind"])
    checksum = ~sum(footer) & 0xFFFFFFFF
    struct.pack_into(">I", footer, 64, fields.get("checksum", checksum))
    return bytes(footer)
