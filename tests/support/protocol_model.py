"""The world of the protocol model: a signer, an agent, and a relay that keeps everything and may do anything with it.

`World.honest_round` is what all three do when nobody lies and nothing fails; `settle` repeats it until nothing is left
to do, and says what is stuck if that does not come. No I/O, no clock, no randomness of its own.
"""

from dataclasses import dataclass, field

from protocol.acceptor import POISON, name_of
from protocol.codec import decode
from protocol.ids import digest_of
from protocol.messages import MAX_INVENTORY, Command, Kind, Nack, Result
from protocol.signed import parse_envelope
from tests.support.protocol_model_agent import Agent
from tests.support.protocol_model_rows import Effects
from tests.support.protocol_model_signer import Signer, Truth

MAX_ROUNDS = 12


@dataclass
class Store:
    """The relay's database."""

    commands: dict[tuple[int, int], bytes] = field(default_factory=dict)
    quarantined: set[bytes] = field(default_factory=set)
    nack: bytes | None = None
    epoch: bytes | None = None
    receipt: bytes | None = None
    manifest: bytes | None = None
    results: dict[tuple[bytes, int], bytes] = field(default_factory=dict)

    def copy(self) -> "Store":
        """Return a copy that later changes do not reach."""
        return Store(
            dict(self.commands),
            set(self.quarantined),
            self.nack,
            self.epoch,
            self.receipt,
            self.manifest,
            dict(self.results),
        )


class World:
    """Everything, and everything that was ever on a wire."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.effects = Effects()
        self.to_agent: list[tuple[Kind, bytes]] = []
        self.to_signer: list[tuple[Kind, bytes]] = []
        self.fresh: list[tuple[Kind, bytes]] = []
        self.store = Store()
        self.old_store = Store()
        self.signer = Signer(self.truth, self._from_signer)
        self.agent = Agent(self.effects, self._from_agent)
        self.journal_restored = False
        self.signer_restored = False

    # --- the relay's two sides

    def _from_signer(self, kind: Kind, data: bytes) -> None:
        self.to_agent.append((kind, data))
        match kind:
            case Kind.COMMAND:
                command = _payload(data, Command)
                held = self.store.commands.get((command.epoch, command.seq))
                if (held is None or self._condemned(held)) and not self._condemned(data):
                    self.store.commands[command.epoch, command.seq] = data
            case Kind.EPOCH:
                self.store.epoch = data
            case Kind.RECEIPT:
                self.store.receipt = data
            case Kind.MANIFEST:
                self.store.manifest = data
            case _:
                return

    def _condemned(self, data: bytes) -> bool:
        return _digest(data) in self.store.quarantined

    def _from_agent(self, kind: Kind, data: bytes) -> None:
        self.to_signer.append((kind, data))
        self.fresh.append((kind, data))
        if kind is Kind.RESULT:
            result = _payload(data, Result)
            self.store.results[result.journal, result.n] = data
        if kind is Kind.NACK:
            nack = _payload(data, Nack)
            if nack.code in POISON:
                self._refused(nack, data)

    def _refused(self, nack: Nack, data: bytes) -> None:
        at = (nack.epoch, nack.have)
        for place, held in tuple(self.store.commands.items()):
            if place <= at or self._condemned(held):
                continue  # delivered, or condemned before
            if _digest(held) == nack.digest:
                self.store.quarantined.add(nack.digest)
                self.store.nack = data
            elif name_of(held) == nack.digest and place == (nack.epoch, nack.have + 1):
                del self.store.commands[place]  # damaged here: the signer's own copy is welcome

    # --- honest steps

    def forward(self) -> None:
        """Hand everything that the agent said since on to the signer, in order."""
        while self.fresh:
            self.signer.take(*self.fresh.pop(0))

    def connect(self) -> None:
        """Let the agent connect; the relay tells it which results it holds."""
        self.agent.connect()
        self.agent.flush()

    def tell_time(self) -> None:
        """Let the signer answer the session's question for the time."""
        self._note(self.signer.send_time(self.agent.nonce, bytes(16)))

    def _note(self, time: bytes) -> None:
        self.agent.notes[time] = frozenset(self.signer.rows.results)

    def take_time(self) -> None:
        """Ask for the time, answer, take."""
        self.tell_time()
        self.agent.take(Kind.TIME, self.to_agent[-1][1])

    def take_orders(self) -> None:
        """Deliver the stored epoch order and then, in order, the stored commands."""
        if self.store.epoch is not None:
            self.agent.take(Kind.EPOCH, self.store.epoch)
        while True:
            head = self.agent.rows.state.head
            env = self.store.commands.get((head.epoch, head.have + 1))
            if env is None or self._condemned(env):
                return
            self.agent.take(Kind.COMMAND, env)
            if self.agent.rows.state.head == head:
                return

    def take_results(self) -> None:
        """Let the agent send the results that the relay lacks, and the signer take those that it lacks."""
        journal = self.agent.rows.state.journal
        above = 0
        while (journal, above + 1) in self.store.results:
            above += 1
        self.agent.send_results(above)
        self.forward()
        self.hand_on_results()

    def hand_on_results(self) -> None:
        """Hand on every stored result that the signer lacks: they came before whatever comes now."""
        journal, lacks = self.agent.rows.state.journal, self.signer.rows.line.results
        for (life, n), env in sorted(self.store.results.items()):
            if life != journal or n > lacks:
                self.signer.take(Kind.RESULT, env)

    def run_jobs(self) -> None:
        """Let the agent do all its work."""
        for _ in range(len(self.agent.rows.jobs) + 1):
            self.agent.start_next()
        self.agent.effect()
        self.agent.finish()

    def honest_round(self) -> None:
        """One round in which everybody is up, and nobody lies."""
        self.fresh.clear()
        self.hand_on_results()
        if (
            self.store.nack is not None
        ):  # what it condemned is never offered, so never refused again
            self.signer.take(Kind.NACK, self.store.nack)
        self.connect()
        self.forward()
        self.signer.send_manifest()
        self.signer.push()
        self.take_time()
        if self.store.manifest is not None:
            self.agent.take(Kind.MANIFEST, self.store.manifest)
        self.agent.flush()
        self.forward()
        self.take_orders()
        self.agent.flush()
        self.forward()
        self.take_results()
        self.run_jobs()
        self.take_results()
        self.signer.send_receipt()
        if self.store.receipt is not None:
            self.agent.take(Kind.RECEIPT, self.store.receipt)
        self.agent.flush()
        self.forward()

    def settle(self) -> None:
        """Repeat honest rounds until nothing is left to do."""
        for _ in range(MAX_ROUNDS):
            self.honest_round()
            if not self.unsettled():
                return
        raise AssertionError(f"stuck after {MAX_ROUNDS} honest rounds: {self.unsettled()}")

    def unsettled(self) -> dict[str, object]:
        """Return what is not at rest."""
        line, state = self.signer.rows.line, self.agent.rows.state
        left = {
            "open orders": [order.id[-2:].hex() for order in self.signer.open_orders],
            "signer blocked": line.blocked,
            "agent locked": state.locked,
            "unconfirmed": state.results_last - state.confirmed,
            "unfinished": [
                j.state.value for j in self.agent.rows.jobs.values() if j.state.value in _LIVE
            ],
            "heads differ": line.head != state.head,
        }
        return {name: value for name, value in left.items() if value}

    # --- accidents

    def backup(self, whom: str) -> None:
        """Copy the database of agent, signer or relay."""
        if whom == "relay":
            self.old_store = self.store.copy()
        else:
            (self.agent if whom == "agent" else self.signer).save()

    def restore(self, whom: str) -> None:
        """Bring the copy back in place of what is there."""
        if whom == "relay":
            self.store = self.old_store.copy()
        elif whom == "agent":
            self.journal_restored = True
            self.agent.restore()
        else:
            self.signer_restored = True
            self.signer.restore()

    # --- what must hold

    def check(self) -> None:
        """Assert what holds at any moment, whatever the relay does and whoever crashes."""
        assert not self.effects.broken, self.effects.broken
        for job in self.agent.rows.jobs.values():
            assert job.digest in self.truth.signed, "something ran that the signer never signed"
            assert job.after == job.command.prev, "a command ran out of its order"
        assert set(self.effects.ran) <= {i.to_bytes(16) for i in range(1, self.truth.next_id + 1)}
        if not self.journal_restored:
            head = self.agent.rows.state.head
            assert self.truth.alarms == 0, "an honest appliance looked like a liar"
            assert self.effects.acked <= (head.epoch, head.have), "acknowledged, then forgotten"

    def check_settled(self) -> None:
        """Assert what holds when all is at rest: every promise was kept, or its end has a name."""
        orders = self.signer.rows.orders
        if not self.signer_restored:
            assert self.truth.promised <= set(orders), "an accepted order vanished"
        for order in orders.values():
            if order.ended == "forgotten":
                assert self.journal_restored, "an order was given up without a reason"
                consumed = {digest for _, _, digest in order.copies} & self.effects.consumed
                # An older signer signs other commands under the same numbers; then nobody can tell which one ran.
                assert consumed or self.signer_restored, "given up, but it never arrived"
            if order.ended == "succeeded" and order.op == "sweep":
                assert order.id in self.effects.done, "a success that did nothing"


_LIVE = {"accepted", "waiting", "running", "cancelling"}


def _payload(data: bytes, layout: type) -> object:
    return decode(parse_envelope(data, limit=MAX_INVENTORY).p, layout, limit=MAX_INVENTORY)


def _digest(data: bytes) -> bytes:
    return digest_of(parse_envelope(data, limit=MAX_INVENTORY).p)
