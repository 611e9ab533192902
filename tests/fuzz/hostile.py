"""Images that were made to hurt: bombs, loops, sizes without bytes, tables that name themselves. Seeds too.

None may do harm; which of them open is written in `test_kept.py`, case by case.
"""

from functools import cache

from tests.fuzz.hostile_qcow2 import QCOW2
from tests.fuzz.hostile_vhd import VHD
from tests.fuzz.hostile_vmdk import VMDK
from tests.fuzz.pages import laid
from tests.fuzz.seeds import Seed, make_seed

_RAW = {
    "raw-empty": lambda: {"disk.img": b""},
    "raw-huge": lambda: {"disk.img": laid(1 << 60, {1 << 50: b"x"})},
}

HEAVY = (
    "vhd-longlocator",
    "vhd-entries",
    "vhdx-scattered",
    "vhdx-64tib",
    "vmdk-8tib",
    "vmdk-extents",
    "qcow2-shared",
    "ova-deep",
)
"""Those that cost too much to be mutated: each is one case."""


@cache
def hostile_seeds() -> dict[str, Seed]:
    """Return them by name."""
    made = {**_RAW, **VHD, **VMDK, **QCOW2}
    return {name: make_seed(name, make(), sound=False) for name, make in made.items()}
