"""What the relay has to be given: per appliance a cursor over its envelopes, and what is on its way. No I/O.

The database is the outbox; this remembers for one connection how far it was pushed. Everything is idempotent at
the relay, so a doubt is answered by pushing again. A refused push holds its appliance until `release`.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.control import ApplianceHead
from relay.signer.authority import Effects, Outgoing

WINDOW = 64
"""Pushes without an answer; the relay stores as many with one commit."""
MAX_URGENT = 10_000


@dataclass(slots=True)
class Cursor:
    """How far one appliance was pushed on this connection.

    Attributes:
        epoch / seq: The next command to push.
        replay: Key manifest, record and epoch order come first.
    """

    epoch: int = 0
    seq: int = 1
    replay: bool = True


@dataclass(frozen=True, slots=True)
class Sent:
    """One push without an answer. `seq` is 0 for anything but a command."""

    item: Outgoing
    epoch: int
    seq: int


@dataclass(slots=True)
class Outbox:
    """The state of one connection's pushes.

    Attributes:
        urgent: Times and receipts: pushed at once, never kept.
        ready: Appliances that may have something to push, in order.
        cursors: How far each appliance was pushed.
    """

    urgent: deque[Outgoing] = field(default_factory=lambda: deque(maxlen=MAX_URGENT))
    ready: dict[str, None] = field(default_factory=dict)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)
    _flying: dict[int, Sent] = field(default_factory=dict)
    _last: int = 0

    @property
    def room(self) -> int:
        """How many more pushes may be on their way."""
        return max(WINDOW - len(self._flying), 0)

    def attached(
        self,
        ours: Iterable[ApplianceHead],
        seen: dict[str, tuple[int, int]],
        theirs: Iterable[ApplianceHead],
    ) -> None:
        """Begin from what both sides hold: a relay that was restored is refilled from where it stands.

        Args:
            ours: The signer's heads.
            seen: Appliance -> the highest (epoch, have) that it stated: nothing below is needed any more.
            theirs: The relay's heads, unsigned: at worst they make us push too much or, until the appliance's
                next hello or `compare`, too little.
        """
        held = {(head.tenant, head.appliance): head for head in theirs}
        for head in ours:
            relay = held.get((head.tenant, head.appliance))
            reached = _acknowledged(head, seen)
            if relay is not None and relay.epoch == head.epoch:
                reached = max(reached, min(relay.seq, head.seq))
            self.cursors[head.appliance] = Cursor(head.epoch, reached + 1)
            self.ready[head.appliance] = None

    def compare(self, ours: Iterable[ApplianceHead], seen: dict[str, tuple[int, int]]) -> None:
        """Push again what no appliance acknowledged: a relay that lost it takes it, any other says `same`."""
        for head in ours:
            acknowledged = _acknowledged(head, seen)
            if acknowledged < head.seq:
                cursor = self._cursor(head.appliance)
                cursor.seq = min(cursor.seq, acknowledged + 1)

    def apply(self, effects: Effects) -> None:
        """Take what a transaction wants pushed."""
        self.urgent.extend(effects.outgoing)
        for name in effects.poke:
            self._cursor(name)
        for name in effects.replay:
            self._cursor(name).replay = True
        for name, seq in effects.refill.items():
            cursor = self._cursor(name)
            cursor.seq = min(cursor.seq, seq)
            self._held.discard(name)
        if effects.manifest:
            for name in tuple(self.cursors):
                self._cursor(name).replay = True

    def next_appliance(self) -> str | None:
        """Return who is to be looked at next; it stays ready until `loaded` says that nothing is left."""
        return next((name for name in self.ready if name not in self._held), None)

    def begin(self, name: str) -> Cursor:
        """Take an appliance's cursor to load from: what comes meanwhile makes it ready again."""
        self.ready.pop(name, None)
        cursor = self.cursors[name]
        taken = Cursor(cursor.epoch, cursor.seq, cursor.replay)
        cursor.replay = False
        return taken

    def loaded(self, name: str, taken: Cursor, *, epoch: int, next_seq: int, more: bool) -> None:
        """Move a cursor over what was just loaded, unless it was moved back meanwhile."""
        cursor = self.cursors[name]
        if (cursor.epoch, cursor.seq) == (taken.epoch, taken.seq):
            cursor.epoch, cursor.seq = epoch, next_seq
        if more:
            self.ready[name] = None

    def sent(self, item: Outgoing, *, epoch: int = 0, seq: int = 0) -> int:
        """Number a push that goes out now."""
        self._last += 1
        self._flying[self._last] = Sent(item, epoch, seq)
        return self._last

    def answered(self, push: int, code: str) -> Sent | None:
        """Take the relay's answer; a refused push holds its appliance, to be tried again after `release`."""
        sent = self._flying.pop(push, None)
        if sent is None or not code or sent.item.appliance not in self.cursors:
            return sent
        if sent.item.kind not in {"command", "record", "epoch"}:
            return sent
        name = sent.item.appliance
        cursor = self._cursor(name)
        if not sent.seq:
            cursor.replay = True
        elif sent.epoch == cursor.epoch:
            cursor.seq = min(cursor.seq, sent.seq)
        self._held.add(name)
        return sent

    def release(self) -> None:
        """Try held appliances again."""
        self._held.clear()

    def _cursor(self, name: str) -> Cursor:
        self.ready[name] = None
        return self.cursors.setdefault(name, Cursor())


def _acknowledged(head: ApplianceHead, seen: dict[str, tuple[int, int]]) -> int:
    epoch, have = seen.get(head.appliance, (0, 0))
    return have if epoch == head.epoch else 0
