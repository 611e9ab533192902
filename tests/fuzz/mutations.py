"""Ways to lie in the metadata of an image: pure changes of a folder of `Pages`, chosen by a seeded generator."""

import random
import re
from collections.abc import Callable

from tests.fuzz.pages import Pages
from tests.fuzz.seeds import Seed
from tests.fuzz.structures import Region

NUMBERS = (
    0,
    1,
    2,
    511,
    512,
    513,
    4096,
    (1 << 20) - 1,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
NUMBERS += (1 << 32, 1 << 40, (1 << 46) + 512, 1 << 47, 1 << 55, 1 << 62, (1 << 63) - 1, 1 << 63)
NUMBERS += ((1 << 64) - 512, (1 << 64) - 2, (1 << 64) - 1)
"""What fields are set to, cut to their size."""

_DELTAS = (-512, -1, 1, 512, 4096, -4096, 1 << 20, -(1 << 20), 8, -8)

TOKENS = (
    *(
        '"',
        "\0",
        "\n",
        "\r",
        "=",
        " ",
        "\t",
        "#",
        "\\",
        "/",
        "..",
        "../x",
        "/etc/passwd",
        "C:\\x",
        "x:y",
    ),
    *(
        "json:{}",
        "nbd://h",
        "\\\\.\\PhysicalDrive0",
        "/dev/zero",
        "-1",
        "0x10",
        "1e9",
        "٣",
        "\u017f",
        "é",
        "\ud83d",
    ),
    *(
        "99999999999999999999",
        "18446744073709551615",
        "4294967296",
        "RW",
        "NOACCESS",
        "ZERO",
        "FLAT",
        "SPARSE",
    ),
    *(
        "VMFSSPARSE",
        "SESPARSE",
        "VMFSRDM",
        "encoding=",
        'encoding="utf-16"',
        'encoding="GBK"',
        "parentCID=",
    ),
    *(
        "CID=",
        "createType=",
        "parentFileNameHint=",
        "ffffffff",
        "streamOptimized",
        "custom",
        "x" * 300,
    ),
    *(
        "<!DOCTYPE x>",
        '<!DOCTYPE x [<!ENTITY a "aaaa">]>',
        "&a;",
        "&#0;",
        "&#x10ffff;",
        "<a>" * 300,
        "]]>",
    ),
    *(
        "<File/>",
        "<Disk/>",
        "ovf:",
        "fileRef",
        "href",
        "utf-7",
        "utf-16",
        "12 size=0\n",
        "20 size=-1\n",
    ),
    *(
        "30 path=../../x\n",
        "disk.vmdk",
        "sparse.vmdk",
        "delta.vmdk",
        "top.qcow2",
        "base.vhdx",
        "CON",
        "a?b",
    ),
)
"""What text is mutated with."""


class Folder:
    """The files of a case while they are changed."""

    def __init__(self, seed: Seed) -> None:
        self.seed = seed
        self.files = {name: content.copy() for name, content in seed.files.items()}
        self.touched: set[str] = set()

    def regions(self, name: str) -> list[Region]:
        return self.seed.regions[name]

    def change(self, name: str) -> Pages:
        """Return a file to be changed."""
        self.touched.add(name)
        return self.files[name]


def set_field(file: Pages, region: Region, at: int, size: int, value: int) -> None:
    """Put a number where one stands."""
    file.put(region.offset + at, (value & ((1 << 8 * size) - 1)).to_bytes(size, region.order))


def mutate(folder: Folder, rng: random.Random) -> None:
    """Change one thing."""
    name = rng.choice([folder.seed.top] * 3 + sorted(folder.files))
    regions = [region for region in folder.regions(name) if region.length]
    if not regions:
        _resize(folder, rng, name)
        return
    region = rng.choice(regions)
    if region.entry == 0 and rng.random() < 0.8:
        _text(folder, rng, name, region)
        return
    rng.choices(_WAYS, _WEIGHTS)[0](folder, rng, name, region)


def _flip(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    file, at = folder.change(name), region.offset + rng.randrange(region.length)
    byte = file.get(at, 1)
    if byte:
        file.put(at, bytes([byte[0] ^ 1 << rng.randrange(8)]))


def _number(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    size = rng.choice((1, 2, 4, 4, 8, 8))
    at = (
        rng.randrange(max(1, region.length // 4)) * 4 if size >= 4 else rng.randrange(region.length)
    )
    set_field(
        folder.change(name), region, at, size, rng.choice(NUMBERS) + rng.choice((0, 0, 0, 1, -1))
    )


def _shift(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    """Add a little to a number: off by one sector, by one block."""
    file, size = folder.change(name), rng.choice((4, 8))
    at = rng.randrange(max(1, region.length // 4)) * 4
    old = int.from_bytes(file.get(region.offset + at, size), region.order)
    set_field(file, region, at, size, old + rng.choice(_DELTAS))


def _entry(rng: random.Random, region: Region) -> tuple[int, int]:
    size = max(region.entry, 1)
    return region.offset + rng.randrange(max(1, region.length // size)) * size, size


def _swap(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    file, (one, size), (two, _) = folder.change(name), _entry(rng, region), _entry(rng, region)
    left, right = file.get(one, size), file.get(two, size)
    file.put(one, right)
    file.put(two, left)


def _double(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    """Two entries that name one place."""
    file, (one, size), (two, _) = folder.change(name), _entry(rng, region), _entry(rng, region)
    count = rng.choice((1, 1, 1, 4, region.length // size))
    file.put(two, file.get(one, size) * min(count, 512))


def _other_region(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    """Point a number to another structure, so that tables are their own tables: cycles."""
    file, target = folder.change(name), rng.choice(folder.regions(name))
    size, unit = rng.choice((4, 8)), rng.choice((1, 512, 512, 1 << 20))
    at = rng.randrange(max(1, region.length // 4)) * 4
    old = int.from_bytes(file.get(region.offset + at, size), region.order)
    set_field(file, region, at, size, (target.offset // unit) | (old & rng.choice((0, 7, 1 << 63))))


def _copy(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    file, source = folder.change(name), rng.choice(folder.regions(name))
    file.put(region.offset, file.get(source.offset, rng.choice((8, 32, 512, source.length))))


def _noise(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    at = region.offset + rng.randrange(region.length)
    folder.change(name).put(at, rng.randbytes(rng.choice((1, 2, 4, 8, 16, 64))))


def _fill(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    size = rng.choice((region.length, max(1, region.length // 2), 16))
    folder.change(name).put(region.offset, bytes([rng.choice((0, 255, 1, 0x41))]) * size)


def _cut(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    end = rng.choice((region.offset, region.end)) + rng.choice((0, -1, 1, 511, -512, 512))
    folder.change(name).cut(max(0, end))


def _resize(folder: Folder, rng: random.Random, name: str, _: Region | None = None) -> None:
    file = folder.change(name)
    add = rng.choice((-1, 1, -512, 512, 511, 4096, -4096, 1 << 20, 1 << 30, 1 << 41))
    file.cut(max(0, file.size + add))


def _names(folder: Folder, rng: random.Random, name: str, _: Region) -> None:
    """Put one file of the folder in the place of another, or take it away: wrong parents, parents that are children."""
    names = sorted(folder.files)
    other = rng.choice(names)
    folder.touched |= {name, other}
    if name == other and name != folder.seed.top:
        del folder.files[name]
    else:
        folder.files[name] = folder.files[other].copy()


def _bytes_of(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


def _text(folder: Folder, rng: random.Random, name: str, region: Region) -> None:
    file = folder.change(name)
    content = file.get(region.offset, region.length)
    words = [found.span() for found in re.finditer(rb"[\w.:]+|[^\w\s]", content)]
    start, end = rng.choice(words) if words else (0, 0)
    token = _bytes_of(rng.choice(TOKENS))
    lines = content.split(b"\n")
    way = rng.randrange(6)
    if way == 0:
        new = content[:start] + token + content[end:]
    elif way == 1:
        new = content[:start] + token + content[start:]
    elif way == 2:
        at = rng.randrange(len(lines))
        again = [lines[at]] * rng.choice((0, 2, min(5000, (1 << 20) // (len(lines[at]) + 1))))
        new = b"\n".join([*lines[:at], *again, *lines[at + 1 :]])
    elif way == 3:
        rng.shuffle(lines)
        new = b"\n".join(lines)
    elif way == 4:
        at = rng.randrange(len(content) + 1)
        new = (
            content[:at]
            + rng.randbytes(rng.choice((1, 1, 4)))
            + content[at + rng.choice((0, 1, 4)) :]
        )
    else:
        new = content[:start] + (token * rng.choice((1, 100, 40000)))[: 1 << 20] + content[end:]
    _put_text(file, region, new)


def _put_text(file: Pages, region: Region, new: bytes) -> None:
    """A text that fills its file changes its size; one inside a file keeps its room."""
    if region.offset == 0 and region.length == file.size:
        file.cut(0)
        file.cut(len(new))
        file.put(0, new)
    else:
        file.put(region.offset, new[: region.length].ljust(region.length, b"\0"))


Way = Callable[[Folder, random.Random, str, Region], None]
_WAYS: list[Way] = [
    _flip,
    _number,
    _shift,
    _swap,
    _double,
    _other_region,
    _copy,
    _noise,
    _fill,
    _cut,
    _resize,
    _names,
]
_WEIGHTS = [6, 8, 6, 3, 3, 6, 2, 3, 1, 2, 1, 1]


def splice(folder: Folder, other: Seed, rng: random.Random) -> None:
    """Put a structure of another seed, or its whole beginning or end, into the image."""
    file, theirs = folder.change(folder.seed.top), other.files[other.top]
    if rng.random() < 0.3:
        at = rng.randrange(max(1, min(file.size, theirs.size) // 512)) * 512
        if rng.random() < 0.5:
            file.put(0, theirs.get(0, min(at, 1 << 16)))
        else:
            length = min(theirs.size, 1 << 12)
            file.put(max(0, file.size - length), theirs.get(theirs.size - length, length))
        return
    here, there = folder.regions(folder.seed.top), other.regions[other.top]
    if here and there:
        source = rng.choice(there)
        same = [region for region in here if region.name == source.name]
        file.put(rng.choice(same or here).offset, theirs.get(source.offset, source.length))
