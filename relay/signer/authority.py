"""What the signer signs with: keys, key manifest, clock, randomness, limits. State of the process, not of the database.

Used from the database's thread inside a transaction; `ring` is replaced from there too, after the manifest
was stored.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.keys import KeyRing
from protocol.messages import Kind, Layout, Role
from protocol.signed import sign
from relay.signer.config import Limits
from relay.signer.errors import BadConfig
from relay.signer.keys import ChosenKey, SignerKeys


@dataclass(slots=True)
class Authority:
    """The signer's power to sign.

    Attributes:
        keys: Private keys.
        ring: The key manifest in force.
        now: Wall clock, ms UTC.
        random: Bytes from the operating system (an argument, so that tests can be exact).
        limits: Bounds from the configuration.
        valid_ms: Validity of an order whose spec does not say.
    """

    keys: SignerKeys
    ring: KeyRing
    now: Callable[[], int]
    random: Callable[[int], bytes] = field(repr=False)
    limits: Limits = field(default_factory=Limits)
    valid_ms: int = 24 * 3600 * 1000

    def key(self, role: Role, tenant: str) -> ChosenKey:
        """Return the key of this role for this tenant. Raises NoKey."""
        return self.keys.choose(self.ring, role, tenant=tenant, now=self.now())

    def sign(self, kind: Kind, layout: Layout, *, role: Role, tenant: str) -> bytes:
        """Sign a layout with the role's key. Raises NoKey."""
        return sign(kind, layout, self.key(role, tenant).key)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One signed thing that is to go to the relay now, and is not kept in the outbox."""

    kind: str
    tenant: str
    appliance: str
    env: bytes = field(repr=False)


@dataclass(slots=True)
class Effects:
    """What a transaction wants to happen once it is durable.

    Attributes:
        poke: Appliances for which the outbox has news.
        replay: Appliances whose record and epoch order are pushed (again).
        refill: Appliance -> first seq that it lacks: the relay must hold everything from there.
        receipts: Appliances that are to be told which of their results are durable.
        outgoing: Signed things that are pushed as they are.
        manifest: The key manifest in force is another one.
        notes: (event, fields) for the log.
    """

    poke: set[str] = field(default_factory=set)
    replay: set[str] = field(default_factory=set)
    refill: dict[str, int] = field(default_factory=dict)
    receipts: set[str] = field(default_factory=set)
    outgoing: list[Outgoing] = field(default_factory=list)
    manifest: bool = False
    notes: list[tuple[str, dict[str, str | int]]] = field(default_factory=list)

    def note(self, event: str, **fields: str | int) -> None:
        """Log this once the transaction is durable."""
        self.notes.append((event, fields))


def trusted_ring(
    conn: sqlite3.Connection, *, root: bytes, configured: bytes | None, at: int
) -> KeyRing:
    """Return the key manifest in force: the stored one, or the configured file's if that is newer.

    Raises:
        BadConfig: There is none.
        ProtocolError: The file is not signed by this root, or contradicts the stored one.
    """
    row = conn.execute("SELECT env FROM manifests ORDER BY serial DESC LIMIT 1").fetchone()
    stored = KeyRing.open(bytes(row["env"]), root=root) if row else None
    if configured is None:
        if stored is None:
            raise BadConfig("there is no key manifest, neither in the file nor in the database")
        return stored
    offered = KeyRing.open(configured, root=root)
    if stored is not None and offered.manifest.serial < stored.manifest.serial:
        return stored
    ring = KeyRing.open(configured, root=root, trusted=stored)
    store_manifest(conn, ring, at=at)
    return ring


def store_manifest(conn: sqlite3.Connection, ring: KeyRing, *, at: int) -> None:
    """Keep a verified key manifest."""
    conn.execute(
        "INSERT OR IGNORE INTO manifests VALUES (?, ?, ?)", (ring.manifest.serial, ring.raw, at)
    )
