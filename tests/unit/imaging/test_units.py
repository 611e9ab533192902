"""Rounding, at and round the borders."""

import pytest

from imaging.units import MiB, round_up


@pytest.mark.parametrize(
    ("value", "up"),
    [(0, 0), (1, MiB), (MiB, MiB), (MiB + 1, 2 * MiB), (2 * MiB - 1, 2 * MiB)],
)
def test_rounding_up(value: int, up: int) -> None:
    assert round_up(value, MiB) == up
