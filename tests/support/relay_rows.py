"""Rows of the relay's store for tests: short to write, each one distinct."""

import hashlib
from typing import Any

from protocol.jobs import EventBody, Progress, State
from relay.store.base import Answer, Command, Result, Update

TENANT = "acme"
SITE = "site-1"
JOURNAL = b"j" * 16
NOW = 1_790_000_000_000


def digest(*parts: object) -> bytes:
    """Return a digest that depends on every part."""
    return hashlib.sha256(repr(parts).encode()).digest()


def command(seq: int, *, salt: str = "", **fields: Any) -> Command:
    """Return the command of one number; `salt` makes another one for the same number."""
    row: dict[str, Any] = {
        "tenant": TENANT,
        "appliance": SITE,
        "epoch": 1,
        "seq": seq,
        "digest": digest(seq, salt, sorted(fields.items())),
        "id": digest("id", seq)[:16],
        "op": "upload",
        "iat": NOW,
        "exp": NOW + 1000,
        "workflow": None,
        "env": b"envelope %d %s" % (seq, salt.encode()),
    }
    return Command(**(row | fields))


def result(n: int, of: Command, *, status: str = "succeeded", **fields: Any) -> Result:
    """Return result number `n`, the end of one command."""
    row: dict[str, Any] = {
        "journal": JOURNAL,
        "n": n,
        "id": of.id,
        "digest": of.digest,
        "epoch": of.epoch,
        "seq": of.seq,
        "op": of.op,
        "status": status,
        "code": None,
        "workflow": None,
        "env": b"result %d" % n,
        "report": b"{}",
    }
    return Result(**(row | fields))


def progress(n: int, of: Command, done: int, *, state: State = State.RUNNING) -> Update:
    """Return event number `n`: so many of 100 bytes are done."""
    body = EventBody(
        at=NOW,
        state=state,
        op=of.op,
        progress=Progress(attempt=1, step="copy", done=done, total=100),
    )
    return Update(JOURNAL, of.id, n, body)


def answer(key: str, body: bytes = b"body") -> Answer:
    """Return an answer under an Idempotency-Key."""
    return Answer("portal", key, hashlib.sha256(body).digest(), 202, {"Location": "/v1/x"}, b"{}")
