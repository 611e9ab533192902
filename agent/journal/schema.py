"""The journal's tables and how a connection to them is opened. No queries.

| table | one row per | erased |
|---|---|---|
| meta | named value: journal id, epoch, have, head, floor, key manifest, limits | never |
| inbox | consumed command, by (epoch, seq) | envelope when final (secrets), row beyond the last 10,000 |
| jobs | consumed command, by digest | with its confirmed result |
| receipts | acknowledged range of a line of retries | when the line succeeded or was cancelled |
| intents | object that a line was about to create | never while it may exist |
| results | numbered result | confirmed and older than the last 1,000 |
| counters | refusal or nack code | never |
"""

import sqlite3
from pathlib import Path

from agent.journal.errors import JournalTooNew, JournalUnusable

VERSION = 1
BUSY_S = 10.0

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;

CREATE TABLE inbox (
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL, id BLOB NOT NULL,
    envelope BLOB,
    PRIMARY KEY (epoch, seq)
) STRICT;
CREATE INDEX inbox_id ON inbox (id);

CREATE TABLE jobs (
    digest BLOB PRIMARY KEY, id BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    op TEXT NOT NULL, workflow TEXT, state TEXT NOT NULL, accepted INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, barren INTEGER NOT NULL DEFAULT 0,
    started INTEGER, ended INTEGER, origin BLOB NOT NULL, retried INTEGER NOT NULL DEFAULT 0,
    no_return INTEGER NOT NULL DEFAULT 0, n INTEGER
) STRICT;
CREATE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_open ON jobs (state) WHERE n IS NULL;

CREATE TABLE checkpoints (origin BLOB PRIMARY KEY, data BLOB NOT NULL) STRICT;

CREATE TABLE receipts (
    origin BLOB NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, digests BLOB NOT NULL,
    PRIMARY KEY (origin, offset)
) WITHOUT ROWID, STRICT;

CREATE TABLE intents (
    origin BLOB NOT NULL, kind TEXT NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL,
    object_id TEXT NOT NULL DEFAULT '', state TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (origin, kind, scope, name)
) WITHOUT ROWID, STRICT;

CREATE TABLE results (
    n INTEGER PRIMARY KEY, id BLOB NOT NULL, digest BLOB NOT NULL, status TEXT NOT NULL,
    ended INTEGER NOT NULL, envelope BLOB NOT NULL, report BLOB NOT NULL
) STRICT;
CREATE INDEX results_digest ON results (digest);

CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT;
"""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open (or make) the journal for its one writer: WAL, every commit fsynced, freed bytes overwritten.

    Raises:
        JournalUnusable, JournalTooNew.
    """
    try:
        conn = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA secure_delete = ON")
        _migrate(conn)
    except sqlite3.Error as err:
        msg = f"{path}: {err}"
        raise JournalUnusable(msg, path=str(path)) from err
    return conn


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a read-only connection, for the thread that calls."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)


def _migrate(conn: sqlite3.Connection) -> None:
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        msg = f"the journal has layout {version}, this release knows {VERSION}"
        raise JournalTooNew(msg, found=version, expected=VERSION)
    if version == 0:
        conn.executescript(f"BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version = {VERSION};COMMIT;")
