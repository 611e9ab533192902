"""A key that left the key manifest is no better than a revoked one: what it signed and still matters is signed anew."""

import json

import pytest

from protocol.acceptor import Accept
from protocol.messages import MAX_COMMAND, MAX_EPOCH_ORDER, MAX_STATEMENT, Kind
from protocol.signed import SigningKey, parse_envelope, sign
from relay.signer import appliances
from tests.support.signer_device import Device
from tests.support.signer_kit import Kit, make_kit, manifest_of


@pytest.fixture
def kit() -> Kit:
    kit = make_kit()
    spare = kit.signing["record-2"] = SigningKey.generate()
    kit.authority.keys.signing[spare.public] = spare
    return kit


def _drop_key(kit: Kit, kid: bytes) -> dict[str, object]:
    """Put a manifest in force that does not list this key any more."""
    rest = {name: key for name, key in kit.signing.items() if key.kid != kid}
    assert len(rest) == len(kit.signing) - 1
    manifest = sign(Kind.MANIFEST, manifest_of(rest, serial=2), kit.root)
    response = kit.local("PUT", "/v1/manifest", manifest)
    assert response.status == 200, response.body
    return dict(json.loads(response.body))


def _settle(kit: Kit, device: Device) -> None:
    device.take_epoch(kit.epoch_order(device))
    device.inventory()
    kit.now_ms += 1000


def test_an_epoch_order(kit: Kit) -> None:
    device = kit.enrol()
    assert kit.local("POST", f"/v1/appliances/{device.id}/raise-epoch").status == 200
    before = parse_envelope(kit.epoch_order(device), limit=MAX_EPOCH_ORDER)
    done = _drop_key(kit, before.k)
    after = parse_envelope(kit.epoch_order(device), limit=MAX_EPOCH_ORDER)
    assert (done["raised"], done["signed_again"]) == ([], [device.id])
    assert (after.p, after.k != before.k) == (before.p, True)


def test_a_record(kit: Kit) -> None:
    device = kit.enrol()
    record = appliances.get(kit.conn, device.id).record
    done = _drop_key(kit, parse_envelope(record, limit=MAX_STATEMENT).k)
    assert done["signed_again"] == [device.id]
    proven = kit.authority.ring.open_record(appliances.get(kit.conn, device.id).record)
    assert proven.id == device.id


def test_a_queued_order(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    done = _drop_key(kit, parse_envelope(kit.envelope(job), limit=MAX_COMMAND).k)
    assert done["raised"] == [device.id]
    _settle(kit, device)
    assert isinstance(device.take(kit.envelope(kit.job(job))), Accept)
