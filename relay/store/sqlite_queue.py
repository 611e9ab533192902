"""Appliances and their command queues in SQLite: links, envelopes, acks, quarantine. Runs in the writer's thread.

Reading functions take a plain connection, so the reader's thread uses them too.
"""

import hashlib
import sqlite3
from typing import Any, Literal

from relay.errors import Backlog, EnvelopeQuarantined, SeqTaken
from relay.store import rules
from relay.store.base import (
    EVERYWHERE,
    MAX_BACKLOG,
    MAX_BACKLOG_BYTES,
    Appliance,
    Command,
    Head,
    Kept,
    KeptKind,
    Link,
)
from relay.store.sqlite_ledger import Ledger, find_job

PENDING, ACKED, QUARANTINED, RETIRED = range(4)
_COMMAND = "tenant, appliance, epoch, seq, digest, id, op, iat, exp, workflow, env"
_APPLIANCE = """
    SELECT tenant, id, generation, connected, since, last_seen, epoch, have, journal,
        coalesce((SELECT through FROM journal j WHERE j.tenant = a.tenant AND j.appliance = a.id
            AND j.journal = a.journal), 0),
        (SELECT count(*) FROM command c WHERE c.tenant = a.tenant AND c.appliance = a.id AND c.state = 0)
    FROM appliance a
"""


# --- reads ---


def find_kept(conn: sqlite3.Connection, tenant: str, appliance: str, kind: KeptKind) -> Kept | None:
    """Return the newest signed thing of a kind."""
    row = conn.execute(
        "SELECT kind, serial, env, at FROM kept WHERE tenant = ? AND appliance = ? AND kind = ?",
        (tenant, EVERYWHERE if kind == "manifest" else appliance, kind),
    ).fetchone()
    return None if row is None else Kept(*row)


def list_commands(
    conn: sqlite3.Connection, tenant: str, appliance: str, *, epoch: int, seq: int, limit: int
) -> tuple[Command, ...]:
    """Return envelopes that may be offered, from `seq` on without a gap."""
    rows = conn.execute(
        f"SELECT {_COMMAND} FROM command WHERE tenant = ? AND appliance = ? AND epoch = ? AND seq >= ? "  # noqa: S608  # constants
        "AND state IN (0, 1) AND state != 2 ORDER BY seq LIMIT ?",
        (tenant, appliance, epoch, seq, limit),
    )
    found: list[Command] = []
    for command in (Command(*row) for row in rows):
        if command.seq != seq + len(found):
            break
        found.append(command)
    return tuple(found)


def list_appliances(
    conn: sqlite3.Connection, tenant: str, *, after: str, limit: int
) -> tuple[Appliance, ...]:
    """Return appliances by id."""
    sql = f"{_APPLIANCE} WHERE a.tenant = ? AND a.id > ? ORDER BY a.id LIMIT ?"
    return tuple(_appliance(row) for row in conn.execute(sql, (tenant, after, limit)))


def find_appliance(conn: sqlite3.Connection, tenant: str, appliance: str) -> Appliance | None:
    """Return one appliance."""
    sql = f"{_APPLIANCE} WHERE a.tenant = ? AND a.id = ?"
    row = conn.execute(sql, (tenant, appliance)).fetchone()
    return None if row is None else _appliance(row)


def list_heads(conn: sqlite3.Connection, tenant: str) -> tuple[Head, ...]:
    """Return how far contiguous commands and results reach, of every appliance."""
    sql = f"{_APPLIANCE} WHERE ? IN ('{EVERYWHERE}', a.tenant) ORDER BY a.tenant, a.id"
    return tuple(_head(conn, _appliance(row)) for row in conn.execute(sql, (tenant,)).fetchall())


def _head(conn: sqlite3.Connection, view: Appliance) -> Head:
    (top,) = conn.execute(
        "SELECT coalesce(max(epoch), 0) FROM command WHERE tenant = ? AND appliance = ?",
        (view.tenant, view.id),
    ).fetchone()
    epoch = max(view.epoch, top)
    seq = view.have if epoch == view.epoch else 0
    rows = conn.execute(
        "SELECT seq FROM command WHERE tenant = ? AND appliance = ? AND epoch = ? AND seq > ? "
        "AND state IN (0, 1) ORDER BY seq",
        (view.tenant, view.id, epoch, seq),
    )
    for (found,) in rows:
        if found != seq + 1:
            break
        seq = found
    return Head(view.tenant, view.id, epoch, seq, view.journal, view.through, view.connected)


def _appliance(row: tuple[Any, ...]) -> Appliance:
    fields: list[Any] = [*row[:3], bool(row[3]), *row[4:]]
    return Appliance(*fields)


# --- writes ---


def ensure_appliance(ledger: Ledger, tenant: str, appliance: str) -> None:
    """Make the appliance's row on first use."""
    ledger.conn.execute(
        "INSERT OR IGNORE INTO appliance (tenant, id) VALUES (?, ?)", (tenant, appliance)
    )


def keep(
    ledger: Ledger, tenant: str, appliance: str, item: Kept, *, actor: str, now: int
) -> Literal["new", "same", "stale"]:
    """Keep the newest signed thing of a kind."""
    place = EVERYWHERE if item.kind == "manifest" else appliance
    old = find_kept(ledger.conn, tenant, place, item.kind)
    verdict = rules.keeps(old, item)
    if verdict != "new":
        return verdict
    _put(ledger, tenant, place, item)
    if item.kind == "epoch":
        delivered(ledger, tenant, appliance, epoch=item.serial, have=0, now=now)
    if item.kind in ("manifest", "record", "epoch"):
        ledger.note(tenant, actor, f"{item.kind}.kept", place, f"serial {item.serial}", now)
    return "new"


def _put(ledger: Ledger, tenant: str, place: str, item: Kept) -> None:
    if place != EVERYWHERE:
        ensure_appliance(ledger, tenant, place)
    row = (tenant, place, item.kind, item.serial, item.env, item.at)
    ledger.conn.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?)", row)


def open_link(  # noqa: PLR0917  # the hello's facts
    ledger: Ledger,
    tenant: str,
    appliance: str,
    epoch: int,
    have: int,
    journal: bytes,
    confirmed: int,
    now: int,
) -> Link:
    """Mark online and allocate the next generation."""
    conn = ledger.conn
    ensure_appliance(ledger, tenant, appliance)
    through = raise_through(conn, tenant, appliance, journal, at_least=confirmed, now=now)
    delivered(ledger, tenant, appliance, epoch=epoch, have=have, now=now)
    (generation,) = conn.execute(
        "UPDATE appliance SET generation = generation + 1, connected = 1, since = ?, last_seen = ?, epoch = ?, "
        "have = ?, journal = ? WHERE tenant = ? AND id = ? RETURNING generation",
        (now, now, epoch, have, journal, tenant, appliance),
    ).fetchone()
    _presence(ledger, tenant, appliance, connected=True, generation=generation, now=now)
    return Link(generation, through)


def close_link(ledger: Ledger, tenant: str, appliance: str, generation: int, now: int) -> bool:
    """Mark offline if this generation is the newest."""
    changed = ledger.conn.execute(
        "UPDATE appliance SET connected = 0, since = ?, last_seen = ? "
        "WHERE tenant = ? AND id = ? AND generation = ? AND connected = 1",
        (now, now, tenant, appliance, generation),
    ).rowcount
    if changed:
        _presence(ledger, tenant, appliance, connected=False, generation=generation, now=now)
    return bool(changed)


def _presence(
    ledger: Ledger, tenant: str, appliance: str, *, connected: bool, generation: int, now: int
) -> None:
    data = rules.appliance_data(appliance, connected=connected, generation=generation, at=now)
    ledger.log(tenant, "appliance", job=b"", now=now, data=data)


def raise_through(
    conn: sqlite3.Connection,
    tenant: str,
    appliance: str,
    journal: bytes,
    *,
    at_least: int,
    now: int,
) -> int:
    """Move a journal's `through` up to `at_least` and on over results that are there without a gap."""
    key = (tenant, appliance, journal)
    conn.execute("INSERT OR IGNORE INTO journal VALUES (?, ?, ?, 0, ?)", (*key, now))
    where = "WHERE tenant = ? AND appliance = ? AND journal = ?"
    (before,) = conn.execute(f"SELECT through FROM journal {where}", key).fetchone()  # noqa: S608  # constants
    through = max(before, at_least)
    for (n,) in conn.execute(
        f"SELECT n FROM result {where} AND n > ? ORDER BY n",  # noqa: S608  # constants
        (*key, through),
    ):
        if n != through + 1:
            break
        through = n
    if through != before:
        conn.execute(f"UPDATE journal SET through = ? {where}", (through, *key))  # noqa: S608  # constants
    return int(through)


def add_command(
    ledger: Ledger, command: Command, *, actor: str, now: int
) -> Literal["new", "same"]:
    """Queue an envelope with its job row."""
    conn = ledger.conn
    if _held(conn, command):
        return "same"
    state = _place(ledger, command)
    _insert(conn, command, state, now)
    old = find_job(conn, command.tenant, command.id)
    if old is None:
        order = ledger.event_id(now)
        ledger.save_job(None, rules.job_of_command(command, order=order, now=now))
    else:
        ledger.save_job(old, rules.requeued(old, command, now=now))
    if state == ACKED:
        _acknowledge(ledger, command.tenant, [(command.id, command.digest)], now)
    ledger.note(
        command.tenant, actor, "command.stored", command.id.hex(), command.digest.hex(), now
    )
    return "new"


def _insert(conn: sqlite3.Connection, command: Command, state: int, now: int) -> None:
    row = (
        command.tenant, command.appliance, command.epoch, command.seq, command.digest, command.id, command.op,
        command.iat, command.exp, command.workflow, len(command.env), state, now, command.env,
    )  # fmt: skip
    conn.execute(f"INSERT INTO command VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608  # constants


def _held(conn: sqlite3.Connection, command: Command) -> bool:
    """Whether this very envelope is here; raise if it, or another one in its place, keeps it out."""
    rows = conn.execute(
        "SELECT digest, state FROM command WHERE tenant = ? AND appliance = ? AND epoch = ? AND seq = ?",
        (command.tenant, command.appliance, command.epoch, command.seq),
    ).fetchall()
    for digest, state in rows:
        if digest == command.digest and state == QUARANTINED:
            raise EnvelopeQuarantined(
                f"{command.appliance} refused envelope {digest.hex()} before", digest=digest.hex()
            )
        if digest != command.digest and state != QUARANTINED:
            raise SeqTaken(
                f"epoch {command.epoch} seq {command.seq} of {command.appliance} is another command",
                held=digest.hex(),
                offered=command.digest.hex(),
            )
    return any(digest == command.digest for digest, _ in rows)


def _place(ledger: Ledger, command: Command) -> int:
    """Return the state that the command begins in; raise Backlog if it may not wait."""
    conn, key = ledger.conn, (command.tenant, command.appliance)
    row = conn.execute(
        "SELECT epoch, have, coalesce((SELECT serial FROM kept k WHERE k.tenant = a.tenant AND k.appliance = a.id "
        "AND k.kind = 'epoch'), 0) FROM appliance a WHERE tenant = ? AND id = ?",
        key,
    ).fetchone()
    if row is None:
        ensure_appliance(ledger, *key)
    epoch, have, ordered = row or (0, 0, 0)
    if command.epoch < max(epoch, ordered):
        return RETIRED
    if command.epoch == epoch and command.seq <= have:
        return ACKED
    _check_room(conn, command)
    return PENDING


def _check_room(conn: sqlite3.Connection, command: Command) -> None:
    count, size = conn.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM command WHERE tenant = ? AND appliance = ? AND state = 0",
        (command.tenant, command.appliance),
    ).fetchone()
    if count >= MAX_BACKLOG or size + len(command.env) > MAX_BACKLOG_BYTES:
        raise Backlog(
            f"{count} commands ({size} bytes) wait for {command.appliance}, "
            f"at most {MAX_BACKLOG} and {MAX_BACKLOG_BYTES} bytes may",
            waiting=count,
            bytes=size,
        )


def delivered(
    ledger: Ledger, tenant: str, appliance: str, *, epoch: int, have: int, now: int
) -> None:
    """Mark commands up to `have` of `epoch` as delivered and those of lower epochs as retired."""
    conn, key = ledger.conn, (tenant, appliance)
    conn.execute(
        f"UPDATE command SET state = {RETIRED} WHERE tenant = ? AND appliance = ? AND state = 0 AND epoch < ?",  # noqa: S608  # constants
        (*key, epoch),
    )
    rows = conn.execute(
        f"UPDATE command SET state = {ACKED} WHERE tenant = ? AND appliance = ? AND state = 0 AND epoch = ? "  # noqa: S608  # constants
        "AND seq <= ? RETURNING id, digest, seq",
        (*key, epoch, have),
    ).fetchall()
    _acknowledge(ledger, tenant, [row[:2] for row in sorted(rows, key=lambda row: row[2])], now)


def _acknowledge(ledger: Ledger, tenant: str, ids: list[tuple[bytes, bytes]], now: int) -> None:
    for job in ledger.jobs_of(tenant, ids):
        ledger.save_job(job, rules.acknowledged(job, now=now))


def ack(  # noqa: PLR0917  # the ack's facts
    ledger: Ledger, tenant: str, appliance: str, epoch: int, have: int, env: bytes, now: int
) -> bool:
    """Note what is delivered."""
    _put(ledger, tenant, appliance, Kept("ack", have, env, now))
    news = ledger.conn.execute(
        "UPDATE appliance SET epoch = ?, have = ?, last_seen = ? "
        "WHERE tenant = ? AND id = ? AND (epoch, have) < (?, ?)",
        (epoch, have, now, tenant, appliance, epoch, have),
    ).rowcount
    if news:
        delivered(ledger, tenant, appliance, epoch=epoch, have=have, now=now)
    return bool(news)


def quarantine(  # noqa: PLR0917  # the nack's facts
    ledger: Ledger, tenant: str, appliance: str, digest: bytes, code: str, nack: Kept, now: int
) -> Command | None:
    """Never offer this envelope again, and keep the nack that says so."""
    row = ledger.conn.execute(
        f"UPDATE command SET state = {QUARANTINED} WHERE tenant = ? AND appliance = ? AND digest = ? AND state = 0 "  # noqa: S608  # constants
        f"RETURNING {_COMMAND}",
        (tenant, appliance, digest),
    ).fetchone()
    if row is None:
        return None
    command = Command(*row)
    _put(ledger, tenant, appliance, nack)
    for job in ledger.jobs_of(tenant, [(command.id, digest)]):
        ledger.save_job(job, rules.quarantined(job, code=code, now=now))
    ledger.note(tenant, appliance, "command.quarantined", command.id.hex(), code, now)
    return command


def drop_damaged(  # noqa: PLR0917  # the nack's facts
    ledger: Ledger, tenant: str, appliance: str, epoch: int, seq: int, name: bytes, now: int
) -> Command | None:
    """Forget a waiting envelope that is not what was signed, so that the signer's next push is taken."""
    where = f"tenant = ? AND appliance = ? AND epoch = ? AND seq = ? AND state = {PENDING}"
    place = (tenant, appliance, epoch, seq)
    row = ledger.conn.execute(f"SELECT {_COMMAND} FROM command WHERE {where}", place).fetchone()  # noqa: S608  # constants
    if row is None:
        return None
    command = Command(*row)
    if hashlib.sha256(command.env).digest() != name:
        return None
    ledger.conn.execute(f"DELETE FROM command WHERE {where}", place)  # noqa: S608  # constants
    ledger.note(tenant, appliance, "command.damaged", command.id.hex(), name.hex(), now)
    return command
