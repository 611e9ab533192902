"""Two readers of VMDKs for tests: by tables, as a disk is read, and by markers, as a stream is; obvious and slow."""

import struct
import zlib
from dataclasses import dataclass

SECTOR = 512
GRAIN = 65536


@dataclass
class Header:
    """The fields of a sparse header, in sectors."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: tuple[int, int]
    table_entries: int
    redundant: int
    directory: int
    overhead: int

    @classmethod
    def of(cls, block: bytes) -> "Header":
        """Parse it."""
        magic, version, flags, capacity, grain, *rest = struct.unpack_from("<4sIIQQQQIQQQ", block)
        assert magic == b"KDMV"
        assert block[73:77] == b"\n \r\n"
        at, length, entries, redundant, directory, overhead = rest
        return cls(
            *(version, flags, capacity, grain, (at, length)),
            *(entries, redundant, directory, overhead),
        )


def sectors(file: bytes, sector: int, count: int = 1) -> bytes:
    """Return sectors of a file, which must be there."""
    found = file[sector * SECTOR : (sector + count) * SECTOR]
    assert len(found) == count * SECTOR
    return found


def grain_places(file: bytes, capacity: int, directory: int) -> dict[int, int]:
    """Return grain -> sector, of the grains that are there."""
    places = {}
    tables = -(-capacity // (512 * 128))
    entries = struct.unpack_from(f"<{tables}I", sectors(file, directory, -(-tables * 4 // SECTOR)))
    for number, table in enumerate(entries):
        if table:
            for i, place in enumerate(struct.unpack("<512I", sectors(file, table, 4))):
                if place:
                    places[number * 512 + i] = place
    return places


def disk_of(size: int, grains: dict[int, bytes]) -> bytes:
    """Put grains together."""
    disk = bytearray(-(-size // GRAIN) * GRAIN)
    for grain, content in grains.items():
        assert len(content) == GRAIN
        disk[grain * GRAIN : (grain + 1) * GRAIN] = content
    assert not any(disk[size:])
    return bytes(disk[:size])


def read_sparse(file: bytes) -> bytes:
    """Read a monolithicSparse image by both directories, which must agree."""
    header = Header.of(file)
    assert (header.version, header.flags, header.grain, header.table_entries) == (1, 3, 128, 512)
    places = grain_places(file, header.capacity, header.directory)
    assert grain_places(file, header.capacity, header.redundant) == places
    assert len(set(places.values())) == len(places)
    assert all(place >= header.overhead and place % 128 == 0 for place in places.values())
    grains = {grain: sectors(file, place, 128) for grain, place in places.items()}
    return disk_of(header.capacity * SECTOR, grains)


def read_stream(file: bytes) -> bytes:
    """Read a streamOptimized image by its footer's tables; it must be what a walk along the markers finds."""
    header, footer = Header.of(file), Header.of(file[-2 * SECTOR :])
    assert (header.version, header.flags, header.grain, header.overhead) == (3, 0x30001, 128, 128)
    assert header.directory == 2**64 - 1
    assert sum(header.descriptor) <= 128
    assert struct.unpack("<QII", file[-1536:-1520]) == (1, 0, 3)
    assert not any(file[-SECTOR:])
    grains = {}
    for grain, place in grain_places(file, footer.capacity, footer.directory).items():
        sector, size = struct.unpack("<QI", file[place * SECTOR : place * SECTOR + 12])
        assert sector == grain * 128
        grains[grain] = zlib.decompress(file[place * SECTOR + 12 :][:size])
    assert walk(file, header.overhead, footer.directory) == grains
    return disk_of(header.capacity * SECTOR, grains)


def walk(file: bytes, place: int, directory: int) -> dict[int, bytes]:
    """Follow the markers from the first grain to the end of the stream."""
    grains: dict[int, bytes] = {}
    seen = []
    while True:
        value, size, kind = struct.unpack("<QII", file[place * SECTOR : place * SECTOR + 16])
        if size:
            grains[value // 128] = zlib.decompress(file[place * SECTOR + 12 :][:size])
            place += -(-(12 + size) // SECTOR)
            continue
        if kind == 2:
            assert directory == place + 1
        seen.append(kind)
        place += 1 + value
        if kind == 0:
            break
    assert place * SECTOR == len(file)
    assert seen[-3:] == [2, 3, 0]
    assert set(seen[:-3]) <= {1}
    assert list(grains) == sorted(grains)
    return grains
