"""What an upload costs, roughly: requests by their number, a month by what is kept."""

from agent.targets.limits import RULES
from agent.targets.prices import estimate
from imaging.units import GiB, MiB

SIZES = {"data": 20 * GiB, "padded": 127 * GiB, "read_back": 20 * GiB}


def test_every_cloud_has_a_table_and_a_folder_none() -> None:
    assert estimate("local", **SIZES) is None
    for kind in RULES.keys() - {"local"}:
        cost = estimate(kind, **SIZES)
        assert cost["read_back"] > 0
        assert cost["month"] > 0


def test_a_managed_disk_is_billed_whole_and_what_is_made_of_it_by_its_data() -> None:
    disk = estimate("azure-disk", **SIZES, result="disk")
    assert disk == estimate("azure-disk", **SIZES)
    assert disk["month"] == round(127 * 0.15, 2)
    for result in ("snapshot", "image-version"):
        assert estimate("azure-disk", **SIZES, result=result)["month"] == round(20 * 0.05, 2)


def test_requests_are_counted_in_what_one_carries() -> None:
    blocks = estimate("aws-snapshot", data=GiB, padded=GiB, read_back=0)
    assert blocks["requests"] == round(2048 / 1000 * 0.006, 4)
    one = estimate("aws-snapshot", data=1, padded=GiB, read_back=0)
    assert 0 <= one["requests"] < blocks["requests"]
    assert estimate("gcp-image", data=8 * MiB + 1, padded=GiB, read_back=0)["requests"] == 0.0
