"""What may start: keys, predecessors, last moments."""

from typing import Any

import msgspec
import pytest

from agent.journal.jobs import Job
from agent.schedule import Candidate, Verdict, claims_of, judge_start
from agent.trust import Clocks, Trust
from protocol.clock import SignedClock
from protocol.codec import encode
from protocol.jobs import State
from protocol.messages import Command, Revocation
from protocol.ops import (
    AzureDisk,
    AzureGallery,
    AzurePageBlob,
    LocalShare,
    LocalTarget,
    TargetRef,
    UploadArgs,
)
from tests.support import protocol_world as w

NOW = w.T0 + w.HOUR_MS


def _job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "digest": b"d" * 32, "id": b"i" * 16, "epoch": 1, "seq": 1, "kid": w.COMMAND.kid,
        "op": "upload", "workflow": None, "state": State.ACCEPTED, "exp": NOW + 1000,
        "start_by": None, "accepted": NOW, "started": None, "attempt": 0, "checkpoint_attempt": 0,
        "origin": b"i" * 16, "retried": False, "no_return": False, "code": "",
    }  # fmt: skip
    return Job(**{**fields, **changes})


def _trust(*, fresh: bool = True, revoked: bool = False, **changes: Any) -> Trust:
    rows = list(w.manifest().keys)
    if revoked:
        revocation = Revocation(since=w.T0, running="finish")
        rows[0] = msgspec.structs.replace(rows[0], revoked=revocation)
    clock = w.fresh_clock(NOW) if fresh else SignedClock(floor=changes.pop("floor", 0))
    clocks = Clocks(boot=lambda: 0.0, wall=lambda: 0.0, mono=lambda: 0.0)
    return Trust(
        w.ring(w.manifest(keys=tuple(rows))), clock, clocks, changes.pop("accept_unproven", False)
    )


@pytest.mark.parametrize(
    ("job", "predecessors", "trust", "expected"),
    [
        ({}, (), {}, Verdict.START),
        ({}, (State.SUCCEEDED,), {}, Verdict.START),
        ({}, (State.SUCCEEDED, State.RUNNING), {}, Verdict.WAIT),
        ({}, (None,), {}, Verdict.WAIT),
        ({}, (State.SUCCEEDED, State.FAILED), {}, "job.predecessor-failed"),
        ({}, (State.CANCELLED,), {}, "job.predecessor-cancelled"),
        ({}, (State.REFUSED,), {}, "job.predecessor-refused"),
        ({"start_by": NOW - 1}, (None,), {}, "job.start-by"),
        ({"start_by": NOW + 1}, (None,), {}, Verdict.WAIT),
        ({"exp": NOW - 1}, (), {}, "protocol.expired"),
        ({}, (), {"revoked": True}, "protocol.key-revoked"),
        ({"kid": b"k" * 16}, (), {}, "protocol.key-revoked"),
        ({}, (), {"fresh": False}, Verdict.WAIT),
        ({}, (), {"fresh": False, "accept_unproven": True}, Verdict.START),
        ({}, (), {"fresh": False, "floor": NOW + 5000}, "protocol.expired"),
    ],
)
def test_each_rule(
    job: dict[str, Any],
    predecessors: tuple[State | None, ...],
    trust: dict[str, Any],
    expected: str,
) -> None:
    assert judge_start(Candidate(_job(**job), predecessors), _trust(**trust)) == expected


def _upload(target: TargetRef) -> Command:
    args = UploadArgs(source=LocalShare(name="images"), path="a.vhdx", target=target)
    return w.command(op="upload", args=encode(args))


DISK = AzureDisk(subscription="s-1", resource_group="Images", location="west", disk="golden")
BLOB = AzurePageBlob(endpoint="https://a.blob.example", container="vhds", blob="golden.vhd")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DISK, msgspec.structs.replace(DISK, resource_group="images", sku="Premium_LRS")),
        (BLOB, msgspec.structs.replace(BLOB, endpoint="https://a.blob.example/")),
        (BLOB, msgspec.structs.replace(BLOB, endpoint="https://a.blob.example:443")),
        (BLOB, msgspec.structs.replace(BLOB, endpoint="https://A.Blob.example:443/")),
        (LocalTarget(name="disks", disk="d"), LocalTarget(name="disks", disk="d")),
    ],
    ids=["azure-disk", "slash", "default-port", "case-port-slash", "local"],
)
def test_one_disk_is_one_claim_whatever_else_is_ordered(one: TargetRef, other: TargetRef) -> None:
    assert claims_of(_upload(one)) == claims_of(_upload(other)) != frozenset()


def test_disks_that_become_versions_of_one_image_share_a_claim() -> None:
    gallery = AzureGallery(name="golden", image="win11", version="1.0.0")
    version = msgspec.structs.replace(DISK, result="image-version", gallery=gallery)
    next_one = msgspec.structs.replace(
        version,
        disk="other",
        gallery=msgspec.structs.replace(gallery, version="2.0.0", image="Win11"),
    )
    assert claims_of(_upload(version)) & claims_of(_upload(DISK))  # one disk
    assert claims_of(_upload(version)) & claims_of(_upload(next_one))  # one image
    assert not claims_of(_upload(DISK)) & claims_of(_upload(next_one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DISK, msgspec.structs.replace(DISK, disk="golden-2")),
        (DISK, msgspec.structs.replace(DISK, subscription="s-2")),
        (BLOB, msgspec.structs.replace(BLOB, container="other")),
        (BLOB, msgspec.structs.replace(BLOB, endpoint="https://a.blob.example:8443")),
        (BLOB, msgspec.structs.replace(BLOB, endpoint="https://a.blob.example/account-2")),
        (LocalTarget(name="disks", disk="d"), LocalTarget(name="disks", disk="e")),
    ],
)
def test_other_disks_are_other_claims(one: TargetRef, other: TargetRef) -> None:
    assert claims_of(_upload(one)) != claims_of(_upload(other))


def test_an_endpoint_that_is_none_is_left_to_its_target() -> None:
    """Judging what may start must not fail for one order that nobody can do."""
    assert claims_of(_upload(msgspec.structs.replace(BLOB, endpoint="https://[a:443/")))


@pytest.mark.parametrize("changes", [{}, {"args_v": 9}, {"op": "upload", "args": b""}])
def test_a_job_that_writes_nowhere_claims_nothing(changes: dict[str, Any]) -> None:
    assert claims_of(w.command(**changes)) == frozenset()
