"""require_range: both ends, and numbers that would wrap in C."""

import pytest

from imaging.bounds import require_range
from imaging.errors import OutOfRange


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 10), (10, 0), (9, 1)])
def test_inside(offset: int, length: int) -> None:
    require_range(offset, length, 10)


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 1), (0, 11), (10, 1), (11, 0), (5, -1), (2**63, 2**63)]
)
def test_outside(offset: int, length: int) -> None:
    with pytest.raises(OutOfRange) as caught:
        require_range(offset, length, 10)
    assert caught.value.fields == {"offset": offset, "length": length, "size": 10}
