"""The protocol survives: a relay that lies, crashes between any two writes, and restores of each of the databases.

Hypothesis drives signer, relay and agent in any order (PROTOCOL 8). At every moment nothing forged and nothing twice
has run; and when everybody is up and honest again, the system comes to rest with every promise kept or named.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from protocol.codec import encode
from protocol.messages import Ack, Kind, Receipt
from protocol.signed import Envelope, SigningKey, seal_envelope, signed_bytes
from tests.support import protocol_world as w
from tests.support.protocol_model import World

pick = st.integers(0, 2**16)
AGENT_KINDS = (Kind.COMMAND, Kind.EPOCH, Kind.RECEIPT, Kind.TIME, Kind.MANIFEST)
WHOM = ("agent", "signer", "relay")
ATTACKER = w.key_of("attacker")


def _next(world: World, **changes: Any) -> bytes:
    return encode(w.command(world.agent.rows.state.head, id=b"F" * 16, **changes))


def _signed_like(kind: Kind, payload: bytes, name: SigningKey) -> bytes:
    """An envelope that names the right key; the attacker signed it."""
    signature = ATTACKER.private.sign(signed_bytes(kind, payload))
    return encode(Envelope(v=1, k=name.kid, p=payload, s=signature))


def _receipt(world: World) -> bytes:
    life, n = world.agent.rows.state.journal, world.agent.rows.state.results_last
    return encode(Receipt(v=1, tenant=w.TENANT, appliance=w.APPLIANCE, journal=life, n=n))


def _ack(world: World) -> bytes:
    head = world.signer.rows.line.head
    return encode(Ack(epoch=head.epoch, have=head.have, head=head.hash))


FORGERIES: dict[str, Callable[[World], None]] = {
    "command by nobody": lambda o: o.agent.take(
        Kind.COMMAND, seal_envelope(Kind.COMMAND, _next(o), ATTACKER)
    ),
    "command in the signer's name": lambda o: o.agent.take(
        Kind.COMMAND, _signed_like(Kind.COMMAND, _next(o), o.signer.key)
    ),
    "command by the time key": lambda o: o.agent.take(
        Kind.COMMAND, seal_envelope(Kind.COMMAND, _next(o), w.TIME)
    ),
    "command signed as a receipt": lambda o: o.agent.take(
        Kind.COMMAND, seal_envelope(Kind.RECEIPT, _next(o), o.signer.key)
    ),
    "command of another tenant": lambda o: o.agent.take(
        Kind.COMMAND, seal_envelope(Kind.COMMAND, _next(o, tenant="other"), o.signer.key)
    ),
    "command for another appliance": lambda o: o.agent.take(
        Kind.COMMAND, seal_envelope(Kind.COMMAND, _next(o, audience="site-2"), o.signer.key)
    ),
    "receipt in the signer's name": lambda o: o.agent.take(
        Kind.RECEIPT, _signed_like(Kind.RECEIPT, _receipt(o), o.signer.key)
    ),
    "ack in the device's name": lambda o: o.signer.take(
        Kind.ACK, _signed_like(Kind.ACK, _ack(o), w.DEVICE)
    ),
    "ack by another device": lambda o: o.signer.take(
        Kind.ACK, seal_envelope(Kind.ACK, _ack(o), w.OTHER_DEVICE)
    ),
}
"""What an outsider, or another tenant's signed things, can be made into."""


class Protocol(RuleBasedStateMachine):
    """Signer, agent, and a relay that may do anything with what it ever saw."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(history=st.integers(0, 3))
    def begin(self, history: int) -> None:
        for _ in range(history):
            self.world.signer.submit()
            self.world.honest_round()

    # --- the honest way, whole and step by step

    @rule(count=st.integers(1, 3))
    def submit(self, count: int) -> None:
        for _ in range(count):
            self.world.signer.submit()

    @precondition(lambda self: self.world.signer.rows.orders)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        orders = sorted(self.world.signer.rows.orders)
        self.world.signer.cancel(orders[which % len(orders)])

    @rule()
    def honest_round(self) -> None:
        self.world.honest_round()

    @rule()
    def open_a_session(self) -> None:
        self.world.connect()
        self.world.forward()
        self.world.signer.push()
        self.world.take_time()

    @rule(step=st.sampled_from(("push", "send_receipt", "send_manifest")))
    def signer_does(self, step: str) -> None:
        getattr(self.world.signer, step)()

    @rule(step=st.sampled_from(("connect", "forward", "take_orders", "take_results")))
    def world_does(self, step: str) -> None:
        getattr(self.world, step)()

    @precondition(lambda self: self.world.agent.nonce)
    @rule(taken=st.booleans())
    def time(self, taken: bool) -> None:
        self.world.take_time() if taken else self.world.tell_time()

    @rule(step=st.sampled_from(("flush", "start_next", "effect", "checkpoint", "finish")))
    def agent_does(self, step: str) -> None:
        getattr(self.world.agent, step)()

    # --- the relay lies

    @precondition(lambda self: self.world.to_agent)
    @rule(which=pick, count=st.integers(1, 12))
    def replay_to_agent(self, which: int, count: int) -> None:
        pool = self.world.to_agent
        start = which % len(pool)
        for kind, data in pool[start : start + count]:
            self.world.agent.take(kind, data)

    @precondition(lambda self: self.world.to_agent)
    @rule(which=pick, kind=st.sampled_from(AGENT_KINDS))
    def pass_off_as(self, which: int, kind: Kind) -> None:
        pool = self.world.to_agent
        self.world.agent.take(kind, pool[which % len(pool)][1])

    @precondition(lambda self: self.world.to_agent)
    @rule(which=pick, bit=pick)
    def flip_a_bit(self, which: int, bit: int) -> None:
        pool = self.world.to_agent
        kind, data = pool[which % len(pool)]
        at = bit % (len(data) * 8)
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << (at % 8)
        self.world.agent.take(kind, bytes(flipped))

    @rule(how=st.sampled_from(sorted(FORGERIES)))
    def forge(self, how: str) -> None:
        FORGERIES[how](self.world)

    @precondition(lambda self: self.world.to_signer)
    @rule(which=pick, count=st.integers(1, 6))
    def replay_to_signer(self, which: int, count: int) -> None:
        pool = self.world.to_signer
        start = which % len(pool)
        for kind, data in pool[start : start + count]:
            self.world.signer.take(kind, data)

    @rule()
    def drop_statements(self) -> None:
        self.world.fresh.clear()

    @rule(which=pick)
    def forget(self, which: int) -> None:
        store = self.world.store
        tables: tuple[dict[Any, bytes], ...] = (store.commands, store.results)
        for table in tables:
            if table:
                del table[sorted(table)[which % len(table)]]

    # --- accidents

    @rule(whom=st.sampled_from(("agent", "signer")))
    def crash(self, whom: str) -> None:
        getattr(self.world, whom).crash()

    @rule(whom=st.sampled_from(WHOM))
    def backup(self, whom: str) -> None:
        self.world.backup(whom)

    @rule(whom=st.sampled_from(WHOM))
    def restore(self, whom: str) -> None:
        self.world.restore(whom)

    @rule(days=st.sampled_from((-1, 1)))
    def signer_clock_a_day_off(self, days: int) -> None:
        self.world.signer.now_ms = w.T0 + w.HOUR_MS + days * 24 * w.HOUR_MS

    @rule(seconds=st.sampled_from((1.0, 11.0, 4000.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.agent.boot_s += seconds

    @precondition(lambda self: self.world.signer.manifest.serial < 4)
    @rule()
    def revoke_the_command_key(self) -> None:
        self.world.signer.revoke_key()

    # --- what must hold

    @invariant()
    def nothing_forged_and_nothing_twice(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.settle()
        self.world.check()
        self.world.check_settled()


def _run(**limits: Any) -> None:
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **limits,
        ),
    )


def test_nothing_forged_lost_doubled_or_stuck() -> None:
    _run(max_examples=300, stateful_step_count=30, derandomize=True)


# --- what long runs found


def _session(world: World) -> None:
    world.connect()
    world.forward()
    world.signer.push()
    world.take_time()


def _settles(world: World) -> None:
    world.check()
    world.settle()
    world.check()
    world.check_settled()


def _learn_of_the_revocation(world: World) -> None:
    world.signer.revoke_key()
    kind, manifest = world.to_agent[-1]
    world.agent.take(kind, manifest)


def test_a_nack_about_garbage_does_not_hide_the_one_that_counts() -> None:
    world = World()
    world.signer.submit()
    _session(world)
    _learn_of_the_revocation(world)
    world.take_orders()
    world.agent.take(Kind.COMMAND, b"garbage")
    world.agent.flush()
    _settles(world)


def test_a_nack_about_a_later_order_is_as_good_as_one_about_the_next() -> None:
    world = World()
    world.signer.submit()
    world.signer.submit()
    _session(world)
    _learn_of_the_revocation(world)
    world.take_orders()
    world.agent.take(Kind.COMMAND, world.store.commands[1, 2])
    world.agent.flush()
    _settles(world)


def test_an_order_that_was_passed_off_as_something_else_is_still_taken() -> None:
    world = World()
    world.signer.submit()
    world.signer.push()
    world.agent.take(Kind.EPOCH, world.store.commands[1, 1])
    world.agent.flush()
    _settles(world)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nothing_forged_lost_doubled_or_stuck_for_long() -> None:
    _run(max_examples=5000, stateful_step_count=80)
