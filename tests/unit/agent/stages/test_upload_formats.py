"""The upload stage takes every format that imaging reads, with the files that belong to it, as one disk."""

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from agent.stages.upload import UploadStage
from imaging.errors import ReferenceRefused
from imaging.formats import FORMATS
from imaging.units import MiB
from protocol.ops import LocalShare, LocalTarget, UploadArgs
from tests.support.disks import DynamicVhd, Vhdx, pattern, root_of
from tests.support.qcow2_images import Qcow2, deflated
from tests.support.stage_jobs import config_for, make_job
from tests.support.vmdks import GRAIN, StreamVmdk, descriptor, ova

SIZE = 3 * MiB
DISK = pattern(SIZE, 5)
SECTORS = SIZE // 512
GRAINS = {number: DISK[number * GRAIN : (number + 1) * GRAIN] for number in range(SIZE // GRAIN)}
BLOCKS = {number: DISK[number * MiB : (number + 1) * MiB] for number in range(3)}
CLUSTERS = {number: DISK[number * 4096 : (number + 1) * 4096] for number in range(256, 768)}

IMAGES: dict[str, tuple[str, dict[str, bytes]]] = {
    "raw": ("raw", {"a.raw": DISK}),
    "vhd": ("vhd", {"a.vhd": DynamicVhd(SIZE, BLOCKS, block_size=MiB).build()}),
    "vhdx": ("vhdx", {"a.vhdx": Vhdx(SIZE, BLOCKS).build()}),
    "qcow2 over raw": (
        "qcow2",
        {
            "a.qcow2": Qcow2(
                SIZE,
                {n: c for n, c in CLUSTERS.items() if n % 2},
                {n: deflated(c) for n, c in CLUSTERS.items() if not n % 2},
                backing=b"base",
                backing_format=b"raw",
            ).build(),
            "base": DISK[:MiB] + bytes(2 * MiB),
        },
    ),
    "vmdk in two files": (
        "vmdk",
        {
            "a.vmdk": descriptor(
                f'RW {SECTORS // 3} FLAT "one.vmdk" 0',
                f'RW {SECTORS - SECTORS // 3} FLAT "two.vmdk" 0',
            ).encode(),
            "one.vmdk": DISK[:MiB],
            "two.vmdk": DISK[MiB:],
        },
    ),
    "stream in an ova": ("ova", {"a.ova": ova(StreamVmdk(SIZE, GRAINS).build())}),
}


def job(tmp_path: Path, files: dict[str, bytes], path: str, form: str | None):
    share, cloud = tmp_path / "share", tmp_path / "cloud"
    for folder in (share / "store", cloud):
        folder.mkdir(parents=True)
    for name, content in files.items():
        (share / "store" / name).write_bytes(content)
    args = UploadArgs(
        source=LocalShare(name="disks"),
        path=f"store/{path}",
        target=LocalTarget(name="cloud", disk="golden"),
        format=form,
    )
    return make_job(args, config_for(share=share, target=cloud))


def test_a_job_may_name_exactly_what_imaging_reads():
    field = next(one for one in msgspec.structs.fields(UploadArgs) if one.name == "format")
    named, _none = get_args(field.type)
    assert set(get_args(named)) == set(FORMATS)


@pytest.mark.parametrize("said", [True, False], ids=["said", "probed"])
@pytest.mark.parametrize("form", IMAGES)
async def test_it_becomes_the_same_disk(tmp_path, form, said):
    name, files = IMAGES[form]
    outcome = await UploadStage().run(
        job(tmp_path, files, next(iter(files)), name if said else None)
    )
    assert (tmp_path / "cloud" / "golden.raw").read_bytes() == DISK
    assert outcome.root == root_of(DISK)
    assert outcome.report["source"]["format"] == name


async def test_a_raw_disk_whose_guest_wrote_a_header_does_not_read_its_neighbours(tmp_path):
    trap = Qcow2(MiB, backing=b"secret", backing_format=b"raw").build()
    made = job(tmp_path, {"golden.raw": trap, "secret": pattern(MiB, 1)}, "golden.raw", None)
    with pytest.raises(ReferenceRefused, match="secret"):
        await UploadStage().run(made)
    assert list((tmp_path / "cloud").iterdir()) == []
