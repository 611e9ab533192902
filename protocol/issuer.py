"""The signer's line to one appliance: which number comes next, what was stated and confirmed.

Pure: a frozen `Line` in, a frozen `Line` out; the shell stores it in the transaction that stores the signed envelope.
It does not sign, push or keep envelopes; `protocol.standing` compares the line with what the appliance states.
PROTOCOL 3 to 5.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from protocol.acceptor import Head
from protocol.codec import encode
from protocol.errors import LineLocked
from protocol.ids import digest_of
from protocol.messages import Epoch, FinalMark, Record, Result, ResultsThrough, Time
from protocol.outcomes import same_outcome

BEHIND = "signer.behind"
"""The appliance consumed more than we ever signed: our database is an older copy."""
FORK = "signer.fork"
"""The appliance consumed another command than ours under one number."""
UNCHECKED = "signer.unchecked"
"""No statement of this appliance was compared since the signer started; its database may be an older copy."""
INVENTORY_WANTED = "signer.inventory-wanted"


@dataclass(frozen=True, slots=True)
class Line:
    """Everything that the signer knows about one appliance's order of commands.

    Attributes:
        tenant / appliance: Whose line this is.
        head: Epoch, last allocated seq, chain hash there: what the next command continues.
        seen: Highest (epoch, have) in any verified statement: what `time.seen` says.
        journal: The journal's life whose results are counted, b"" before the first statement.
        results: Its results are verified and durable here up to this one.
        receipted: The last receipt, or `results_through` of a command, named this one.
        offer: The epoch order that began `head.epoch` and was not answered by an inventory yet.
        hello: Nonce of the last hello that was judged.
        short: The last hello lacked results that are verified here, or came from another journal.
        checked: A statement was compared since this process started (the shell loads lines with False).
        locked: Error code while nothing may be signed, else "".
    """

    tenant: str
    appliance: str
    head: Head
    seen: tuple[int, int]
    journal: bytes = b""
    results: int = 0
    receipted: int = 0
    offer: Epoch | None = field(default=None, repr=False)
    hello: bytes = b""
    short: bool = False
    checked: bool = False
    locked: str = ""

    @property
    def blocked(self) -> str:
        """Why nothing may be signed now: an error code, or ""."""
        if self.locked:
            return self.locked
        if self.offer is not None:
            return INVENTORY_WANTED
        return "" if self.checked else UNCHECKED


def new_line(record: Record, payload: bytes) -> Line:
    """Return the line of an appliance that was just enrolled; `payload` is its record's signed bytes."""
    head = Head(record.epoch, 0, digest_of(payload))
    return Line(record.tenant, record.id, head, seen=(record.epoch, 0), checked=True)


# --- signing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next command stands: the header's epoch, seq and prev."""

    epoch: int
    seq: int
    prev: bytes


def header_for_next(line: Line) -> Place:
    """Return the header fields of the next command.

    Raises:
        LineLocked: Nothing may be signed now; field `reason` says why.
    """
    if line.blocked:
        msg = f"nothing may be signed for {line.tenant}/{line.appliance} now: {line.blocked}"
        raise LineLocked(msg, reason=line.blocked, appliance=line.appliance)
    return Place(line.head.epoch, line.head.have + 1, line.head.hash)


def advance(line: Line, digest: bytes, *, through: ResultsThrough | None = None) -> Line:
    """Return the line when the command at `header_for_next`, of this digest, is durable.

    Args:
        line: The line that `header_for_next` was asked of.
        digest: Digest of the command's payload.
        through: The command's `results_through`; it counts as a receipt.
    """
    return mark_receipted(replace(line, head=line.head.after(digest)), through)


# --- epoch ------------------------------------------------------------------------------------------------


def raise_epoch(line: Line, stated: Head, finals: Iterable[FinalMark]) -> tuple[Epoch, bytes, Line]:
    """Make the epoch order that takes the appliance from what it stated into a new epoch.

    `to` is above every epoch that either side ever had, so no (epoch, seq) is ever signed twice, whichever database
    was restored.

    Args:
        line: The appliance's line.
        stated: The appliance's own epoch, number and chain hash (`Assessment.stated`).
        finals: Commands of this appliance that ended, as far as its journal may not know it (at most 10,000).

    Returns:
        The order, its payload (sign it as `Kind.EPOCH`), and the line to store with it.
    """
    order = Epoch(
        v=1,
        tenant=line.tenant,
        appliance=line.appliance,
        from_=stated.epoch,
        to=max(line.head.epoch, stated.epoch) + 1,
        have=stated.have,
        head=stated.hash,
        final=tuple(finals),
    )
    payload = encode(order)
    head = Head(order.to, 0, digest_of(payload))
    raised = replace(line, head=head, offer=order, short=False, locked="", checked=True)
    return order, payload, raised


# --- results ----------------------------------------------------------------------------------------------


class ResultStep(StrEnum):
    """What a verified result is."""

    NEW = "new"
    AGAIN = "again"
    GAP = "gap"
    LATE = "late"
    EQUIVOCATION = "equivocation"


def on_result(
    line: Line, result: Result, *, known: Result | None, ours: bytes | None = None
) -> tuple[ResultStep, Line]:
    """Judge a verified result.

    NEW and LATE (of an earlier life of the journal) are the command's outcome; AGAIN changes nothing; GAP is dropped,
    it comes again in its turn; EQUIVOCATION raises the alarm `appliance.equivocation`: the first result stands.
    Whatever it is, it tells how far the appliance came, so store the line.

    Args:
        line: The appliance's line.
        result: The result.
        known: The verified result of the same command digest, None if there is none.
        ours: Digest of our command at the result's epoch and seq, None if we know none there.
    """
    if result.epoch == line.head.epoch and ours not in {None, result.digest}:
        line = replace(line, locked=line.locked or FORK)
    line = _heard_of(line, (result.epoch, result.seq))
    differs = known is not None and not same_outcome(known, result)
    if result.journal != line.journal:
        step = ResultStep.LATE if known is None else ResultStep.AGAIN
        return (ResultStep.EQUIVOCATION if differs else step), line
    if result.n > line.results + 1:
        return ResultStep.GAP, line
    if result.n <= line.results:
        fine = known is not None and not differs
        return (ResultStep.AGAIN if fine else ResultStep.EQUIVOCATION), line
    step = ResultStep.NEW if known is None else ResultStep.AGAIN
    counted = replace(line, results=result.n)
    return (ResultStep.EQUIVOCATION if differs else step), counted


def _heard_of(line: Line, place: tuple[int, int]) -> Line:
    """A result proves that its command was consumed, even when we, or the appliance's journal, no longer know it."""
    locked = line.locked
    if place > (line.head.epoch, line.head.have):
        locked = locked or BEHIND
    return replace(line, seen=max(line.seen, place), locked=locked)


def receipt_due(line: Line) -> ResultsThrough | None:
    """Return what the next receipt says, None if the appliance was told already."""
    if line.results <= line.receipted or not line.journal:
        return None
    return ResultsThrough(journal=line.journal, n=line.results)


def mark_receipted(line: Line, through: ResultsThrough | None) -> Line:
    """Return the line when a receipt, or a command's `results_through`, is stored."""
    if through is None or through.journal != line.journal:
        return line
    return replace(line, receipted=max(line.receipted, through.n))


# --- time -------------------------------------------------------------------------------------------------


def make_time(line: Line, nonce: bytes, *, now: int, manifest_serial: int, link: bytes) -> Time:
    """Return the answer to an appliance's question for the time; sign it as `Kind.TIME`.

    `seen` makes a journal that is an older copy lock itself. One that lacks results but no commands could not tell by
    `have`, so it is given one more.
    """
    epoch, have = line.seen
    if line.short and line.offer is not None:
        epoch, have = max(line.seen, (line.offer.from_, line.offer.have))
    return Time(
        nonce=nonce,
        appliance=line.appliance,
        now=now,
        manifest_serial=manifest_serial,
        epoch=epoch,
        seen=have + 1 if line.short else have,
        link=link,
    )


def link_fits(returned: bytes, *, confirmed: bytes, issued: Iterable[bytes]) -> bool:
    """Whether the link that a hello returns is one that its appliance can hold.

    Args:
        returned: `hello.link`; empty before the first signed time.
        confirmed: The last link that a hello returned, b"" if none did.
        issued: Links of the times signed since: an answer may have been lost on its way.
    """
    return returned == confirmed or returned in tuple(issued)
