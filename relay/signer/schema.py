"""The tables of the signer's database, and how an older file becomes a newer one. Reads and writes no rows.

| table | holds | forgotten |
|---|---|---|
| manifests | key manifests that the signer trusted, byte for byte | never |
| appliances | record, keys, and the line: epoch, head, what the appliance stated, lock | never |
| orders | each order: who asked, which envelope counts, how it ended if no appliance can say | never |
| envelopes | each signed command with its place in the chain | never |
| links | links of signed times that no hello returned yet | when one is returned |
| epochs | each signed epoch order with the inventory that answered it | never |
| results | each verified result; `stands` marks the first for its command | never |
| tokens, token_uses | enrolment tokens (secret sealed to the vault key) and who used them | never |
| callers | who may ask, with which key and role | never |
| idempotency | what a caller's key was answered, so that a repeated request makes nothing new | never |
| audit | who did what, append-only, each row hashed over the one before | never |
| temp checked | appliances that were compared since this process started | with the process |
"""

import sqlite3

from relay.signer.errors import BadConfig

VERSION = 1

_TABLES = """
CREATE TABLE manifests (
    serial INTEGER PRIMARY KEY, env BLOB NOT NULL, at INTEGER NOT NULL
) STRICT;

CREATE TABLE appliances (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL,
    device_key BLOB NOT NULL UNIQUE, seal_key BLOB NOT NULL,
    serial INTEGER NOT NULL, record BLOB NOT NULL,
    replaces TEXT, revoked INTEGER, enrolled INTEGER NOT NULL,
    -- the line (protocol.issuer.Line)
    epoch INTEGER NOT NULL, have INTEGER NOT NULL, hash BLOB NOT NULL,
    seen_epoch INTEGER NOT NULL, seen_have INTEGER NOT NULL,
    journal BLOB NOT NULL, results INTEGER NOT NULL, receipted INTEGER NOT NULL,
    offer BLOB, hello_nonce BLOB NOT NULL, short INTEGER NOT NULL, locked TEXT NOT NULL,
    -- digest of the record or epoch payload that began the epoch: the chain's hash at 0
    began BLOB NOT NULL,
    -- the last verified hello's payload and when it came
    hello BLOB, hello_at INTEGER,
    -- the link that its last hello returned
    link BLOB NOT NULL,
    -- requests that were signed before this moment are refused: their answers may be lost
    orders_after INTEGER NOT NULL
) STRICT;
CREATE INDEX appliances_tenant ON appliances (tenant, id);

-- links of signed times since the appliance last returned one in a hello
CREATE TABLE links (
    appliance TEXT NOT NULL REFERENCES appliances (id), link BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (appliance, link)
) STRICT;

CREATE TABLE orders (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL,
    appliance TEXT NOT NULL REFERENCES appliances (id),
    -- of the envelope that counts: an order that an epoch left behind is signed again
    digest BLOB NOT NULL UNIQUE, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    op TEXT NOT NULL, workflow TEXT, caller TEXT NOT NULL, request BLOB, created INTEGER NOT NULL,
    -- the failed command that this one retries; NULL again if this one was never delivered
    retry_of BLOB UNIQUE,
    -- code with which the signer ended an order that no appliance will ever answer
    ended TEXT,
    UNIQUE (tenant, request)
) STRICT;
CREATE INDEX orders_tenant ON orders (tenant, n);
CREATE INDEX orders_appliance ON orders (appliance, n);

CREATE TABLE envelopes (
    appliance TEXT NOT NULL REFERENCES appliances (id),
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    id BLOB NOT NULL REFERENCES orders (id), digest BLOB NOT NULL UNIQUE,
    chain BLOB NOT NULL, kid BLOB NOT NULL, env BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (appliance, epoch, seq)
) STRICT;

CREATE TABLE epochs (
    appliance TEXT NOT NULL REFERENCES appliances (id), epoch INTEGER NOT NULL,
    env BLOB NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL, inventory BLOB,
    PRIMARY KEY (appliance, epoch)
) STRICT;

CREATE TABLE results (
    appliance TEXT NOT NULL REFERENCES appliances (id), journal BLOB NOT NULL, n INTEGER NOT NULL,
    tenant TEXT NOT NULL, id BLOB NOT NULL, digest BLOB NOT NULL,
    env BLOB NOT NULL, report BLOB NOT NULL, status TEXT NOT NULL, at INTEGER NOT NULL,
    stands INTEGER NOT NULL,
    PRIMARY KEY (appliance, journal, n)
) STRICT;
CREATE UNIQUE INDEX results_standing ON results (appliance, digest) WHERE stands = 1;
CREATE INDEX results_id ON results (id);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL,
    secret_kid BLOB NOT NULL, secret_ct BLOB NOT NULL,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0), exp INTEGER NOT NULL,
    replaces TEXT, created INTEGER NOT NULL
) STRICT;

CREATE TABLE token_uses (
    token TEXT NOT NULL REFERENCES tokens (id), device_key BLOB NOT NULL, seal_key BLOB NOT NULL,
    appliance TEXT NOT NULL REFERENCES appliances (id), at INTEGER NOT NULL,
    PRIMARY KEY (token, device_key)
) STRICT;

CREATE TABLE callers (
    kid BLOB PRIMARY KEY, pub BLOB NOT NULL, name TEXT NOT NULL, tenant TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'operator', 'reader')),
    created INTEGER NOT NULL, revoked INTEGER
) STRICT;

CREATE TABLE idempotency (
    tenant TEXT NOT NULL, caller TEXT NOT NULL, key TEXT NOT NULL,
    body_digest BLOB NOT NULL, command_ids BLOB NOT NULL,
    status INTEGER NOT NULL, headers BLOB NOT NULL, body BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (tenant, caller, key)
) STRICT;

CREATE TABLE audit (
    n INTEGER PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    tenant TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER orders_no_delete BEFORE DELETE ON orders
    BEGIN SELECT RAISE(ABORT, 'orders are kept'); END;
CREATE TRIGGER envelopes_no_delete BEFORE DELETE ON envelopes
    BEGIN SELECT RAISE(ABORT, 'envelopes are kept'); END;
CREATE TRIGGER envelopes_no_update BEFORE UPDATE ON envelopes
    BEGIN SELECT RAISE(ABORT, 'a number is signed once'); END;
"""


def migrate(conn: sqlite3.Connection) -> None:
    """Bring the file to this release's tables.

    Raises:
        BadConfig: A newer release wrote it.
    """
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        msg = f"the database has version {version}, this release knows {VERSION}"
        raise BadConfig(msg)
    if version == 0:
        conn.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    conn.execute("CREATE TEMP TABLE checked (appliance TEXT PRIMARY KEY) STRICT")
