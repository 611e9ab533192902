"""Which errors explain themselves, and that exit codes are what the contract says."""

import pytest

from appliance.cli.exits import Exit, ExtraMissing, is_named
from imaging.errors import Truncated


@pytest.mark.parametrize(
    ("err", "named"),
    [
        (Truncated("x"), True),
        (ExtraMissing("x"), True),
        (KeyError("x"), False),
        (SystemExit(3), False),
        (OSError(5, "x"), False),
    ],
)
def test_only_errors_of_ours_are_named(err: BaseException, named: bool) -> None:
    assert is_named(err) is named


def test_the_contract_of_exit_codes() -> None:
    assert {code.value for code in Exit} == {
        *(0, 1, 2, 65, 66, 69, 70, 73, 74, 75, 76, 77, 78),
        *(130, 141),
    }
