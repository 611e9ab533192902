"""What every store of the relay promises about answers, artifacts and the audit log."""

from dataclasses import replace

from relay.store import base, rules
from relay.store.base import Artifact, Kept, Store
from tests.support.relay_rows import NOW, SITE, TENANT, answer, command, digest


async def test_answer_is_kept_with_its_command_for_a_day(store: Store) -> None:
    await store.add_command(command(1), actor="portal", answer=answer("key"), now=NOW)
    await store.save_answer(TENANT, replace(answer("key"), status=500), now=NOW)
    assert await store.answer(TENANT, "portal", "key", now=NOW + 1000) == answer("key")
    assert await store.answer(TENANT, "other", "key", now=NOW) is None
    assert await store.answer("other", "portal", "key", now=NOW) is None
    late = NOW + base.RESPONSE_KEPT_MS
    assert await store.answer(TENANT, "portal", "key", now=late) is None


async def test_artifact_is_registered_once_per_tenant(store: Store) -> None:
    item = Artifact(digest("a"), 10, NOW)
    assert await store.put_artifact(TENANT, item, actor="portal", now=NOW) == "new"
    assert await store.put_artifact(TENANT, item, actor="portal", now=NOW) == "same"
    assert await store.artifact(TENANT, item.sha256) == item
    assert await store.artifact("other", item.sha256) is None


async def test_audit_log_is_a_chain_per_tenant(store: Store) -> None:
    for item in (command(1), command(2)):
        await store.add_command(item, actor="portal", answer=None, now=NOW)
    nack = Kept("nack", 1, b"signed nack", NOW)
    await store.note("other", actor="x", action="y", subject="z", detail="", now=NOW)
    await store.quarantine(
        TENANT, SITE, command(2).digest, code="protocol.fork", nack=nack, now=NOW
    )
    log = await store.audit(TENANT, after=0, limit=10)
    assert [(entry.n, entry.action) for entry in log] == [
        (1, "command.stored"),
        (2, "command.stored"),
        (3, "command.quarantined"),
    ]
    before = rules.GENESIS
    for entry in log:
        fields = (entry.n, entry.at, entry.actor, entry.action, entry.subject, entry.detail)
        before = rules.audit_hash(before, fields)
        assert entry.hash == before
    assert await store.audit(TENANT, after=2, limit=10) == log[2:]
