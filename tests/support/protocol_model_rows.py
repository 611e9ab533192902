"""What the agent of the protocol model keeps: its journal's rows and what its jobs did to the world. Values only."""

from dataclasses import dataclass, field

from protocol.inbox import (
    InboxState,
)
from protocol.jobs import FINAL, State
from protocol.keys import KeyRing
from protocol.messages import (
    Command,
    Inventory,
    InventoryItem,
    Result,
)


@dataclass
class Job:
    """One row of the journal."""

    command: Command
    digest: bytes
    kid: bytes
    state: State = State.ACCEPTED
    attempt: int = 0
    checkpoint: int = 0
    code: str = ""
    after: bytes = b""


@dataclass
class Rows:
    """What is durable."""

    state: InboxState
    ring: KeyRing
    by_seq: dict[tuple[int, int], bytes] = field(default_factory=dict)
    by_id: dict[bytes, bytes] = field(default_factory=dict)
    jobs: dict[bytes, Job] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    floor: int = 0
    manifest_wanted: int = 1
    link: bytes = b""


@dataclass
class Effects:
    """The world outside: what the jobs did, and the notes that the invariants need.

    Attributes:
        ran: Command id -> how often its work was done.
        done: Ids whose work was done at least once.
        final_here: Ids that this journal, as it is now, has called final.
        broken: What must never happen and did.
        acked: Highest (epoch, have) that the device acknowledged.
        consumed: Digests of all commands that any life of the journal consumed.
    """

    ran: dict[bytes, int] = field(default_factory=dict)
    done: set[bytes] = field(default_factory=set)
    final_here: set[bytes] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    acked: tuple[int, int] = (0, 0)
    consumed: set[bytes] = field(default_factory=set)


def inventory_of(rows: Rows) -> Inventory:
    """Return every command that is not final, or whose result is not confirmed."""
    state = rows.state
    numbers = {result.digest: result.n for result in rows.results}
    items = tuple(
        InventoryItem(
            id=job.command.id,
            digest=job.digest,
            state=job.state.value,
            n=numbers.get(job.digest),
        )
        for job in rows.jobs.values()
        if job.state not in FINAL or numbers.get(job.digest, 0) > state.confirmed
    )
    return Inventory(
        epoch=state.head.epoch,
        have=state.head.have,
        head=state.head.hash,
        journal=state.journal,
        commands=items,
    )
