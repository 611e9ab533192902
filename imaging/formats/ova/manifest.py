"""The manifest of an OVA: which digests its author gave for which members; computes none.

Implements DMTF DSP0243 (OVF 1.x and 2.x), 6.6 "Manifest file" and 6.7 (certificates, which are not verified). A line is
`SHA256(disk.vmdk)= hex`, with blanks wherever writers put them. The text is hostile.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_MANIFEST_SIZE = 1 << 20
ALGORITHMS = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
"""What the specification has, by hashlib's names."""
_LINE = re.compile(r"\s*([A-Za-z0-9-]{1,20})\s*\((.{1,1024})\)\s*=\s*([0-9A-Fa-f]{1,256})\s*")


class Digest(NamedTuple):
    """What a line says.

    Attributes:
        algorithm: As the line has it, in capitals.
        name: Of the member.
        value: Hexadecimal digits, in small letters.
    """

    algorithm: str
    name: str
    value: str


def parse_manifest(data: bytes) -> Iterator[Digest | str]:
    """Yield what each line says that is not empty; a line that says no digest as it is."""
    for line in data.decode("utf-8", "replace").splitlines():
        if line.strip():
            found = _LINE.fullmatch(line)
            yield (
                line
                if found is None
                else Digest(found[1].upper(), found[2].strip(), found[3].lower())
            )
