"""The registry: names, sizes that a format takes, and what is said of those that it does not."""

import pytest

from imaging.convert import TARGETS, target_name
from imaging.errors import DiskTooLarge, UnsupportedImage
from imaging.units import GiB, TiB


def test_names():
    assert target_name("vhdx:fixed") == "vhdx:fixed"
    assert target_name("vhd") == "vhd:dynamic"
    assert target_name("vhdx") == "vhdx:dynamic"
    with pytest.raises(UnsupportedImage, match=r"'vhdx:thin' is none of raw, vhd:fixed, vhd:dyn"):
        target_name("vhdx:thin")


def test_sizes_are_rounded_up_where_the_format_needs_it():
    assert TARGETS["raw"].padded_size(513, sector_size=512) == 513
    assert TARGETS["vhd:fixed"].padded_size(513, sector_size=512) == 1024
    assert TARGETS["vhdx:dynamic"].padded_size(513, sector_size=512) == 1024
    assert TARGETS["vhdx:dynamic"].padded_size(513, sector_size=4096) == 4096


@pytest.mark.parametrize(
    ("name", "limit"),
    [("vhd:dynamic", 2040 * GiB), ("vhd:fixed", 64 * TiB), ("vhdx:dynamic", 64 * TiB)],
)
def test_a_size_beyond_the_limit_is_refused_with_the_limit(name, limit):
    assert TARGETS[name].padded_size(limit, sector_size=512) == limit
    with pytest.raises(DiskTooLarge, match=str(limit)) as caught:
        TARGETS[name].padded_size(limit + 1, sector_size=512)
    assert caught.value.fields["limit"] == limit
