"""The agent's order state: what one transaction of its journal changes when an order, a receipt or a time came.

Pure: frozen values in, frozen values out. The shell stores what comes out in ONE transaction, fsyncs it, and only
then acknowledges. It does not judge commands (`protocol.acceptor`) nor say what becomes of jobs (`protocol.outcomes`).
PROTOCOL 3 to 5.

| came | function | in the same transaction |
|---|---|---|
| command | `acceptor.judge`, then `consume` | inbox row; for Refuse and settings also the result of `number_result` |
| epoch | `judge_epoch` | `EpochRaise.state`, the unstarted commands' refusals, the finals, `EpochRaise.new_life` |
| receipt, or `results_through` of a command | `open_receipt`, `confirm` | results up to `confirmed` become deletable |
| time | `on_time` | the lock |
"""

import hashlib
from dataclasses import dataclass, replace
from typing import TypeAlias

from protocol.acceptor import (
    Accept,
    Facts,
    Head,
    Hold,
    Refuse,
    Reject,
    check_addressee,
    held,
    name_of,
)
from protocol.codec import decode
from protocol.errors import BadField, FrameError, KeyNotValid, NotAuthentic, OutOfOrder
from protocol.ids import digest_of
from protocol.messages import (
    MAX_EPOCH_ORDER,
    MAX_STATEMENT,
    Epoch,
    Kind,
    Nack,
    Receipt,
    Record,
    ResultsThrough,
    Time,
)
from protocol.signed import parse_envelope

JOURNAL_BEHIND = "appliance.journal-behind"
"""Lock: the signer has seen more of this appliance than its journal holds, so the journal is an older copy."""
EPOCH_RAISED = "protocol.epoch-raised"
"""Result code of commands that an epoch order ended before they were started."""


@dataclass(frozen=True, slots=True)
class InboxState:
    """One row of the journal.

    Attributes:
        head: Epoch, number and chain hash of the last consumed command.
        began: Digest of the record or epoch payload that began the epoch; the chain's hash at 0.
        journal: Random id of this journal's life.
        results_last: Number of the last result; the next one is `results_last + 1`.
        confirmed: Results up to this one are durable at the signer.
        locked: Error code while nothing may be accepted or started, else "".
        inventory_due: Send the inventory in every session, until a command of the epoch proves that it was read.
    """

    head: Head
    began: bytes
    journal: bytes
    results_last: int = 0
    confirmed: int = 0
    locked: str = ""
    inventory_due: bool = False


def begin(record: Record, payload: bytes, *, journal: bytes) -> InboxState:
    """Return the state of a journal that was never used.

    Args:
        record: The appliance's verified record.
        payload: The record's signed bytes; their digest is the chain's hash at 0.
        journal: 16 random bytes.
    """
    began = digest_of(payload)
    return InboxState(head=Head(record.epoch, 0, began), began=began, journal=journal)


def consume(state: InboxState, verdict: Accept | Refuse) -> InboxState:
    """Return the state with one more command consumed.

    Raises:
        OutOfOrder: The verdict was made against another state; judge again.
    """
    if verdict.head != state.head.after(verdict.digest):
        msg = f"the verdict continues another head than {state.head.epoch}/{state.head.have}"
        raise OutOfOrder(msg, epoch=state.head.epoch, have=state.head.have)
    return replace(state, head=verdict.head, inventory_due=False)


def number_result(state: InboxState) -> tuple[InboxState, int]:
    """Return the state and the number of the next result; numbers have no gaps."""
    n = state.results_last + 1
    return replace(state, results_last=n), n


def lock_notice(state: InboxState) -> Nack:
    """Return what a locked agent says, before its inventory, when it locks itself and in every session since.

    The signer may have been restored too and see nothing wrong: this makes it raise the epoch all the same.
    """
    head = state.head
    return Nack(epoch=head.epoch, have=head.have, digest=head.hash, code=state.locked)


# --- epoch ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EpochRaise:
    """Take the epoch: everything here is one transaction.

    Attributes:
        epoch: The order. Commands in `epoch.final` are closed with their intents, whatever state they are in.
        state: The new row. Every other command that was not started ends `refused` with EPOCH_RAISED; started ones go
            on.
        new_life: The journal was an older copy: `state.journal` is a new life that numbers from 1, so every result that
            is not confirmed is signed again under it, in the old order.
    """

    epoch: Epoch
    state: InboxState
    new_life: bool


@dataclass(frozen=True, slots=True)
class EpochAgain:
    """Taken before: acknowledge and send the inventory again."""


EpochVerdict: TypeAlias = EpochRaise | EpochAgain | Hold | Reject

EPOCH_CAS = "protocol.epoch-cas"
"""The order was made for another (have, head) than this journal's. Answer: nack, then the inventory."""


def judge_epoch(data: bytes, state: InboxState, facts: Facts) -> EpochVerdict:
    """Return the verdict on one epoch order: compare-and-swap on our own (epoch, have, head).

    A lock does not hold it: an epoch is what opens a lock. Like a command it needs this session's signed time and the
    current key manifest.
    """
    try:
        order, digest = _open_epoch(data, facts)
    except (FrameError, NotAuthentic) as err:
        return Reject(name_of(data), err.code, str(err))
    if digest == state.began:
        return EpochAgain()
    misplaced = _misplaced(order, state.head)
    if misplaced:
        here = f"{state.head.epoch}/{state.head.have}"
        return Reject(digest, misplaced, f"made for {order.from_}/{order.have}, this is {here}")
    wait = held(facts)
    return wait if wait is not None else _raise(order, digest, state)


def _open_epoch(data: bytes, facts: Facts) -> tuple[Epoch, bytes]:
    envelope = parse_envelope(data, limit=MAX_EPOCH_ORDER)
    key = facts.ring.key(envelope, Kind.EPOCH)
    facts.ring.check_not_revoked(key)
    order = decode(envelope.p, Epoch, limit=MAX_EPOCH_ORDER)
    facts.ring.check_tenant(key, order.tenant)
    check_addressee(order.tenant, order.appliance, facts)
    if order.to <= order.from_:
        msg = f"epoch {order.to} does not follow epoch {order.from_}"
        raise BadField(msg)
    if facts.clock.floor > key.exp:
        msg = f"an epoch order bears no date, and key {key.id} ended at {key.exp} ms UTC"
        raise KeyNotValid(msg, key=key.id)
    return order, envelope.digest


def _misplaced(order: Epoch, head: Head) -> str:
    if order.from_ != head.epoch:
        return "protocol.epoch-old" if order.from_ < head.epoch else "protocol.epoch-ahead"
    return "" if (order.have, order.head) == (head.have, head.hash) else EPOCH_CAS


def _raise(order: Epoch, digest: bytes, state: InboxState) -> EpochRaise:
    raised = replace(
        state, head=Head(order.to, 0, digest), began=digest, locked="", inventory_due=True
    )
    new_life = state.locked == JOURNAL_BEHIND
    if new_life:
        life = hashlib.sha256(b"imageport/journal/v1\0" + state.journal + digest).digest()[:16]
        raised = replace(raised, journal=life, results_last=0, confirmed=0)
    return EpochRaise(order, raised, new_life)


# --- receipts and time ------------------------------------------------------------------------------------


def open_receipt(data: bytes, facts: Facts) -> ResultsThrough:
    """Verify a receipt for this appliance.

    Raises:
        FrameError, NotAuthentic.
    """
    envelope = parse_envelope(data, limit=MAX_STATEMENT)
    key = facts.ring.key(envelope, Kind.RECEIPT)
    facts.ring.check_not_revoked(key)
    receipt = decode(envelope.p, Receipt, limit=MAX_STATEMENT)
    facts.ring.check_tenant(key, receipt.tenant)
    check_addressee(receipt.tenant, receipt.appliance, facts)
    return ResultsThrough(journal=receipt.journal, n=receipt.n)


def confirm(state: InboxState, through: ResultsThrough) -> InboxState:
    """Return the state when the signer holds results up to `through`.

    Another journal's receipt is ignored. One that names more results than there are deletes nothing: it proves that
    this journal is an older copy, and locks it.
    """
    if through.journal != state.journal:
        return state
    if through.n > state.results_last:
        return replace(state, locked=JOURNAL_BEHIND)
    return replace(state, confirmed=max(state.confirmed, through.n))


def open_time(data: bytes, facts: Facts) -> tuple[Time, int]:
    """Verify a signed time for this appliance; return it with its key's expiry, as `SignedClock.feed` wants it.

    Raises:
        FrameError, NotAuthentic.
    """
    envelope = parse_envelope(data, limit=MAX_STATEMENT)
    key = facts.ring.key(envelope, Kind.TIME, tenant=facts.tenant)
    facts.ring.check_not_revoked(key)
    time = decode(envelope.p, Time, limit=MAX_STATEMENT)
    check_addressee(facts.tenant, time.appliance, facts)
    return time, key.exp


def on_time(state: InboxState, time: Time) -> InboxState:
    """Return the state after a verified and fed time: locked if the signer has seen more than we hold."""
    if (time.epoch, time.seen) > (state.head.epoch, state.head.have):
        return replace(state, locked=JOURNAL_BEHIND)
    return state
