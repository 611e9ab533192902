import json
from collections.abc import Callable

import pytest

from protocol.acceptor import Accept
from protocol.codec import decode
from protocol.control import Statement
from protocol.ids import digest_of
from protocol.messages import MAX_STATEMENT, Ack, Kind, Receipt, Result, Time
from protocol.signed import SigningKey, parse_envelope, seal_envelope, sign
from relay.signer import audit
from relay.signer.errors import BadStatement
from relay.signer.statements import answer_time, hear, sign_receipt
from tests.support.signer_device import TENANT, Device
from tests.support.signer_kit import Kit, make_kit


@pytest.fixture
def kit() -> Kit:
    return make_kit()


def _finished(kit: Kit, device: Device, count: int = 1) -> list[dict[str, object]]:
    jobs = [kit.order(device) for _ in range(count)]
    for job in jobs:
        assert isinstance(device.take(kit.envelope(job)), Accept)
    device.ack()
    return jobs


def _alarms(kit: Kit) -> list[str]:
    return [row["action"] for row in kit.conn.execute("SELECT action FROM audit ORDER BY n")]


# --- results ---


@pytest.mark.parametrize("forge", ["other-key", "other-kind", "bit", "other-tenant", "other-name"])
def test_a_forged_result_is_not_believed(kit: Kit, forge: str) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    env = device.result_env(job)
    payload = parse_envelope(env, limit=MAX_STATEMENT).p
    changed = {
        "other-key": lambda: seal_envelope(Kind.RESULT, payload, SigningKey.generate()),
        "other-kind": lambda: seal_envelope(Kind.EVENT, payload, device.key),
        "bit": lambda: env[:-40] + bytes([env[-40] ^ 1]) + env[-39:],
        "other-tenant": lambda: device.result_env(job, n=1, tenant="other"),
        "other-name": lambda: device.result_env(job, n=1, appliance="site-2"),
    }[forge]()
    with pytest.raises(BadStatement):
        kit.hear("result", device, changed)
    assert kit.job(job)["state"] == "accepted"
    assert kit.line(device).results == 0


def test_a_result_of_one_appliance_says_nothing_about_anothers_command(kit: Kit) -> None:
    victim, liar = kit.enrol(name="victim"), kit.enrol(name="liar")
    (job,) = _finished(kit, victim)
    liar.result(job)
    assert kit.job(job)["state"] == "accepted"


def test_a_report_that_the_relay_exchanged_is_refused_and_the_right_one_taken(kit: Kit) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    env = device.result_env(job, report_digest=digest_of(b'{"a": 1}'))
    with pytest.raises(BadStatement):
        kit.hear("result", device, env, b'{"a": 2}')
    with pytest.raises(BadStatement):
        kit.hear("result", device, env)
    kit.hear("result", device, env, b'{"a": 1}')
    assert kit.job(job)["result"]["report"] == '{"a": 1}'


def test_a_report_that_nobody_signed_is_not_kept(kit: Kit) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    kit.hear("result", device, device.result_env(job), b"planted")
    assert "report" not in kit.job(job)["result"]


def test_results_count_without_a_gap(kit: Kit) -> None:
    device = kit.enrol()
    first, second = _finished(kit, device, 2)
    one, two = device.result_env(first), device.result_env(second)
    kit.hear("result", device, two)
    assert kit.line(device).results == 0
    kit.hear("result", device, one)
    kit.hear("result", device, two)
    assert kit.line(device).results == 2
    assert [kit.job(job)["state"] for job in (first, second)] == ["succeeded"] * 2


def test_the_first_verified_result_stands_and_another_raises_the_alarm(kit: Kit) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    device.result(job)
    kit.hear("result", device, device.result_env(job, status="failed", code="disk.full"))
    assert kit.job(job)["state"] == "succeeded"
    assert "appliance.equivocation" in _alarms(kit)


def test_a_result_that_names_another_id_for_its_digest_does_not_stand(kit: Kit) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    kit.hear("result", device, device.result_env(job, id=bytes(16)))
    assert kit.job(job)["state"] == "accepted"
    assert kit.line(device).results == 1
    assert "appliance.equivocation" in _alarms(kit)


def test_a_receipt_says_once_what_is_durable_and_again_if_asked(kit: Kit) -> None:
    device = kit.enrol()
    for job in _finished(kit, device, 2):
        device.result(job)
    assert kit.effects.receipts == {device.id}
    first = kit.run(lambda conn: sign_receipt(conn, kit.authority, device.id))
    assert first is not None
    receipt = decode(parse_envelope(first.env, limit=MAX_STATEMENT).p, Receipt, limit=MAX_STATEMENT)
    assert (receipt.journal, receipt.n) == (device.inbox_state.journal, 2)
    assert kit.run(lambda conn: sign_receipt(conn, kit.authority, device.id)) is None
    again = kit.run(lambda conn: sign_receipt(conn, kit.authority, device.id, again=True))
    assert again is not None
    assert again.env == first.env


def test_the_next_command_carries_what_is_durable(kit: Kit) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    device.result(job)
    verdict = device.take(kit.envelope(kit.order(device)))
    assert isinstance(verdict, Accept)
    through = verdict.command.results_through
    assert through is not None
    assert (through.journal, through.n) == (device.inbox_state.journal, 1)


# --- hello, ack, time ---


def _times(kit: Kit) -> list[Time]:
    ring = kit.authority.ring
    found = []
    for item in kit.effects.outgoing:
        envelope = parse_envelope(item.env, limit=MAX_STATEMENT)
        ring.key(envelope, Kind.TIME, tenant=TENANT)
        found.append(decode(envelope.p, Time, limit=MAX_STATEMENT))
    return found


def test_a_hello_is_answered_with_the_time_at_once(kit: Kit) -> None:
    device = kit.enrol()
    _finished(kit, device, 3)
    device.hello()
    (time,) = _times(kit)
    assert (time.now, time.appliance, time.manifest_serial) == (kit.now_ms, device.id, 1)
    assert (time.epoch, time.seen) == (1, 3)
    assert time.nonce == device.nonces.to_bytes(16, "big")


def test_each_time_carries_another_link_and_the_returned_one_counts(kit: Kit) -> None:
    device = kit.enrol()
    links = []
    for number in range(3):
        out = kit.run(
            lambda conn, n=number: answer_time(
                conn, kit.authority, tenant=TENANT, appliance=device.id, nonce=bytes([n]) * 16
            )
        )
        envelope = parse_envelope(out.env, limit=MAX_STATEMENT)
        links.append(decode(envelope.p, Time, limit=MAX_STATEMENT).link)
    assert len(set(links)) == 3
    device.link = links[1]  # the last answer was lost
    device.hello()
    assert "appliance.clone-suspected" not in _alarms(kit)
    device.link = links[0]  # a copy of the machine from before
    device.hello()
    assert "appliance.clone-suspected" in _alarms(kit)


def test_no_time_for_strangers_or_revoked_appliances(kit: Kit) -> None:
    device = kit.enrol()

    def ask(tenant: str, name: str) -> Callable[..., object]:
        return lambda conn: answer_time(
            conn, kit.authority, tenant=tenant, appliance=name, nonce=bytes(16)
        )

    for tenant, name in ((TENANT, "nobody"), ("other", device.id)):
        with pytest.raises(Exception, match="no appliance"):
            kit.run(ask(tenant, name))
    kit.local("POST", f"/v1/appliances/{device.id}/revoke")
    with pytest.raises(BadStatement):
        kit.run(ask(TENANT, device.id))


def test_what_a_revoked_appliance_states_is_not_believed(kit: Kit) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    kit.local("POST", f"/v1/appliances/{device.id}/revoke")
    with pytest.raises(BadStatement):
        device.result(job)


def test_an_ack_of_another_key_changes_nothing(kit: Kit) -> None:
    device = kit.enrol()
    kit.order(device)
    head = kit.line(device).head
    ack = Ack(epoch=head.epoch, have=head.have, head=head.hash)
    with pytest.raises(BadStatement):
        kit.hear("ack", device, sign(Kind.ACK, ack, SigningKey.generate()))
    assert kit.line(device).seen == (1, 0)


@pytest.mark.parametrize("env", [b"", b"\xc0", b"\x91" * 3000, bytes(70_000)], ids=len)
@pytest.mark.parametrize("kind", ["hello", "ack", "nack", "inventory", "result"])
def test_bytes_that_are_no_statement_change_nothing(kit: Kit, kind: str, env: bytes) -> None:
    device = kit.enrol()
    before = kit.conn.serialize()
    with pytest.raises(BadStatement):
        kit.hear(kind, device, env)
    assert kit.conn.serialize() == before


def test_a_statement_under_another_tenants_name_is_nobodys(kit: Kit) -> None:
    device = kit.enrol()
    statement = Statement(kind="hello", tenant="other", appliance=device.id, env=device.hello_env())
    with pytest.raises(BadStatement):
        kit.run(lambda conn: hear(conn, kit.authority, statement))


def test_after_a_refill_the_relay_gets_everything_that_the_appliance_lacks(kit: Kit) -> None:
    device = kit.enrol()
    jobs = [kit.order(device) for _ in range(4)]
    device.take(kit.envelope(jobs[0]))
    assert device.hello().refill == {device.id: 2}


def test_a_result_type_is_not_confused_with_its_neighbour(kit: Kit) -> None:
    device = kit.enrol()
    (job,) = _finished(kit, device)
    env = device.result_env(job)
    assert decode(parse_envelope(env, limit=MAX_STATEMENT).p, Result, limit=MAX_STATEMENT)
    with pytest.raises(BadStatement):
        kit.hear("hello", device, env)


def test_the_audit_log_is_whole_after_all_that_and_shows_what_was_changed(kit: Kit) -> None:
    device = kit.enrol()
    for job in _finished(kit, device, 3):
        device.result(job)
    assert audit.first_broken(kit.conn) is None
    assert json.loads(kit.local("GET", "/v1/status").body)["audit_broken_at"] is None
    with pytest.raises(Exception, match="append-only"):
        kit.conn.execute("UPDATE audit SET actor = 'nobody' WHERE n = 2")
    kit.conn.execute("DROP TRIGGER audit_no_update")
    kit.conn.execute("UPDATE audit SET actor = 'nobody' WHERE n = 2")
    assert audit.first_broken(kit.conn) == 2
