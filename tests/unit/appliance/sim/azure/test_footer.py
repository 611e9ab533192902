"""The finishing check accepts a right footer and names what is wrong in any other."""

import pytest

from appliance.sim.azure.footer import footer_problem
from tests.support.simazure import vhd_footer

SIZE = 32 << 20


def test_right_footer_has_no_problem() -> None:
    assert footer_problem(vhd_footer(SIZE), SIZE) == ""


@pytest.mark.parametrize(
    ("footer", "size", "said"),
    [
        (bytes(512), SIZE, "Disk is expected to have cookie value 'conectix'."),
        (vhd_footer(SIZE, checksum=1), SIZE, "Checksum"),
        (vhd_footer(SIZE, version=0x20000), SIZE, "version"),
        (vhd_footer(SIZE, kind=3), SIZE, "fixed"),
        (vhd_footer(SIZE, data_offset=512), SIZE, "fixed"),
        (vhd_footer(SIZE, current=SIZE + 512), SIZE, "Current size"),
        (vhd_footer(SIZE + 512), SIZE + 512, "MiB"),
    ],
    ids=["no-cookie", "checksum", "version", "dynamic", "data-offset", "size", "no-whole-mib"],
)
def test_wrong_footer_is_explained(footer: bytes, size: int, said: str) -> None:
    assert said in footer_problem(footer, size)
