"""Cases of the campaign: a name that says the seed, the kind of lie and its number, and makes the same files each time.

`vhdx-dynamic:flip:1234` is bit 617 of the metadata of the seed `vhdx-dynamic`, checksums mended. Kinds:

* `cut` N: the file ends at, or one byte beside, a border of a structure
* `flip` N: bit N // 2 of all metadata; odd numbers mend the checksums
* `field` N: a number of the metadata set to one of `NUMBERS`; odd numbers mend
* `rand` N: one to five changes by the generator with the seed N
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import gcd

from tests.fuzz.hostile import hostile_seeds
from tests.fuzz.mutations import NUMBERS, Folder, mutate, set_field, splice
from tests.fuzz.pages import Pages
from tests.fuzz.seeds import Seed, all_seeds, seeds
from tests.fuzz.structures import Region, mend

KINDS = ("cut", "flip", "field", "rand")


@dataclass(frozen=True)
class Case:
    """The files of one case.

    Attributes:
        name: Makes it again: `python -m tests.fuzz NAME`.
        form: Which format `open_image` is told.
        top: The image among `files`.
    """

    name: str
    form: str
    top: str
    files: dict[str, Pages]


@cache
def corpus() -> dict[str, Seed]:
    """Return all seeds, sound and hostile."""
    return {**all_seeds(), **hostile_seeds()}


def make_case(name: str) -> Case:
    """Make a case by its name; `rand:N/0,2` does only the changes 0 and 2."""
    if ":" not in name:
        return _finish(name, Folder(corpus()[name]))
    seed_name, kind, rest = name.split(":")
    number, _, steps = rest.partition("/")
    folder = Folder(corpus()[seed_name])
    chosen = {int(step) for step in steps.split(",")} if steps else None
    _MAKERS[kind](folder, int(number), chosen)
    return _finish(name, folder)


def count(seed: Seed, kind: str) -> int:
    """Return how many cases a kind has; 0: without end."""
    files = seed.regions.items()
    if kind == "cut":
        return sum(len(_cuts(seed, name)) for name in seed.files)
    if kind == "flip":
        return 2 * 8 * sum(region.length for _, regions in files for region in regions)
    if kind == "field":
        return 2 * len(NUMBERS) * sum(_fields(region) for _, regions in files for region in regions)
    return 0


def _finish(name: str, folder: Folder) -> Case:
    return Case(name, folder.seed.form, folder.seed.top, folder.files)


def _cuts(seed: Seed, name: str) -> list[int]:
    file = seed.files[name]
    borders = {0, file.size, file.size // 2}
    borders |= {edge for region in seed.regions[name] for edge in (region.offset, region.end)}
    borders |= {-(-border // unit) * unit for border in borders for unit in (512, 4096, 1 << 20)}
    near = {border + delta for border in borders for delta in (-1, 0, 1)}
    return sorted(end for end in near if 0 <= end <= file.size + 1 and end != file.size)


def _cut(folder: Folder, number: int, _: set[int] | None) -> None:
    for name in folder.files:
        ends = _cuts(folder.seed, name)
        if number < len(ends):
            folder.change(name).cut(ends[number])
            return
        number -= len(ends)


def _locate(folder: Folder, number: int, size: int) -> tuple[str, Region, int]:
    """Return (file, region, unit in it) of unit `number` of all metadata; a unit has `size` bytes (0: a field)."""
    for name, regions in folder.seed.regions.items():
        for region in regions:
            units = region.length if size else _fields(region)
            if number < units:
                return name, region, number
            number -= units
    raise IndexError(number)


def _flip(folder: Folder, number: int, _: set[int] | None) -> None:
    bit = number // 2
    name, region, at = _locate(folder, bit // 8, 1)
    file = folder.change(name)
    file.put(region.offset + at, bytes([file.get(region.offset + at, 1)[0] ^ 1 << bit % 8]))
    _mend(folder, number % 2 == 1)


def _fields(region: Region) -> int:
    """Return how many numbers a structure may have: one of 4 and one of 8 bytes at each multiple of 4."""
    return 2 * (region.length // 4)


def _field(folder: Folder, number: int, _: set[int] | None) -> None:
    place, value = divmod(number // 2, len(NUMBERS))
    name, region, at = _locate(folder, place, 0)
    set_field(folder.change(name), region, at // 2 * 4, 4 + 4 * (at % 2), NUMBERS[value])
    _mend(folder, number % 2 == 1)


def _rand(folder: Folder, number: int, chosen: set[int] | None) -> None:
    rng = random.Random(f"{folder.seed.name}/{number}")
    steps = rng.choice((1, 1, 2, 2, 3, 5))
    mending = rng.random() < 0.75
    others = sorted(seeds())  # not those that depend on the machine: a name must say the case
    for step in range(steps):
        own = random.Random(f"{folder.seed.name}/{number}/{step}")
        if chosen is not None and step not in chosen:
            continue
        if own.random() < 0.08:
            splice(folder, corpus()[own.choice(others)], own)
        else:
            mutate(folder, own)
    _mend(folder, mending)


def _mend(folder: Folder, wanted: bool) -> None:
    for name in sorted(folder.touched & folder.files.keys()) if wanted else ():
        mend(folder.seed.form_of(name), folder.files[name])


_MAKERS = {"cut": _cut, "flip": _flip, "field": _field, "rand": _rand}


def systematic(seed: Seed, start: int = 0) -> Iterator[str]:
    """Yield the names of all cases with an end, the kinds in turn, in an order that meets every structure early.

    Args:
        seed: What the cases are made from.
        start: How many of each kind were done before, by another campaign.
    """
    orders = {kind: _order(count(seed, kind), start) for kind in KINDS[:-1]}
    while orders:
        for kind in list(orders):
            number = next(orders[kind], None)
            if number is None:
                del orders[kind]
            else:
                yield f"{seed.name}:{kind}:{number}"


def _order(total: int, start: int) -> Iterator[int]:
    step = 7919
    while total and gcd(step, total) > 1:  # else some numbers would never come
        step += 1
    return (number * step % total for number in range(start, total))
