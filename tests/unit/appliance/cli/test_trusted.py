"""A client believes the newest keys that it ever verified, and no relay leads it back."""

from pathlib import Path
from typing import Any

import pytest

from appliance.cli.evidence import BadEvidence
from appliance.cli.trusted import MANIFEST, Trust
from protocol.keys import KeyRing
from protocol.messages import Kind
from tests.support import protocol_world as w


def manifest(key: Any = w.ROOT, **changes: Any) -> bytes:
    return w.envelope(Kind.MANIFEST, w.manifest(**changes), key)


def record(key: Any = w.RECORD, **changes: Any) -> bytes:
    return w.envelope(Kind.RECORD, w.record(**changes), key)


RING = KeyRing.open(manifest(), root=w.ROOT.public)


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    return Trust(w.TENANT, w.ROOT.public, tmp_path / "records")


def test_the_first_of_both_is_believed_and_kept(trust: Trust) -> None:
    ring = trust.ring(manifest())
    assert trust.record(ring, w.APPLIANCE, record()) == w.record()
    assert trust.folder is not None
    assert (trust.folder / MANIFEST).read_bytes() == manifest()
    assert (trust.folder / w.APPLIANCE).read_bytes() == record()
    assert len(list(trust.folder.iterdir())) == 2


def test_newer_ones_take_their_place_and_older_ones_have_no_say(trust: Trust) -> None:
    for serial in (1, 2, 1):
        ring = trust.ring(manifest(serial=serial))
        found = trust.record(ring, w.APPLIANCE, record(serial=serial))
    assert ring.manifest.serial == 2
    assert found.serial == 2


def test_two_of_one_serial_are_an_error(trust: Trust) -> None:
    ring = trust.ring(manifest())
    trust.record(ring, w.APPLIANCE, record())
    with pytest.raises(BadEvidence, match="serial"):
        trust.ring(manifest(keys=w.manifest().keys[:-1]))
    with pytest.raises(BadEvidence, match="serial"):
        trust.record(ring, w.APPLIANCE, record(device_key=w.OTHER_DEVICE.public))


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    trust = Trust(w.TENANT, w.ROOT.public, None)
    assert trust.record(trust.ring(manifest()), w.APPLIANCE, record()) == w.record()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "offered", [b"", manifest(w.key_of("other root"))], ids=["empty", "other root"]
)
def test_a_manifest_of_another_root_is_refused_and_not_kept(trust: Trust, offered: bytes) -> None:
    with pytest.raises(BadEvidence, match="manifest"):
        trust.ring(offered)
    assert trust.folder is not None
    assert not trust.folder.exists()


@pytest.mark.parametrize(
    "offered",
    [
        b"",
        record(w.key_of("other record key")),
        record(id="site-2"),
        record(tenant="other"),
    ],
    ids=["empty", "record key", "appliance", "tenant"],
)
def test_a_record_that_is_not_proven_is_refused_and_not_kept(trust: Trust, offered: bytes) -> None:
    with pytest.raises(BadEvidence, match="record"):
        trust.record(RING, w.APPLIANCE, offered)
    assert trust.folder is not None
    assert not trust.folder.exists()


@pytest.mark.parametrize("name", ["../other", ".manifest", "", "a/b", "A"])
def test_a_name_that_would_lead_elsewhere_is_refused(trust: Trust, name: str) -> None:
    with pytest.raises(BadEvidence, match="name"):
        trust.record(RING, name, record(id="site-1"))


def test_a_kept_record_that_is_not_proven_any_more_has_no_say(trust: Trust) -> None:
    assert trust.folder is not None
    trust.folder.mkdir()
    (trust.folder / w.APPLIANCE).write_bytes(record(w.key_of("record key of old"), serial=9))
    assert trust.record(RING, w.APPLIANCE, record()) == w.record()
