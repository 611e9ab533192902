"""The footer check that Azure makes when an upload to a managed disk is finished; own code, not the product's.

| offset | size | field                | must be                       |
|--------|------|----------------------|-------------------------------|
| 0      | 8    | cookie               | conectix                      |
| 12     | 4    | file format version  | 0x00010000                    |
| 16     | 8    | data offset          | all ones (fixed disk)         |
| 48     | 8    | current size         | the disk's bytes              |
| 60     | 4    | disk type            | 2 (fixed)                     |
| 64     | 4    | checksum             | ones' complement of the sum   |
VHD specification 1.0, "Hard Disk Footer Format".
"""

import struct

FOOTER_SIZE = 512
MIB = 1 << 20

_FIELDS = struct.Struct(">8s4xIQ24xQ4xII")
_CHECKSUM = slice(64, 68)
_VERSION = 0x00010000
_FIXED = 2
_NO_OFFSET = 0xFFFFFFFFFFFFFFFF


def footer_problem(footer: bytes, size: int) -> str:
    """Return what is wrong with the footer of a disk of `size` bytes, "" when nothing is."""
    cookie, version, data_offset, current, kind, checksum = _FIELDS.unpack_from(footer)
    computed = checksum_of(footer)
    fixed = kind == _FIXED and data_offset == _NO_OFFSET
    checks = (
        (cookie == b"conectix", "Disk is expected to have cookie value 'conectix'."),
        (
            checksum == computed,
            f"Checksum 0x{checksum:08x} is not the calculated 0x{computed:08x}.",
        ),
        (version == _VERSION, f"File format version 0x{version:08x} is not supported."),
        (fixed, "Only fixed VHD type is supported."),
        (current == size, f"Current size {current} is not the disk's {size} bytes."),
        (size % MIB == 0, f"The virtual size {size} is not a whole number of MiB."),
    )
    return next((problem for holds, problem in checks if not holds), "")


def checksum_of(footer: bytes) -> int:
    """Return the ones' complement of the sum of all bytes but the checksum's own."""
    return ~(sum(footer[:FOOTER_SIZE]) - sum(footer[_CHECKSUM])) & 0xFFFFFFFF
