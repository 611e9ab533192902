"""The Azure simulator in a thread of its own, for tests that drive it by synchronous SDKs and by processes."""

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from appliance.sim.azure import AzureSim

START_SECONDS = 60.0


@contextmanager
def running_azure(**options: Any) -> Iterator[AzureSim]:
    """Run a simulator while the block runs."""
    started = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        try:
            async with AzureSim(**options) as sim:
                found.update(sim=sim, loop=asyncio.get_running_loop(), stop=asyncio.Event())
                started.set()
                await found["stop"].wait()
        finally:
            started.set()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(START_SECONDS)
    try:
        yield found["sim"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(START_SECONDS)


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
