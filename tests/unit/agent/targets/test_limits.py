"""Both sides of every edge: sizes as the stage pads and refuses them, names as the wire takes them."""

from types import SimpleNamespace

import msgspec
import pytest

from agent.stages.upload import spec_for
from agent.targets.errors import SizeUnsupported
from agent.targets.limits import RULES
from imaging.units import GiB, KiB, MiB
from protocol.ops import AwsS3, AwsSnapshot, AzureDisk, AzurePageBlob, GcpImage, LocalTarget

REFS = {
    "local": lambda name: LocalTarget(name="cloud", disk=name),
    "azure-disk": lambda name: AzureDisk(
        subscription="s", resource_group="g", location="westeurope", disk=name
    ),
    "azure-page-blob": lambda name: AzurePageBlob(
        endpoint="https://a.blob.core.windows.net", container="vhds", blob=name
    ),
    "aws-snapshot": lambda name: AwsSnapshot(region="eu-central-1", name=name),
    "aws-s3": lambda name: AwsS3(region="eu-central-1", bucket="bucket", name=name),
    "gcp-image": lambda name: GcpImage(project="project", bucket="bucket", image=name),
}


def padded(kind: str, size: int) -> int:
    job = SimpleNamespace(
        tag_key=bytes(32), appliance="a", origin="0" * 32, attempt=1, warn=lambda *_: None
    )
    source = SimpleNamespace(image=SimpleNamespace(size=size, info=SimpleNamespace(warnings=())))
    args = SimpleNamespace(path="golden.vhdx", target=REFS[kind]("golden"), if_exists="fail")
    return spec_for(job, args, source, RULES[kind].transfer).padded_size


def test_every_kind_of_target_has_rules_with_their_sources() -> None:
    assert RULES.keys() == REFS.keys()
    assert all(rules.sources for rules in RULES.values())


@pytest.mark.parametrize("kind", RULES)
def test_the_largest_disk_is_taken_and_the_next_larger_one_is_not(kind: str) -> None:
    limits = RULES[kind].transfer
    most = limits.max_size // limits.granularity * limits.granularity
    assert padded(kind, most) == most
    with pytest.raises(SizeUnsupported, match=str(limits.max_size)):
        padded(kind, limits.max_size + 512)


@pytest.mark.parametrize("kind", RULES)
def test_sizes_are_padded_to_the_targets_unit_and_never_cut(kind: str) -> None:
    limits = RULES[kind].transfer
    for size in (512, limits.granularity, limits.granularity + 512, 5 * GiB - 512, 5 * GiB):
        found = padded(kind, size)
        assert found >= max(size, limits.min_size)
        assert found % limits.granularity == 0
        assert found - limits.granularity < max(size, limits.min_size)


def test_known_edges_of_the_clouds() -> None:
    assert padded("azure-disk", 512) + 512 == 20_972_032 == 20 * MiB + 512
    assert padded("aws-snapshot", GiB + 512) == padded("gcp-image", GiB + 512) == 2 * GiB
    assert RULES["aws-snapshot"].transfer.chunk == 512 * KiB


@pytest.mark.parametrize("kind", RULES)
def test_the_longest_name_is_taken_and_a_longer_one_is_not(kind: str) -> None:
    most = RULES[kind].longest_name
    for length, taken in ((most, True), (most + 1, False)):
        ref = msgspec.to_builtins(REFS[kind]("a" * length))
        if taken:
            msgspec.convert(ref, type(REFS[kind]("golden")))
        else:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(ref, type(REFS[kind]("golden")))


@pytest.mark.parametrize("name", ["-golden", "golden/../x", "golden\n", "", "gol den!"])
@pytest.mark.parametrize("kind", ["azure-disk", "gcp-image"])
def test_names_that_the_clouds_refuse_never_leave_the_command_line(kind: str, name: str) -> None:
    ref = msgspec.to_builtins(REFS[kind](name))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(ref, type(REFS[kind]("golden")))
