"""Limits of each target as data: sizes, units, names and patience, each with where it is written. Decides nothing.

Evidence as everywhere: I seen by an independent judge, M only from documents or memory. tests/unit/agent/targets/
test_limits.py tries both sides of every edge.
"""

from dataclasses import dataclass

from agent.targets.base import TargetLimits
from imaging.units import GiB, KiB, MiB, TiB

FOOTER = 512
"""Bytes behind a fixed VHD."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one kind of target takes.

    Attributes:
        transfer: Sizes and requests, as the engine uses them.
        longest_name: Letters of a name; `new-version` may add up to five.
        unfinished_s: Seconds that the service keeps what is not finished; None: until somebody deletes it.
        sources: Where each rule is written.
    """

    transfer: TargetLimits
    longest_name: int
    unfinished_s: int | None
    sources: tuple[str, ...]


RULES = {
    "local": Rules(
        TargetLimits(
            chunk=4 * MiB,
            alignment=512,
            granularity=512,
            min_size=512,
            max_size=64 * TiB,
            inflight_start=4,
            inflight_max=8,
        ),
        longest_name=80,
        unfinished_s=None,
        sources=("of our own",),
    ),
    "azure-disk": Rules(
        TargetLimits(
            chunk=4 * MiB,
            alignment=512,
            granularity=1 * MiB,
            min_size=20_972_032 - FOOTER,
            max_size=35_183_298_347_520 - FOOTER,
            inflight_start=8,
            inflight_max=16,
            least_put=64 * KiB,
        ),
        longest_name=80,
        unfinished_s=None,
        sources=(
            "M: REST reference of Disks, CreationData.uploadSizeBytes: 20972032 to 35183298347520, footer included",
            "M: REST reference of Put Page: 4 MiB a write, 512-byte pages",
            "M: Prepare a VHD: whole MiB",
            "M: azure-vhd-utils 52: 503 storms end with 8 writes at a time",
        ),
    ),
    "azure-page-blob": Rules(
        TargetLimits(
            chunk=4 * MiB,
            alignment=512,
            granularity=1 * MiB,
            min_size=1 * MiB,
            max_size=8 * TiB - MiB,
            inflight_start=8,
            inflight_max=16,
            least_put=64 * KiB,
        ),
        longest_name=255,
        unfinished_s=None,
        sources=(
            "M: REST reference of Put Blob: a page blob of up to 8 TiB, the VHD's footer included",
            "M: REST reference of Put Page: 4 MiB a write, 512-byte pages",
        ),
    ),
    "aws-snapshot": Rules(
        TargetLimits(
            chunk=512 * KiB,
            alignment=512 * KiB,
            granularity=1 * GiB,
            min_size=1 * GiB,
            max_size=64 * TiB,
            inflight_start=16,
            inflight_max=64,
        ),
        longest_name=120,
        unfinished_s=4320 * 60,
        sources=(
            "I: botocore's model of ebs: VolumeSize 1 to 65536 GiB, Timeout 10 to 4320 minutes",
            "M: EBS direct APIs: blocks of 524288 bytes; AWS reckons with 100 ms a put",
            "M: RegisterImage: names of 3 to 128 letters",
        ),
    ),
    "aws-s3": Rules(
        TargetLimits(
            chunk=8 * MiB,
            alignment=1,
            granularity=512,
            min_size=1 * MiB,
            max_size=2 * TiB - GiB,
            inflight_start=4,
            inflight_max=8,
        ),
        longest_name=120,
        unfinished_s=None,
        sources=(
            "I: a sparse VMDK names places in itself by 32-bit sector numbers: 2 TiB, some of it for tables",
            "M: S3 multipart upload: parts of 5 MiB to 5 GiB but the last, at most 10,000",
            "M: VM Import/Export requirements: stream-optimized VMDK; a disk of 1 MiB at least",
            "M: RegisterImage: names of 3 to 128 letters",
        ),
    ),
    "gcp-image": Rules(
        TargetLimits(
            chunk=8 * MiB,
            alignment=1,
            granularity=1 * GiB,
            min_size=1 * GiB,
            max_size=64 * TiB,
            inflight_start=4,
            inflight_max=8,
        ),
        longest_name=59,
        unfinished_s=None,
        sources=(
            "M: Manually import boot disks: disk.raw of whole GiB",
            "M: XML API multipart uploads: parts of 5 MiB or more but the last, at most 10,000",
            "M: images.insert: names of 1 to 63 letters",
        ),
    ),
}
