"""Rounding, at and round the borders."""

import pytest

from imaging.units import MiB, round_down, round_up


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [(0, 0, 0), (1, MiB, 0), (MiB, MiB, MiB), (MiB + 1, 2 * MiB, MiB), (2 * MiB - 1, 2 * MiB, MiB)],
)
def test_rounding(value: int, up: int, down: int) -> None:
    assert round_up(value, MiB) == up
    assert round_down(value, MiB) == down
