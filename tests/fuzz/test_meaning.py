"""What a lie may change: a disk that was cut or whose redundant bits were flipped is the same disk, or refused."""

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.device import read_bytes
from imaging.errors import ImagingError
from imaging.formats import FORMATS, open_image
from tests.fuzz.cases import Case, count, make_case
from tests.fuzz.oracle import judge
from tests.fuzz.pages import PageDevice, Pages, WatchedFolder, Work
from tests.fuzz.seeds import seeds
from tests.support.disks import MiB, pattern
from tests.support.vmdks import GRAIN, StreamVmdk, disk_of

_CUTS = 40
_MOST = 4 * MiB


def read_disk(case: Case) -> tuple[bytes, int] | None:
    """Return the disk (of a large one its first 4 MiB) and its block size; None if it is refused, even when read."""
    work = Work()
    folder, file = WatchedFolder(case.files, work), PageDevice(case.files[case.top], work)
    try:
        image = open_image(file, format=case.form, name=case.top, siblings=folder)
        return read_bytes(image, 0, min(image.size, _MOST)), image.info.block_size
    except ImagingError:
        return None


@cache
def whole(name: str) -> bytes:
    """Return the disk of a sound seed."""
    found = read_disk(make_case(name))
    assert found is not None
    return found[0]


def is_lost_end(found: bytes, block: int, expected: bytes) -> bool:
    """Tell whether a disk is another one only as a raw file, or the last cluster of a qcow2, may be: it ends early.

    The size of a raw disk is that of its file. What a qcow2 lacks of its last cluster reads as zeros.
    """
    if len(found) != len(expected):
        shorter, longer = sorted((found, expected), key=len)
        return longer.startswith(shorter) and block == 0
    differing = [at for at in range(len(found)) if found[at] != expected[at]]
    return differing[-1] - differing[0] < block and not any(found[at] for at in differing)


@pytest.mark.parametrize("name", sorted(seeds()))
def test_no_truncated_image_is_another_disk(name: str) -> None:
    total = count(seeds()[name], "cut")
    chosen = random.Random(name).sample(range(total), min(total, _CUTS))
    for number in chosen:
        case = make_case(f"{name}:cut:{number}")
        found = read_disk(case)
        if found is None or found[0] == whole(name):
            continue
        assert case.form in ("raw", "qcow2"), f"python -m tests.fuzz {case.name}"
        assert is_lost_end(*found, whole(name)), f"python -m tests.fuzz {case.name}"


def flips(name: str, region: str) -> list[int]:
    """Return the numbers of the flips of a kind of structure in the image itself, checksums mended."""
    seed, at, found = seeds()[name], 0, []
    for file, regions in seed.regions.items():
        for each in regions:
            if file == seed.top and each.name.startswith(region):
                found += [2 * bit + 1 for bit in range(8 * at, 8 * (at + each.length))]
            at += each.length
    assert found
    return found


REDUNDANT = (
    ("vhd-fixed", "footer"),
    ("vhd-dynamic", "footer copy"),
    ("vhdx-dynamic", "region table 1"),
    ("vhdx-chain", "header 0"),
    ("vhdx-chain", "parent locator"),
    ("vhd-chain", "locator"),
    ("vhd-chain", "parent name"),
    ("vmdk-sparse", "grain table"),
    ("vmdk-sparse", "grain directory"),
    ("vmdk-stream", "grain table"),
    ("vmdk-stream", "grain directory"),
    ("vmdk-streamq", "grain table"),
    ("qcow2-v2", "header"),
    ("qcow2-v3", "header"),
)
"""Structures that are there twice, or that say nothing of where data lie: flipped, they move no byte of the disk."""


@pytest.mark.parametrize(("name", "region"), REDUNDANT)
def test_a_flipped_bit_of_what_is_redundant_moves_no_data(name: str, region: str) -> None:
    bits = flips(name, region)
    for number in random.Random(name).sample(
        bits, min(len(bits), 1000 if len(whole(name)) < MiB else 150)
    ):
        found = read_disk(make_case(f"{name}:flip:{number}"))
        if found is None or found[0] == whole(name) or len(found[0]) != len(whole(name)):
            continue  # a size that is another one is believed: nothing guards it
        # Nor can a grain of a stream be missed that nothing names.
        assert name.startswith("vmdk-stream"), f"python -m tests.fuzz {name}:flip:{number}"
        assert is_lost_end(*found, whole(name)), f"python -m tests.fuzz {name}:flip:{number}"


@given(st.permutations(range(4)))
def test_swapped_entries_of_a_stream_never_move_a_grain(order: list[int]) -> None:
    """Each grain's marker says whose it is."""
    grains = {number: pattern(GRAIN, number) for number in (7, 0, 20, 1)}
    image = StreamVmdk(21 * GRAIN, grains)
    places, at = [], 1024 // 512
    for number, data in grains.items():
        places.append(at)
        at += len(image.grain(number, data)) // 512
    image.entries = {number: places[n] for number, n in zip(grains, order, strict=True)}
    found = read_disk(Case("swapped", "vmdk", "disk", {"disk": Pages.of(image.build())}))
    if order == sorted(order):
        assert found is not None
        assert found[0] == disk_of(21 * GRAIN, grains)
    else:
        assert found is None


SIGNATURES = {
    "raw": (b"",),
    "vhd": (b"", b"conectix"),
    "vhdx": (b"", b"vhdxfile"),
    "vmdk": (b"", b"KDMV\1\0\0\0", b"# Disk DescriptorFile\n"),
    "qcow2": (b"", b"QFI\xfb\0\0\0\2", b"QFI\xfb\0\0\0\3"),
    "ova": (b"",),
}


@pytest.mark.parametrize("form", FORMATS)
@given(st.data())
def test_any_bytes(form: str, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(SIGNATURES[form])) + data.draw(st.binary(max_size=2048))
    longer = data.draw(st.sampled_from([len(content), 8 << 10, 5 << 20]))
    file = Pages.of(content)
    file.cut(max(longer, file.size))
    judge(Case("any", form, "any", {"any": file}), more=False)
