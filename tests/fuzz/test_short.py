"""The short form of the fuzz campaign, with fixed cases; `make soak` has the long one. It bounds work, not time."""

import random

import pytest

from tests.fuzz.cases import count, make_case
from tests.fuzz.hostile import HEAVY, hostile_seeds
from tests.fuzz.oracle import judge
from tests.fuzz.seeds import seeds

_RANDOM = 10
_SYSTEMATIC = {"cut": 4, "flip": 6, "field": 6}


def _cases(name: str) -> list[str]:
    """Choose cases that are the same each time: systematic ones from all structures, and the first random ones."""
    seed = seeds().get(name) or hostile_seeds()[name]
    chance = random.Random(name)
    found = [f"{name}:rand:{number}" for number in range(_RANDOM)]
    for kind, many in _SYSTEMATIC.items():
        total = count(seed, kind)
        found += [f"{name}:{kind}:{chance.randrange(total)}" for _ in range(many if total else 0)]
    return found


@pytest.mark.parametrize("name", sorted({*seeds(), *hostile_seeds()} - set(HEAVY)))
def test_no_lie_does_harm(name: str) -> None:
    for case in _cases(name):
        try:
            judge(make_case(case))
        except Exception as err:  # whatever it is: the name makes it again
            raise AssertionError(f"replay: python -m tests.fuzz {case}") from err


@pytest.mark.parametrize("name", sorted(seeds()))
def test_a_sound_image_opens_and_reads(name: str) -> None:
    """Else all of its cases would be refused at the door."""
    assert judge(make_case(name)).opened is seeds()[name].sound
