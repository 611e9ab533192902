"""The protocol survives: a relay that lies, crashes between any two writes, and restores of each of the databases.

Hypothesis drives signer, relay and agent in any order (PROTOCOL 8). At every moment nothing forged and nothing twice
has run; and when everybody is up and honest again, the system comes to rest with every promise kept or named.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from protocol.messages import Ack, Kind, Receipt
from protocol.signed import sign
from tests.support import protocol_world as w
from tests.support.protocol_model import World

pick = st.integers(0, 2**16)
AGENT_KINDS = (Kind.COMMAND, Kind.EPOCH, Kind.RECEIPT, Kind.TIME, Kind.MANIFEST)
ATTACKER = w.key_of("attacker")


class Protocol(RuleBasedStateMachine):
    """Signer, agent, and a relay that may do anything with what it ever saw."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    # --- the honest way, step by step

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
    def push(self) -> None:
        self.world.signer.push()

    @rule()
    def connect(self) -> None:
        self.world.connect()

    @rule()
    def forward(self) -> None:
        self.world.forward()

    @precondition(lambda self: self.world.agent.nonce)
    @rule()
    def answer_time(self) -> None:
        self.world.tell_time()

    @precondition(lambda self: self.world.agent.nonce)
    @rule()
    def prove(self) -> None:
        self.world.take_time()

    @rule()
    def take_orders(self) -> None:
        self.world.take_orders()

    @rule()
    def flush(self) -> None:
        self.world.agent.flush()

    @rule()
    def take_results(self) -> None:
        self.world.take_results()

    @rule()
    def receipt(self) -> None:
        self.world.signer.send_receipt()

    @rule()
    def start_job(self) -> None:
        self.world.agent.start_next()

    @rule()
    def effect(self) -> None:
        self.world.agent.effect()

    @rule()
    def checkpoint(self) -> None:
        self.world.agent.checkpoint()

    @rule()
    def finish(self) -> None:
        self.world.agent.finish()

    @rule()
    def honest_round(self) -> None:
        self.world.honest_round()

    # --- the relay lies

    @precondition(lambda self: self.world.to_agent)
    @rule(which=pick)
    def replay_to_agent(self, which: int) -> None:
        pool = self.world.to_agent
        self.world.agent.take(*pool[which % len(pool)])

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

    @rule(have=st.integers(0, 9))
    def forge(self, have: int) -> None:
        head = self.world.agent.rows.state.head
        command = w.command(head, id=b"F" * 16)
        self.world.agent.take(Kind.COMMAND, sign(Kind.COMMAND, command, ATTACKER))
        receipt = Receipt(v=1, tenant=w.TENANT, appliance=w.APPLIANCE, journal=b"J" * 16, n=have)
        self.world.agent.take(Kind.RECEIPT, sign(Kind.RECEIPT, receipt, ATTACKER))
        ack = Ack(epoch=1, have=have, head=head.hash)
        self.world.signer.take(Kind.ACK, sign(Kind.ACK, ack, ATTACKER))

    @rule()
    def serve_another_tenant(self) -> None:
        head = self.world.agent.rows.state.head
        for changes in ({"tenant": "other"}, {"audience": "site-2"}):
            env = sign(Kind.COMMAND, w.command(head, **changes), self.world.signer.key)
            self.world.agent.take(Kind.COMMAND, env)

    @precondition(lambda self: self.world.to_signer)
    @rule(which=pick)
    def replay_to_signer(self, which: int) -> None:
        pool = self.world.to_signer
        self.world.signer.take(*pool[which % len(pool)])

    @precondition(lambda self: self.world.fresh)
    @rule()
    def drop_statements(self) -> None:
        self.world.fresh.clear()

    @rule(which=pick)
    def forget(self, which: int) -> None:
        store = self.world.store
        for table in (store.commands, store.results):
            if table:
                del table[sorted(table)[which % len(table)]]  # type: ignore[attr-defined]

    @rule()
    def relay_backup(self) -> None:
        self.world.old_store = self.world.store.copy()

    @rule()
    def relay_restore(self) -> None:
        self.world.store = self.world.old_store.copy()

    # --- accidents

    @rule()
    def agent_crash(self) -> None:
        self.world.agent.crash()

    @rule()
    def agent_backup(self) -> None:
        self.world.agent.save()

    @rule()
    def agent_restore(self) -> None:
        self.world.journal_restored = True
        self.world.agent.restore()

    @rule()
    def signer_crash(self) -> None:
        self.world.signer.crash()

    @rule()
    def signer_backup(self) -> None:
        self.world.signer.save()

    @rule()
    def signer_restore(self) -> None:
        self.world.signer_restored = True
        self.world.signer.restore()

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
    _run(max_examples=150, stateful_step_count=40, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nothing_forged_lost_doubled_or_stuck_for_long() -> None:
    _run(max_examples=5000, stateful_step_count=80)
