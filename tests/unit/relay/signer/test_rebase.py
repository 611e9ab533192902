"""Restores, forks, revoked keys, poison: the line is locked, an epoch re-bases it, no order is lost or doubled."""

import json
import sqlite3
from dataclasses import replace

import pytest

from protocol.acceptor import Accept, Refuse
from protocol.codec import decode
from protocol.ids import digest_of
from protocol.issuer import INVENTORY_WANTED
from protocol.messages import MAX_COMMAND, MAX_EPOCH_ORDER, Kind
from protocol.ops import CancelArgs
from protocol.signed import SigningKey, parse_envelope, sign
from relay.signer import appliances, orders
from relay.signer.authority import Effects, trusted_ring
from relay.signer.renewal import Renewed, renew
from relay.signer.schema import migrate
from tests.support.signer_device import Device
from tests.support.signer_kit import Kit, make_kit, manifest_of


@pytest.fixture
def kit() -> Kit:
    return make_kit()


def _reason(kit: Kit, device: Device) -> str:
    response = kit.call("POST", "/v1/jobs", kit.spec(device))
    return str(json.loads(response.body).get("reason", response.status))


def _restore(kit: Kit, copy: bytes) -> None:
    """Put an older copy of the database back, as after a disk failure."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.deserialize(copy)
    conn.row_factory = sqlite3.Row
    migrate(conn)
    kit.conn = conn


def _copy(kit: Kit) -> bytes:
    return kit.conn.serialize()


def _settle(kit: Kit, device: Device) -> None:
    device.take_epoch(kit.epoch_order(device))
    device.inventory()
    kit.now_ms += 1000


def test_a_restored_signer_is_locked_by_the_hello_and_re_based(kit: Kit) -> None:
    device = kit.enrol()
    device.take(kit.envelope(kit.order(device)))
    device.ack()
    copy = _copy(kit)
    lost = kit.order(device)
    device.take(kit.envelope(lost))
    device.ack()
    _restore(kit, copy)
    assert _reason(kit, device) == "signer.unchecked"
    assert device.hello().replay == {device.id}
    kit.now_ms += 1
    assert _reason(kit, device) == INVENTORY_WANTED
    _settle(kit, device)
    job = kit.order(device)
    assert (job["epoch"], job["seq"]) == (2, 1)
    assert isinstance(device.take(kit.envelope(job)), Accept)


def test_no_number_is_ever_signed_twice_over_a_restore(kit: Kit) -> None:
    device = kit.enrol()
    copy = _copy(kit)
    before = {(job["epoch"], job["seq"]) for job in (kit.order(device) for _ in range(3))}
    for row in kit.conn.execute("SELECT env FROM envelopes ORDER BY seq").fetchall():
        device.take(row["env"])
    _restore(kit, copy)
    device.hello()
    _settle(kit, device)
    after = {(job["epoch"], job["seq"]) for job in (kit.order(device) for _ in range(3))}
    assert before.isdisjoint(after)


def test_the_result_of_an_order_that_a_restored_signer_lost_is_kept(kit: Kit) -> None:
    device = kit.enrol()
    copy = _copy(kit)
    lost = kit.order(device)
    device.take(kit.envelope(lost))
    _restore(kit, copy)
    device.hello()
    _settle(kit, device)
    device.result(lost)
    assert kit.line(device).results == 1


def test_requests_from_before_a_restore_are_not_taken_again(kit: Kit) -> None:
    device = kit.enrol()
    copy = _copy(kit)
    request = kit.signed("POST", "/v1/jobs", kit.spec(device))
    kit.send(request)
    device.take(kit.conn.execute("SELECT env FROM envelopes").fetchone()["env"])
    _restore(kit, copy)
    kit.now_ms += 1000
    device.hello()
    _settle(kit, device)
    assert json.loads(kit.send(request).body)["code"] == "signer.replay"
    kit.now_ms += 1
    assert kit.call("POST", "/v1/jobs", kit.spec(device)).status == 202


def test_a_journal_that_lost_commands_is_re_based_and_its_lost_ones_closed(kit: Kit) -> None:
    device = kit.enrol()
    old = replace(device.inbox_state)
    job = kit.order(device)
    device.take(kit.envelope(job))
    device.ack()
    device.state, device.inbox, device.ids = old, {}, {}  # yesterday's disk
    device.hello()
    assert _reason(kit, device) == "appliance.journal-behind"
    device.state = replace(device.inbox_state, locked="appliance.journal-behind")
    device.inventory()
    _settle(kit, device)
    assert (kit.job(job)["state"], kit.job(job)["code"]) == ("failed", "appliance.journal-behind")
    assert isinstance(device.take(kit.envelope(kit.order(device))), Accept)


def test_what_a_relay_kept_raises_no_epoch_when_the_signer_attaches_again(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    device.nack(bytes.fromhex(job["digest"]), "protocol.bad-field")
    device.take_epoch(kit.epoch_order(device))
    kept = device.inventory_env()
    kit.hear("inventory", device, kept)
    device.take(kit.envelope(kit.job(job)))
    device.ack()
    assert kit.line(device).seen == (2, 1)
    device.hello()
    kit.hear("ack", device, device.ack_env())
    kit.hear("inventory", device, kept)
    assert kit.line(device).head.epoch == 2
    assert kit.call("POST", "/v1/jobs", kit.spec(device)).status == 202


def test_a_replayed_old_hello_only_delays(kit: Kit) -> None:
    device = kit.enrol()
    stale = device.hello_env()
    device.take(kit.envelope(kit.order(device)))
    device.ack()
    kit.hear("hello", device, stale)
    assert _reason(kit, device) == "appliance.journal-behind"
    device.hello()
    assert kit.call("POST", "/v1/jobs", kit.spec(device)).status == 202
    assert kit.line(device).head.epoch == 1


@pytest.mark.parametrize("refused", [0, 2], ids=["the next", "one behind it"])
def test_a_poison_envelope_is_gone_around_and_every_order_arrives(kit: Kit, refused: int) -> None:
    device = kit.enrol()
    jobs = [kit.order(device) for _ in range(3)]
    device.nack(bytes.fromhex(jobs[refused]["digest"]), "protocol.bad-field")
    _settle(kit, device)
    again = [kit.job(job) for job in jobs]
    assert [(job["epoch"], job["seq"]) for job in again] == [(2, 1), (2, 2), (2, 3)]
    verdicts = [device.take(kit.envelope(job)) for job in again]
    assert [v.command.id.hex() for v in verdicts if isinstance(v, Accept)] == [
        job["id"] for job in jobs
    ]


def test_a_nack_for_bytes_that_we_never_signed_moves_nothing(kit: Kit) -> None:
    device = kit.enrol()
    kit.order(device)
    device.nack(digest_of(b"planted by the relay"), "protocol.bad-signature")
    assert kit.line(device).head.epoch == 1


def test_a_cancel_that_is_signed_again_names_its_targets_new_digest(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    cancel = json.loads(kit.call("POST", f"/v1/jobs/{job['id']}/cancel").body)
    device.nack(bytes.fromhex(job["digest"]), "protocol.bad-field")
    _settle(kit, device)
    first, second = kit.job(job), kit.job(cancel)
    device.take(kit.envelope(first))
    verdict = device.take(kit.envelope(second))
    assert isinstance(verdict, Accept)
    args = decode(verdict.command.args, CancelArgs, limit=MAX_COMMAND)
    assert args.digest.hex() == first["digest"]


def test_an_order_that_ended_meanwhile_is_closed_not_signed_again(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device, valid_s=60)
    kit.now_ms += 61_000
    device.nack(bytes.fromhex(job["digest"]), "protocol.bad-field")
    _settle(kit, device)
    shown = kit.job(job)
    assert (shown["state"], shown["code"]) == ("refused", "protocol.expired")


def _manifest(kit: Kit, *, serial: int, revoked: tuple[str, ...]) -> bytes:
    return sign(Kind.MANIFEST, manifest_of(kit.signing, serial=serial, revoked=revoked), kit.root)


def test_a_revoked_keys_queued_orders_are_signed_again_with_another_key(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    row = kit.conn.execute("SELECT kid FROM envelopes").fetchone()
    names = {key.kid: name for name, key in kit.signing.items()}
    revoked = names[bytes(row["kid"])]  # type: ignore[index]
    response = kit.local("PUT", "/v1/manifest", _manifest(kit, serial=2, revoked=(revoked,)))
    assert json.loads(response.body) == {"serial": 2, "raised": [device.id], "signed_again": []}
    assert kit.effects.manifest
    _settle(kit, device)
    assert isinstance(device.take(kit.envelope(kit.job(job))), Accept)


def _revoke_key_of(kit: Kit, device: Device) -> dict[str, object]:
    """Revoke the key under which the newest epoch order was signed."""
    kid = parse_envelope(kit.epoch_order(device), limit=MAX_EPOCH_ORDER).k
    (name,) = (name for name, key in kit.signing.items() if key.kid == kid)
    response = kit.local("PUT", "/v1/manifest", _manifest(kit, serial=2, revoked=(name,)))
    assert response.status == 200, response.body
    return dict(json.loads(response.body))


def test_an_open_epoch_order_under_a_revoked_key_is_signed_again_with_another(kit: Kit) -> None:
    device = kit.enrol()
    assert kit.local("POST", f"/v1/appliances/{device.id}/raise-epoch").status == 200
    before = kit.epoch_order(device)
    assert _revoke_key_of(kit, device) == {"serial": 2, "raised": [], "signed_again": [device.id]}
    assert kit.effects.replay == {device.id}
    after = kit.epoch_order(device)
    digests = {parse_envelope(env, limit=MAX_EPOCH_ORDER).digest for env in (before, after)}
    assert len(digests) == 1
    assert kit.line(device).head.epoch == 2
    _settle(kit, device)
    assert isinstance(device.take(kit.envelope(kit.order(device))), Accept)


def test_an_appliance_that_took_the_order_before_its_key_was_revoked_sees_it_again(
    kit: Kit,
) -> None:
    device = kit.enrol()
    assert kit.local("POST", f"/v1/appliances/{device.id}/raise-epoch").status == 200
    device.take_epoch(kit.epoch_order(device))
    _revoke_key_of(kit, device)
    _settle(kit, device)
    assert isinstance(device.take(kit.envelope(kit.order(device))), Accept)


def test_an_answered_epoch_order_is_signed_again_too_because_the_relay_gets_it_first(
    kit: Kit,
) -> None:
    device = kit.enrol()
    assert kit.local("POST", f"/v1/appliances/{device.id}/raise-epoch").status == 200
    _settle(kit, device)
    assert _revoke_key_of(kit, device)["signed_again"] == [device.id]
    device.take_epoch(kit.epoch_order(device))


def test_what_a_manifest_from_the_configured_file_revokes_is_renewed_at_start(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    names = {key.kid: name for name, key in kit.signing.items()}
    revoked = names[parse_envelope(kit.envelope(job), limit=MAX_COMMAND).k]
    offered = _manifest(kit, serial=2, revoked=(revoked,))
    root = kit.authority.ring.root
    kit.authority.ring = kit.run(
        lambda conn: trusted_ring(conn, root=root, configured=offered, at=kit.now_ms)
    )
    done = kit.run(lambda conn: renew(conn, kit.authority, effects=Effects()))
    assert done == Renewed([device.id], [])
    assert kit.run(lambda conn: renew(conn, kit.authority, effects=Effects())) == Renewed([], [])
    _settle(kit, device)
    assert isinstance(device.take(kit.envelope(kit.job(job))), Accept)


def test_without_another_command_key_a_revocation_counts_all_the_same(kit: Kit) -> None:
    device = kit.enrol()
    assert kit.local("POST", f"/v1/appliances/{device.id}/raise-epoch").status == 200
    both = ("command", "command-2")
    response = kit.local("PUT", "/v1/manifest", _manifest(kit, serial=2, revoked=both))
    assert (response.status, json.loads(response.body)["signed_again"]) == (200, [])
    assert kit.authority.ring.manifest.serial == 2
    kit.signing["command-3"] = SigningKey.generate()
    kit.authority.keys.signing[kit.signing["command-3"].public] = kit.signing["command-3"]
    response = kit.local("PUT", "/v1/manifest", _manifest(kit, serial=3, revoked=both))
    assert json.loads(response.body)["signed_again"] == [device.id]
    _settle(kit, device)
    assert isinstance(device.take(kit.envelope(kit.order(device))), Accept)


def test_records_of_a_revoked_key_are_signed_again_with_another(kit: Kit) -> None:
    device = kit.enrol()
    other = kit.signing["record-2"] = SigningKey.generate()
    kit.authority.keys.signing[other.public] = other
    response = kit.local("PUT", "/v1/manifest", _manifest(kit, serial=2, revoked=("record",)))
    assert json.loads(response.body) == {"serial": 2, "raised": [], "signed_again": [device.id]}
    assert kit.effects.replay == {device.id}
    record = appliances.get(kit.conn, device.id).record
    assert kit.authority.ring.open_record(record) == device.record
    assert isinstance(device.take(kit.envelope(kit.order(device))), Accept)


def test_an_older_manifest_or_one_of_another_root_is_refused(kit: Kit) -> None:
    assert kit.local("PUT", "/v1/manifest", _manifest(kit, serial=2, revoked=())).status == 200
    assert kit.local("PUT", "/v1/manifest", _manifest(kit, serial=1, revoked=())).status == 403
    kit.root = type(kit.root).generate()
    assert kit.local("PUT", "/v1/manifest", _manifest(kit, serial=3, revoked=())).status == 403


def test_an_administrators_epoch_waits_for_its_answer_before_the_next(kit: Kit) -> None:
    device = kit.enrol()
    assert kit.local("POST", f"/v1/appliances/{device.id}/raise-epoch").status == 200
    again = kit.local("POST", f"/v1/appliances/{device.id}/raise-epoch")
    assert json.loads(again.body)["code"] == "signer.not-raisable"
    _settle(kit, device)
    assert kit.call("POST", "/v1/jobs", kit.spec(device)).status == 202


def test_an_appliance_that_states_nonsense_does_not_fill_the_database(kit: Kit) -> None:
    device = kit.enrol()
    for number in range(60):
        device.hello(epoch=100 + number)
    (count,) = kit.conn.execute("SELECT count(*) FROM epochs").fetchone()
    assert count == 20
    assert kit.line(device).blocked


def test_without_a_command_key_the_line_stays_locked_and_opens_with_one(kit: Kit) -> None:
    device = kit.enrol()
    keys, kit.authority.keys = (
        kit.authority.keys,
        replace(
            kit.authority.keys,
            signing={
                pub: key
                for pub, key in kit.authority.keys.signing.items()
                if key.public
                not in {kit.signing["command"].public, kit.signing["command-2"].public}
            },
        ),
    )
    device.hello(have=7)
    assert kit.line(device).locked == "signer.behind"
    kit.authority.keys = keys
    device.hello(have=7)
    assert kit.line(device).offer is not None


def test_an_envelope_cannot_be_altered_or_signed_anew_under_its_number(kit: Kit) -> None:
    device = kit.enrol()
    kit.order(device)
    with pytest.raises(sqlite3.IntegrityError, match="signed once"):
        kit.conn.execute("UPDATE envelopes SET env = x'00'")
    with pytest.raises(sqlite3.IntegrityError, match="are kept"):
        kit.conn.execute("DELETE FROM envelopes")
    signed = orders.envelopes_from(kit.conn, device.id, 1, 1, limit=9)
    assert len(signed) == 1


def test_a_refused_command_still_moves_the_chain(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device, valid_s=1)
    kit.now_ms += 5000
    assert isinstance(device.take(kit.envelope(job)), Refuse)
    device.ack()
    assert isinstance(device.take(kit.envelope(kit.order(device))), Accept)
