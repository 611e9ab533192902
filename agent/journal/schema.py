"""The journal's tables and how a connection to them is opened. No queries.

| table | one row per | erased |
|---|---|---|
| state | only one: `protocol.inbox.InboxState` | never |
| meta | named value: time floor, key manifest, record, limits | never |
| inbox | consumed command, by (epoch, seq) | envelope when final (secrets), row beyond the last 10,000 |
| jobs | consumed command, by digest | with its confirmed result |
| receipts | acknowledged range of a line of retries | when the line succeeded or was cancelled |
| intents | object that a line was about to create | never while it may exist |
| results | numbered result of this journal's life | never; report: confirmed, 30 days and 1,000 results ago |
| counters | refusal or nack code | never |
"""

import sqlite3
from pathlib import Path

from agent.journal.errors import JournalTooNew, JournalUnusable

VERSION = 1
BUSY_S = 10.0

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;

CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, have INTEGER NOT NULL,
    hash BLOB NOT NULL, began BLOB NOT NULL, journal BLOB NOT NULL, results_last INTEGER NOT NULL,
    confirmed INTEGER NOT NULL, locked TEXT NOT NULL, inventory_due INTEGER NOT NULL
) STRICT;

CREATE TABLE inbox (
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL, id BLOB NOT NULL,
    envelope BLOB,
    PRIMARY KEY (epoch, seq)
) STRICT;
CREATE INDEX inbox_id ON inbox (id);

CREATE TABLE jobs (
    digest BLOB PRIMARY KEY, id BLOB NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    kid BLOB NOT NULL, op TEXT NOT NULL, workflow TEXT, state TEXT NOT NULL,
    exp INTEGER NOT NULL, start_by INTEGER, accepted INTEGER NOT NULL, started INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0, checkpoint_attempt INTEGER NOT NULL DEFAULT 0,
    origin BLOB NOT NULL, retried INTEGER NOT NULL DEFAULT 0,
    no_return INTEGER NOT NULL DEFAULT 0, code TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_open ON jobs (state)
    WHERE state IN ('accepted', 'waiting', 'running', 'cancelling');

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
    journal BLOB NOT NULL, n INTEGER NOT NULL, digest BLOB NOT NULL UNIQUE,
    ended INTEGER NOT NULL, envelope BLOB NOT NULL, report BLOB NOT NULL,
    PRIMARY KEY (journal, n)
) STRICT;

CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT;
"""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open (or make) the journal for its one writer: WAL, every commit fsynced, freed bytes overwritten.

    Raises:
        JournalUnusable, JournalTooNew.
    """
    try:
        conn = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as err:
        raise _unusable(path, err) from err
    try:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA secure_delete = ON")
        _migrate(conn)
    except JournalTooNew:
        conn.close()
        raise
    except sqlite3.Error as err:
        conn.close()
        raise _unusable(path, err) from err
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


def _unusable(path: Path, err: sqlite3.Error) -> JournalUnusable:
    return JournalUnusable(f"{path}: {err}", path=str(path))
