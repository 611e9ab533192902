"""The SQLite schema and its migrations: each entry of MIGRATIONS is one release's step, never edited afterwards."""

import sqlite3

from relay.errors import StoreNewer

MIGRATIONS: tuple[str, ...] = (
    # 1: first release. Times are ms UTC; ids, digests and envelopes are blobs. Long blobs come last, so that a look at
    # the other columns does not walk their overflow pages; tables of short rows have no rowid: a page less a write.
    """
    CREATE TABLE kept (
        tenant TEXT NOT NULL, appliance TEXT NOT NULL, kind TEXT NOT NULL,
        serial INTEGER NOT NULL, env BLOB NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (tenant, appliance, kind)
    ) STRICT;

    CREATE TABLE appliance (
        tenant TEXT NOT NULL, id TEXT NOT NULL,
        generation INTEGER NOT NULL DEFAULT 0, connected INTEGER NOT NULL DEFAULT 0,
        since INTEGER NOT NULL DEFAULT 0, last_seen INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0, have INTEGER NOT NULL DEFAULT 0,
        journal BLOB NOT NULL DEFAULT x'',
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;

    -- state: 0 pending, 1 acked, 2 quarantined, 3 retired by a higher epoch; of one seq at most one is not quarantined
    CREATE TABLE command (
        tenant TEXT NOT NULL, appliance TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
        digest BLOB NOT NULL, id BLOB NOT NULL, op TEXT NOT NULL, iat INTEGER NOT NULL, exp INTEGER NOT NULL,
        workflow TEXT, size INTEGER NOT NULL, state INTEGER NOT NULL, stored_at INTEGER NOT NULL, env BLOB NOT NULL,
        PRIMARY KEY (tenant, appliance, epoch, seq, digest)
    ) STRICT;
    CREATE INDEX command_pending ON command (tenant, appliance, epoch, seq, size) WHERE state = 0;

    CREATE TABLE journal (
        tenant TEXT NOT NULL, appliance TEXT NOT NULL, journal BLOB NOT NULL,
        through INTEGER NOT NULL, first_at INTEGER NOT NULL,
        PRIMARY KEY (tenant, appliance, journal)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE result (
        tenant TEXT NOT NULL, appliance TEXT NOT NULL, journal BLOB NOT NULL, n INTEGER NOT NULL,
        id BLOB NOT NULL, digest BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, op TEXT NOT NULL,
        status TEXT NOT NULL, code TEXT, workflow TEXT, env BLOB NOT NULL, report BLOB NOT NULL,
        stored_at INTEGER NOT NULL,
        PRIMARY KEY (tenant, appliance, journal, n)
    ) STRICT;

    -- A job keeps its result's bytes itself: what people read does not depend on the queues above.
    CREATE TABLE job (
        tenant TEXT NOT NULL, id BLOB NOT NULL, appliance TEXT NOT NULL, op TEXT NOT NULL,
        epoch INTEGER NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL, state TEXT NOT NULL,
        created INTEGER NOT NULL, updated INTEGER NOT NULL, ord INTEGER NOT NULL, workflow TEXT,
        progress BLOB, progress_event INTEGER NOT NULL, event_journal BLOB NOT NULL, event_n INTEGER NOT NULL,
        message TEXT, code TEXT, result BLOB, report BLOB NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT;
    CREATE UNIQUE INDEX job_order ON job (tenant, ord);
    CREATE INDEX job_appliance ON job (tenant, appliance, ord);
    CREATE INDEX job_progress ON job (tenant, progress_event);

    CREATE TABLE event (
        tenant TEXT NOT NULL, id INTEGER NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL,
        job BLOB NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX event_job ON event (tenant, job, id);

    CREATE TABLE answer (
        tenant TEXT NOT NULL, caller TEXT NOT NULL, key TEXT NOT NULL, body_hash BLOB NOT NULL,
        status INTEGER NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (tenant, caller, key)
    ) STRICT;
    CREATE INDEX answer_at ON answer (at);

    CREATE TABLE artifact (
        tenant TEXT NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (tenant, sha256)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE audit (
        tenant TEXT NOT NULL, n INTEGER NOT NULL, at INTEGER NOT NULL, actor TEXT NOT NULL,
        action TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (tenant, n)
    ) STRICT, WITHOUT ROWID;
    """,
)


def migrate(conn: sqlite3.Connection, *, now: int) -> None:
    """Bring the schema to this release's version, one transaction a step.

    Raises:
        StoreNewer: The database knows a migration that this release does not.
        sqlite3.Error.
    """
    conn.execute(
        "CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT"
    )
    (version,) = conn.execute("SELECT coalesce(max(version), 0) FROM migration").fetchone()
    if version > len(MIGRATIONS):
        raise StoreNewer(
            f"the database has schema {version}, this release knows up to {len(MIGRATIONS)}",
            found=version,
            expected=len(MIGRATIONS),
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        done = f"INSERT INTO migration VALUES ({number}, {int(now)})"  # noqa: S608  # two integers
        conn.executescript(f"BEGIN IMMEDIATE; {script}; {done}; COMMIT;")
