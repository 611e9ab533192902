"""Where an appliance stands: its verified hello, ack, nack or inventory compared with the signer's line to it.

Pure: a `Line` and a statement in, an `Assessment` with the line to store out. It raises no epoch and signs nothing
(`protocol.issuer`). PROTOCOL 3 and 4. Statements must come in the order in which the relay got them.

What a verified hello, ack or inventory says is compared with the line:

| the appliance states | step | the signer then |
|---|---|---|
| a (have, head) of our chain | IN_STEP | refills the relay from have + 1, signs on |
| the place of our last epoch order, still | OFFERED | pushes that order again |
| that it took the order, no inventory yet | TAKEN | waits for the inventory; signs nothing |
| more than we ever signed, or a later epoch | REBASE `signer.behind` | raises an epoch: our database is an older copy |
| another head at a number of ours | REBASE `signer.fork` | raises an epoch |
| less than before, in a hello, or a lock, in a nack | SUSPECT `appliance.journal-behind` | signs nothing, waits |
| the same, and then an inventory | REBASE `appliance.journal-behind` | raises an epoch: its journal is an older copy |

A hello may be late or replayed by a lying relay, so a smaller `have` in it only raises suspicion; the time that it asks
for (`time.seen`) makes an appliance whose journal is really old lock itself, say so and send its inventory. One that is
well acknowledges its real number with its next ack or hello, and the suspicion ends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from protocol.acceptor import POISON, Head
from protocol.inbox import EPOCH_CAS, JOURNAL_BEHIND
from protocol.issuer import BEHIND, FORK, Line
from protocol.messages import Ack, Hello, Inventory, InventoryItem, Nack

SIGNER_BEHIND = BEHIND
SIGNER_FORK = FORK

ChainHashAt = Callable[[int], bytes | None]
"""seq of the line's epoch -> the chain's hash there (0: the epoch's beginning), None if unknown."""


class Step(StrEnum):
    """What the signer does next; see the table above."""

    IN_STEP = "in-step"
    OFFERED = "offered"
    TAKEN = "taken"
    SUSPECT = "suspect"
    REBASE = "rebase"


@dataclass(frozen=True, slots=True)
class Assessment:
    """The answer to a statement.

    Attributes:
        step: What to do.
        line: The line to store.
        refill_from: First seq that the appliance lacks: the relay must hold everything from here (IN_STEP).
        stated: The appliance's own (epoch, have, head): what `raise_epoch` takes (REBASE).
        code: Why, for SUSPECT and REBASE.
    """

    step: Step
    line: Line
    refill_from: int
    stated: Head
    code: str = ""


# --- statements -------------------------------------------------------------------------------------------


def on_hello(line: Line, hello: Hello, chain_hash_at: ChainHashAt) -> Assessment:
    """Compare a verified hello with the line.

    The relay may hand on the hello of a session that lasts once more (after a restart of the signer): what it says was
    judged when it came first, so then only the chain is compared.
    """
    stated = Head(hello.epoch, hello.have, hello.head)
    if hello.nonce == line.hello:
        code = _broken(line, stated, chain_hash_at)
        again = replace(line, checked=True)
        return _rebase(line, stated, code) if code else _settled(again, stated)
    line = replace(line, hello=hello.nonce)
    if not line.journal or _nothing_seen(line):
        line = replace(line, journal=hello.journal)
    if hello.journal == line.journal:
        short = hello.results_last < line.results
        line = replace(line, receipted=min(line.receipted, hello.confirmed))
    else:
        short = line.offer is None or hello.epoch != line.head.epoch
    return _assess(replace(line, short=short), stated, chain_hash_at)


def on_ack(line: Line, ack: Ack, chain_hash_at: ChainHashAt) -> Assessment:
    """Compare a verified ack with the line; an ack that is older than what was seen says nothing."""
    stated = Head(ack.epoch, ack.have, ack.head)
    if (ack.epoch, ack.have) < line.seen and not _broken(line, stated, chain_hash_at):
        return _settled(line, stated)
    return _assess(_in_epoch(line, stated), stated, chain_hash_at)


def on_nack(line: Line, nack: Nack, chain_hash_at: ChainHashAt, *, is_ours: bool) -> Assessment:
    """Judge a verified nack: if the appliance can never consume what we signed, an epoch must go around it.

    The nack of a locked journal (`inbox.lock_notice`) makes the appliance suspect, so that the inventory behind it
    raises the epoch.

    Args:
        line: The appliance's line.
        nack: What the appliance refused.
        chain_hash_at: See `ChainHashAt`.
        is_ours: Whether its digest is one of our commands in nack.epoch above nack.have. Not only the next: a relay may
            have shown another one first, and what can never be consumed stands in the way of all behind it.
    """
    place = (nack.epoch, nack.have)
    if nack.code == JOURNAL_BEHIND:
        line = replace(line, short=True, locked=line.locked or JOURNAL_BEHIND)
    known = chain_hash_at(nack.have) if nack.epoch == line.head.epoch else None
    stated = Head(nack.epoch, nack.have, known or b"")
    ours = known is not None and is_ours and place >= line.seen
    if ours and nack.code in POISON:
        return _rebase(line, stated, nack.code)
    return _settled(line, stated)


def _is_old(line: Line, stated: Head) -> bool:
    """Whether an inventory is one of before: a relay keeps the last one, and hands it on to every signer that attaches.

    A journal that is really behind says so in its hello, which comes first and makes the line suspect.
    """
    suspect = line.short or line.locked == JOURNAL_BEHIND
    return line.offer is None and not suspect and (stated.epoch, stated.have) < line.seen


def _in_epoch(line: Line, stated: Head) -> Line:
    """Forget what the last hello lacked once the appliance stands in a newer epoch: its journal may have begun anew."""
    return replace(line, short=False) if stated.epoch > line.seen[0] else line


def _assess(line: Line, stated: Head, chain_hash_at: ChainHashAt) -> Assessment:
    code = _broken(line, stated, chain_hash_at)
    if code:
        return _rebase(line, stated, code)
    place = (stated.epoch, stated.have)
    line = replace(line, checked=True)
    if _is_offered(line, stated):
        line = replace(line, seen=_further(line, place))
        return Assessment(Step.OFFERED, line, stated.have + 1, stated)
    if place >= line.seen and stated.epoch < line.head.epoch:
        return _rebase(line, stated, EPOCH_CAS)
    if place < line.seen or line.short:
        suspect = replace(line, locked=line.locked or JOURNAL_BEHIND)
        return Assessment(Step.SUSPECT, suspect, stated.have + 1, stated, JOURNAL_BEHIND)
    # Until the inventory settles it, `seen` says how far the appliance ever came in the epochs before the order.
    seen = place if line.offer is None else line.seen
    return _settled(replace(line, seen=seen, locked=_unsuspect(line.locked)), stated)


def _settled(line: Line, stated: Head) -> Assessment:
    """The statement changes nothing more: say what the line stands at."""
    if line.locked == JOURNAL_BEHIND:
        return Assessment(Step.SUSPECT, line, stated.have + 1, stated, JOURNAL_BEHIND)
    if line.locked:
        return Assessment(Step.REBASE, line, stated.have + 1, stated, line.locked)
    if line.offer is None:
        same_epoch = line.seen[0] == line.head.epoch
        have = line.seen[1] if same_epoch else 0
        return Assessment(Step.IN_STEP, line, have + 1, stated)
    step = Step.TAKEN if stated.epoch == line.head.epoch else Step.OFFERED
    return Assessment(step, line, stated.have + 1, stated)


def _rebase(line: Line, stated: Head, code: str) -> Assessment:
    seen = _further(line, (stated.epoch, stated.have))
    locked = replace(line, locked=code, seen=seen, checked=True)
    return Assessment(Step.REBASE, locked, stated.have + 1, stated, code)


def _further(line: Line, place: tuple[int, int]) -> tuple[int, int]:
    """Return the new `seen`. While an order is open, the empty beginning of a new epoch says nothing new about it."""
    empty = line.offer is not None and place[1] == 0
    return line.seen if empty else max(line.seen, place)


def _broken(line: Line, stated: Head, chain_hash_at: ChainHashAt) -> str:
    """Return why the statement cannot follow from our history, or ""."""
    if (stated.epoch, stated.have) > (line.head.epoch, line.head.have):
        return SIGNER_BEHIND
    if stated.epoch == line.head.epoch and chain_hash_at(stated.have) != stated.hash:
        return SIGNER_FORK
    return ""


def _is_offered(line: Line, stated: Head) -> bool:
    offer = line.offer
    return offer is not None and (offer.from_, offer.have, offer.head) == (
        stated.epoch,
        stated.have,
        stated.hash,
    )


def _nothing_seen(line: Line) -> bool:
    return line.results == 0 and line.seen[1] == 0 and line.offer is None


def _unsuspect(locked: str) -> str:
    return "" if locked == JOURNAL_BEHIND else locked


# --- inventory --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenCommand:
    """A command whose result is not verified yet."""

    id: bytes
    digest: bytes
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Inventoried:
    """What an inventory settles.

    Attributes:
        assessment: As for any statement; IN_STEP: the order was taken, signing goes on.
        sign_again: Ids that never reached the appliance and never can: sign them anew, under the same id.
        forgotten: Ids that the appliance had and its journal lost: close them as failed `appliance.journal-behind`; a
            verified result that still comes (from the relay's store) replaces that.
        foreign: Commands that the appliance holds and this signer's older database does not.
    """

    assessment: Assessment
    sign_again: tuple[bytes, ...] = ()
    forgotten: tuple[bytes, ...] = ()
    foreign: tuple[InventoryItem, ...] = ()


def on_inventory(
    line: Line,
    inventory: Inventory,
    open_commands: Iterable[OpenCommand],
    chain_hash_at: ChainHashAt,
) -> Inventoried:
    """Compare a verified inventory with the line, and settle the commands of earlier epochs if it took our order.

    Args:
        line: The appliance's line.
        inventory: What the appliance holds.
        open_commands: Every command of this appliance whose result is not verified.
        chain_hash_at: See `ChainHashAt`.
    """
    stated = Head(inventory.epoch, inventory.have, inventory.head)
    if _is_old(line, stated) and not _broken(line, stated, chain_hash_at):
        return Inventoried(_settled(line, stated))
    found = _assess(_in_epoch(line, stated), stated, chain_hash_at)
    if found.step is Step.SUSPECT:
        return Inventoried(_rebase(found.line, stated, JOURNAL_BEHIND))
    if found.step is not Step.TAKEN or line.offer is None:
        return Inventoried(found)
    return _settle(line, found, inventory, list(open_commands))


def _settle(
    before: Line, found: Assessment, inventory: Inventory, commands: list[OpenCommand]
) -> Inventoried:
    held = {(item.id, item.digest) for item in inventory.commands}
    known = {(command.id, command.digest) for command in commands}
    missing = [
        command
        for command in commands
        if command.epoch < inventory.epoch and (command.id, command.digest) not in held
    ]
    reached = _reached(before, inventory)
    place = (inventory.epoch, inventory.have)
    line = replace(found.line, offer=None, short=False, seen=place)
    if inventory.journal != line.journal:
        line = replace(line, journal=inventory.journal, results=0, receipted=0)
    return Inventoried(
        replace(found, step=Step.IN_STEP, line=line),
        sign_again=tuple(c.id for c in missing if (c.epoch, c.seq) > reached),
        forgotten=tuple(c.id for c in missing if (c.epoch, c.seq) <= reached),
        foreign=tuple(i for i in inventory.commands if (i.id, i.digest) not in known),
    )


def _reached(before: Line, inventory: Inventory) -> tuple[int, int]:
    """Return up to where a command that the inventory lacks may have run.

    Only a journal that began a new life may have forgotten commands. Any other lists all that are not confirmed, and
    refuses an id that it saw (`protocol.id-reuse`), so what it lacks can be signed again without running twice.
    """
    if inventory.journal == before.journal or before.offer is None:
        return (0, 0)
    return _further(before, (before.offer.from_, before.offer.have))
