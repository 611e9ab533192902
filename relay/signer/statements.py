"""What appliances state, verified against their own device keys before anything is believed.

| statement | what it does |
|---|---|
| hello | compares its place with the line, answers with the time |
| ack | moves what is known to be delivered |
| nack | goes around an envelope that can never be consumed |
| inventory | answers an epoch order, or proves that a journal is an older copy |
| result | is the end of a command; the first verified one stands |

Each is one transaction. They are worked on in the order in which the relay sent them (protocol.standing).
"""

import sqlite3
from dataclasses import replace
from typing import TypeVar

from protocol.control import Statement
from protocol.errors import ProtocolError
from protocol.ids import digest_of, key_id
from protocol.issuer import ResultStep, link_fits, make_time, mark_receipted, on_result, receipt_due
from protocol.messages import (
    MAX_INVENTORY,
    MAX_RESULT,
    MAX_STATEMENT,
    Ack,
    Hello,
    Inventory,
    Kind,
    Nack,
    Receipt,
    Result,
    Role,
)
from protocol.signed import open_statement
from protocol.standing import Assessment, Step, on_ack, on_hello, on_inventory, on_nack
from relay.signer import appliances, audit, orders, rebase, results
from relay.signer.appliances import Appliance
from relay.signer.authority import Authority, Effects, Outgoing
from relay.signer.errors import BadStatement, NoKey, NotFound
from relay.signer.results import Kept

T = TypeVar("T")

EQUIVOCATION = "appliance.equivocation"
CLONE_SUSPECTED = "appliance.clone-suspected"


def hear(conn: sqlite3.Connection, authority: Authority, statement: Statement) -> Effects:
    """Take one statement.

    Raises:
        BadStatement: Not from an appliance that we enrolled, or not signed by its key; nothing changed.
    """
    appliance = _who(conn, statement)
    effects = Effects()
    match statement.kind:
        case "hello":
            _hello(conn, authority, appliance, statement, effects)
        case "ack":
            _ack(conn, authority, appliance, statement, effects)
        case "nack":
            _nack(conn, authority, appliance, statement, effects)
        case "inventory":
            _inventory(conn, authority, appliance, statement, effects)
        case "result":
            _result(conn, authority, appliance, statement, effects)
    return effects


def answer_time(
    conn: sqlite3.Connection, authority: Authority, *, tenant: str, appliance: str, nonce: bytes
) -> Outgoing:
    """Sign the time for an appliance's nonce.

    Raises:
        NotFound, NoKey; BadStatement: The appliance was revoked.
    """
    known = appliances.get(conn, appliance, tenant=tenant)
    if known.revoked is not None:
        msg = f"{appliance} was revoked"
        raise BadStatement(msg, appliance=appliance)
    link = authority.random(16)
    appliances.add_link(conn, appliance, link, at=authority.now())
    time = make_time(
        known.line,
        nonce,
        now=authority.now(),
        manifest_serial=authority.ring.manifest.serial,
        link=link,
    )
    env = authority.sign(Kind.TIME, time, role=Role.TIME, tenant=tenant)
    return Outgoing("time", tenant, appliance, env)


def sign_receipt(
    conn: sqlite3.Connection, authority: Authority, appliance: str, *, again: bool = False
) -> Outgoing | None:
    """Sign which results of an appliance are durable here; None if it was told already.

    Args:
        conn: Inside a transaction.
        authority: Keys.
        appliance: Whose results.
        again: Also if it was told before: a restored relay may have lost it.

    Raises:
        NoKey.
    """
    line = appliances.get(conn, appliance).line
    due = receipt_due(replace(line, receipted=0) if again else line)
    if due is None:
        return None
    receipt = Receipt(v=1, tenant=line.tenant, appliance=appliance, journal=due.journal, n=due.n)
    env = authority.sign(Kind.RECEIPT, receipt, role=Role.COMMAND, tenant=line.tenant)
    appliances.save_line(conn, mark_receipted(line, due))
    return Outgoing("receipt", line.tenant, appliance, env)


def _who(conn: sqlite3.Connection, statement: Statement) -> Appliance:
    try:
        appliance = appliances.get(conn, statement.appliance, tenant=statement.tenant)
    except NotFound as err:
        raise BadStatement(str(err), kind=statement.kind) from err
    if appliance.revoked is not None:
        msg = f"{appliance.id} was revoked; its {statement.kind} is not believed"
        raise BadStatement(msg, kind=statement.kind)
    return appliance


def _open(appliance: Appliance, statement: Statement, type_: type[T], *, limit: int) -> T:
    try:
        _, value = open_statement(
            Kind(statement.kind), statement.env, type_, public=appliance.device_key, limit=limit
        )
    except ProtocolError as err:
        msg = f"{statement.kind} of {appliance.id}: {err}"
        raise BadStatement(msg, kind=statement.kind, reason=err.code) from err
    return value


def _check_self(appliance: Appliance, value: Hello | Result) -> None:
    if (value.tenant, value.appliance) != (appliance.tenant, appliance.id):
        msg = f"{appliance.id} states something as {value.tenant}/{value.appliance}"
        raise BadStatement(msg)


def _hello(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    statement: Statement,
    effects: Effects,
) -> None:
    hello = _open(appliance, statement, Hello, limit=MAX_STATEMENT)
    _check_self(appliance, hello)
    found = on_hello(appliance.line, hello, appliances.chain_hash_at(conn, appliance))
    appliances.save_hello(conn, appliance.id, hello, at=authority.now())
    _check_link(conn, authority, appliance, hello, effects)
    if hello.seal_kid != key_id(appliance.seal_key):
        effects.note("appliance holds another seal key than its record", appliance=appliance.id)
    _apply(conn, authority, replace(appliance, hello=hello), found, effects)
    effects.receipts.add(appliance.id)
    try:
        effects.outgoing.append(
            answer_time(
                conn, authority, tenant=appliance.tenant, appliance=appliance.id, nonce=hello.nonce
            )
        )
    except NoKey as err:  # what it stated counts all the same
        effects.note("time not signed", appliance=appliance.id, code=err.code)


def _check_link(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    hello: Hello,
    effects: Effects,
) -> None:
    issued = appliances.issued_links(conn, appliance.id)
    if link_fits(hello.link, confirmed=appliance.link, issued=issued):
        appliances.confirm_link(conn, appliance.id, hello.link)
        return
    audit.append(
        conn, CLONE_SUSPECTED, at=authority.now(), actor="signer", tenant=appliance.tenant,
        subject=appliance.id,
    )  # fmt: skip
    effects.note(CLONE_SUSPECTED, appliance=appliance.id)


def _ack(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    statement: Statement,
    effects: Effects,
) -> None:
    ack = _open(appliance, statement, Ack, limit=MAX_STATEMENT)
    found = on_ack(appliance.line, ack, appliances.chain_hash_at(conn, appliance))
    _apply(conn, authority, appliance, found, effects)
    effects.refill.pop(appliance.id, None)  # it is taking them; the relay lacks nothing


def _nack(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    statement: Statement,
    effects: Effects,
) -> None:
    nack = _open(appliance, statement, Nack, limit=MAX_STATEMENT)
    ours = orders.is_signed(conn, appliance.id, nack.epoch, nack.digest, above=nack.have)
    look_up = appliances.chain_hash_at(conn, appliance)
    found = on_nack(appliance.line, nack, look_up, is_ours=ours)
    effects.note(
        "appliance refused an envelope", appliance=appliance.id, code=nack.code,
        digest=nack.digest.hex(), ours=int(ours),
    )  # fmt: skip
    _apply(conn, authority, appliance, found, effects)
    effects.refill.pop(appliance.id, None)


def _inventory(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    statement: Statement,
    effects: Effects,
) -> None:
    inventory = _open(appliance, statement, Inventory, limit=MAX_INVENTORY)
    found = on_inventory(
        appliance.line,
        inventory,
        orders.open_commands(conn, appliance.id),
        appliances.chain_hash_at(conn, appliance),
    )
    answered = appliance.line.offer is not None and found.assessment.line.offer is None
    _apply(conn, authority, appliance, found.assessment, effects)
    if answered:
        conn.execute(
            "UPDATE epochs SET inventory = ? WHERE appliance = ? AND epoch = ?",
            (statement.env, appliance.id, inventory.epoch),
        )
        taken = replace(appliance, line=found.assessment.line)
        rebase.settle(conn, authority, taken, found, effects=effects)


def _apply(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    found: Assessment,
    effects: Effects,
) -> None:
    appliances.save_line(conn, found.line)
    match found.step:
        case Step.REBASE:
            moved = replace(appliance, line=found.line)
            code = found.code or found.line.locked
            rebase.raise_by_itself(conn, authority, moved, found.stated, code=code, effects=effects)
        case Step.OFFERED:
            effects.replay.add(appliance.id)
        case Step.IN_STEP:
            effects.refill[appliance.id] = found.refill_from
        case Step.SUSPECT:
            effects.note("appliance states less than before", appliance=appliance.id)
        case Step.TAKEN:
            pass


def _result(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    statement: Statement,
    effects: Effects,
) -> None:
    result = _open(appliance, statement, Result, limit=MAX_RESULT)
    _check_self(appliance, result)
    _check_report(result, statement.report)
    standing = results.standing(conn, appliance.id, result.digest)
    step, line = on_result(
        appliance.line,
        result,
        known=None if standing is None else standing.result,
        ours=orders.digest_at(conn, appliance.id, result.epoch, result.seq),
    )
    if step is ResultStep.GAP:
        appliances.save_line(conn, line)  # it still tells how far the appliance came
        return
    order = orders.by_digest(conn, appliance.id, result.digest)
    misnamed = order is not None and (order.id, order.op) != (result.id, result.op)
    report = statement.report if result.report_digest is not None else b""
    kept = Kept(result, statement.env, report, authority.now())
    stands = step in {ResultStep.NEW, ResultStep.LATE} and not misnamed
    results.add(conn, kept, stands=stands)
    appliances.save_line(conn, line)
    effects.receipts.add(appliance.id)
    if step is ResultStep.EQUIVOCATION or misnamed:
        _alarm(conn, authority, appliance, result, effects)
    elif stands:
        effects.note(
            "result verified", job=result.id.hex(), appliance=appliance.id, op=result.op,
            status=result.status, n=result.n,
        )  # fmt: skip


def _check_report(result: Result, report: bytes) -> None:
    if result.report_digest is not None and digest_of(report) != result.report_digest:
        msg = f"the report of result {result.n} is not the one that was signed"
        raise BadStatement(msg, kind="result")


def _alarm(
    conn: sqlite3.Connection,
    authority: Authority,
    appliance: Appliance,
    result: Result,
    effects: Effects,
) -> None:
    audit.append(
        conn, EQUIVOCATION, at=authority.now(), actor="signer", tenant=appliance.tenant,
        subject=appliance.id, job=result.id.hex(), digest=result.digest.hex(), n=result.n,
    )  # fmt: skip
    effects.note(EQUIVOCATION, appliance=appliance.id, job=result.id.hex())
