import pytest

from protocol.control import ApplianceHead
from relay.signer.authority import Effects, Outgoing
from relay.signer.loading import Batch, load_batch, load_heads
from relay.signer.outbox import WINDOW, Outbox
from tests.support.signer_device import Device
from tests.support.signer_kit import Kit, make_kit


@pytest.fixture
def kit() -> Kit:
    return make_kit()


def _attached(kit: Kit, *theirs: ApplianceHead) -> Outbox:
    outbox, ours = Outbox(), load_heads(kit.conn)
    outbox.attached(ours.heads, ours.seen, theirs)
    return outbox


def _push_all(kit: Kit, outbox: Outbox, *, answer: str = "") -> list[tuple[str, int]]:
    """Push as the channel does; every push is answered at once. Returns (kind, seq) of what went out."""
    pushed = []
    while name := outbox.next_appliance():
        taken = outbox.begin(name)
        batch: Batch = load_batch(kit.conn, kit.authority, name, taken, limit=outbox.room)
        outbox.loaded(name, taken, epoch=batch.epoch, next_seq=batch.next_seq, more=batch.more)
        for item, seq in batch.items:
            number = outbox.sent(item, epoch=batch.epoch, seq=seq)
            pushed.append((item.kind, seq))
            outbox.answered(number, answer if item.kind == "command" else "")
    return pushed


def _head(device: Device, seq: int, epoch: int = 1) -> ApplianceHead:
    return ApplianceHead(tenant="acme", appliance=device.id, epoch=epoch, seq=seq)


def test_an_empty_relay_gets_manifest_record_and_every_command_in_order(kit: Kit) -> None:
    device = kit.enrol()
    for _ in range(70):
        kit.order(device)
    expected = [("manifest", 0), ("record", 0), *(("command", seq) for seq in range(1, 71))]
    assert _push_all(kit, _attached(kit)) == expected


def test_a_relay_gets_only_what_lies_above_its_head(kit: Kit) -> None:
    device = kit.enrol()
    for _ in range(5):
        kit.order(device)
    pushed = _push_all(kit, _attached(kit, _head(device, 3)))
    assert pushed[2:] == [("command", 4), ("command", 5)]


def test_what_the_appliance_acknowledged_is_not_pushed_to_a_restored_relay(kit: Kit) -> None:
    device = kit.enrol()
    jobs = [kit.order(device) for _ in range(5)]
    for job in jobs[:3]:
        device.take(kit.envelope(job))
    device.ack()
    pushed = _push_all(kit, _attached(kit, _head(device, 1)))
    assert pushed[2:] == [("command", 4), ("command", 5)]


def test_a_relay_that_claims_too_much_is_mended_by_the_next_hello(kit: Kit) -> None:
    device = kit.enrol()
    for _ in range(3):
        kit.order(device)
    outbox = _attached(kit, _head(device, 99))
    assert ("command", 1) not in _push_all(kit, outbox)
    outbox.apply(device.hello())
    assert _push_all(kit, outbox) == [("command", 1), ("command", 2), ("command", 3)]


def test_a_relay_that_lost_commands_is_mended_by_comparing(kit: Kit) -> None:
    device = kit.enrol()
    kit.order(device)
    outbox = _attached(kit)
    _push_all(kit, outbox)
    ours = load_heads(kit.conn)
    outbox.compare(ours.heads, ours.seen)
    assert _push_all(kit, outbox) == [("command", 1)]
    device.take(kit.conn.execute("SELECT env FROM envelopes").fetchone()["env"])
    device.ack()
    ours = load_heads(kit.conn)
    outbox.compare(ours.heads, ours.seen)
    assert _push_all(kit, outbox) == []


def test_a_refused_command_holds_its_appliance_and_comes_again(kit: Kit) -> None:
    first, second = kit.enrol(name="a"), kit.enrol(name="b")
    outbox = _attached(kit)
    _push_all(kit, outbox)
    kit.order(first)
    outbox.apply(kit.effects)
    assert _push_all(kit, outbox, answer="relay.backlog") == [("command", 1)]
    assert outbox.next_appliance() is None
    kit.order(second)
    outbox.apply(kit.effects)
    assert outbox.next_appliance() == "b"  # others go on
    outbox.release()
    assert _push_all(kit, outbox) == [("command", 1), ("command", 1)]


def test_an_epoch_order_goes_before_its_commands(kit: Kit) -> None:
    device = kit.enrol()
    job = kit.order(device)
    outbox = _attached(kit)
    _push_all(kit, outbox)
    device.nack(bytes.fromhex(job["digest"]), "protocol.bad-field")
    outbox.apply(kit.effects)
    assert [kind for kind, _ in _push_all(kit, outbox)] == ["manifest", "record", "epoch"]
    device.take_epoch(kit.epoch_order(device))
    outbox.apply(device.inventory())
    assert _push_all(kit, outbox) == [("command", 1)]


def test_a_revoked_appliance_gets_its_record_and_no_command(kit: Kit) -> None:
    device = kit.enrol()
    kit.order(device)
    kit.local("POST", f"/v1/appliances/{device.id}/revoke")
    assert _push_all(kit, _attached(kit)) == [("manifest", 0), ("record", 0)]


def test_a_move_back_while_loading_is_not_lost(kit: Kit) -> None:
    device = kit.enrol()
    for _ in range(2):
        kit.order(device)
    outbox = _attached(kit)
    _push_all(kit, outbox)
    kit.order(device)
    outbox.apply(kit.effects)
    taken = outbox.begin(device.id)
    outbox.apply(Effects(refill={device.id: 1}))  # a hello came while the database worked
    outbox.loaded(device.id, taken, epoch=1, next_seq=4, more=False)
    assert [seq for _, seq in _push_all(kit, outbox)] == [1, 2, 3]


def test_the_window_bounds_what_is_on_its_way(kit: Kit) -> None:
    outbox = Outbox()
    numbers = [outbox.sent(Outgoing("time", "acme", "a", b"")) for _ in range(WINDOW + 5)]
    assert outbox.room == 0
    for number in numbers:
        outbox.answered(number, "relay.stale")  # a time is never pushed again
    assert outbox.room == WINDOW
    assert outbox.next_appliance() is None
