"""What every store of the relay promises: run on the memory reference and on SQLite."""

import hashlib
from typing import Any

import msgspec
import pytest

from protocol.jobs import State
from relay.errors import Backlog, EnvelopeQuarantined, SeqTaken
from relay.store import base
from relay.store.base import Kept, Store
from tests.support.relay_rows import (
    JOURNAL,
    NOW,
    SITE,
    TENANT,
    answer,
    command,
    digest,
    progress,
    result,
)

NACK = Kept("nack", 1, b"signed nack", NOW)


async def add(store: Store, *commands: base.Command) -> None:
    for item in commands:
        await store.add_command(item, actor="portal", answer=None, now=NOW)


async def link(store: Store, *, epoch: int = 1, have: int = 0, confirmed: int = 0) -> base.Link:
    return await store.open_link(
        TENANT, SITE, epoch=epoch, have=have, journal=JOURNAL, confirmed=confirmed, now=NOW
    )


async def states(store: Store) -> dict[int, str]:
    return {job.seq: job.state for job in await store.jobs(TENANT, before=0, limit=100)}


async def kinds(store: Store, after: int = 0) -> list[tuple[str, Any]]:
    events = await store.events(TENANT, after=after, limit=1000)
    return [(event.kind, msgspec.json.decode(event.data).get("state")) for event in events]


# --- commands ---


async def test_queued_commands_come_back_in_order_and_without_a_gap(store: Store) -> None:
    await add(store, command(2), command(1), command(4))
    found = await store.commands(TENANT, SITE, epoch=1, seq=1, limit=10)
    assert found == (command(1), command(2))
    assert await store.commands(TENANT, SITE, epoch=1, seq=3, limit=10) == ()
    assert await store.commands(TENANT, SITE, epoch=1, seq=1, limit=1) == (command(1),)
    assert await store.commands("other", SITE, epoch=1, seq=1, limit=10) == ()


async def test_same_envelope_again_changes_nothing(store: Store) -> None:
    assert await store.add_command(command(1), actor="a", answer=None, now=NOW) == "new"
    before = await store.events(TENANT, after=0, limit=10)
    assert await store.add_command(command(1), actor="a", answer=None, now=NOW) == "same"
    assert await store.events(TENANT, after=0, limit=10) == before


async def test_second_command_for_a_number_is_refused(store: Store) -> None:
    await add(store, command(1))
    with pytest.raises(SeqTaken) as caught:
        await add(store, command(1, salt="other"))
    assert caught.value.fields["held"] == command(1).digest.hex()


async def test_quarantine_frees_the_number_and_bars_the_envelope(store: Store) -> None:
    await add(store, command(1), command(2))
    found = await store.quarantine(
        TENANT, SITE, command(1).digest, code="protocol.x", nack=NACK, now=NOW
    )
    assert found == command(1)
    assert await store.commands(TENANT, SITE, epoch=1, seq=1, limit=10) == ()
    with pytest.raises(EnvelopeQuarantined):
        await add(store, command(1))
    await add(store, command(1, salt="mended"))
    assert await store.commands(TENANT, SITE, epoch=1, seq=1, limit=10) == (
        command(1, salt="mended"),
        command(2),
    )
    job = await store.job(TENANT, command(1).id)
    assert job is not None
    assert (job.state, job.digest) == ("queued", command(1, salt="mended").digest)


async def test_quarantine_of_an_unknown_or_delivered_envelope_does_nothing(store: Store) -> None:
    await add(store, command(1))
    assert await store.quarantine(TENANT, SITE, digest("?"), code="x", nack=NACK, now=NOW) is None
    await store.ack(TENANT, SITE, epoch=1, have=1, env=b"ack", now=NOW)
    assert (
        await store.quarantine(TENANT, SITE, command(1).digest, code="x", nack=NACK, now=NOW)
        is None
    )
    assert await store.kept(TENANT, SITE, "nack") is None


async def test_the_nack_of_what_was_quarantined_is_kept(store: Store) -> None:
    await add(store, command(1))
    await store.quarantine(TENANT, SITE, command(1).digest, code="x", nack=NACK, now=NOW)
    other = Kept("nack", 1, b"of nothing here", NOW)
    await store.quarantine(TENANT, SITE, digest("?"), code="x", nack=other, now=NOW)
    assert await store.kept(TENANT, SITE, "nack") == NACK


async def test_a_damaged_envelope_is_forgotten_and_its_like_taken_again(store: Store) -> None:
    await add(store, command(1, env=b"rotten"), command(2))
    name = hashlib.sha256(b"rotten").digest()
    for seq, other in ((1, digest("?")), (2, name), (3, name)):
        found = await store.drop_damaged(TENANT, SITE, epoch=1, seq=seq, name=other, now=NOW)
        assert found is None
    found = await store.drop_damaged(TENANT, SITE, epoch=1, seq=1, name=name, now=NOW)
    assert found == command(1, env=b"rotten")
    assert await store.commands(TENANT, SITE, epoch=1, seq=1, limit=10) == ()
    await add(store, command(1))
    assert await store.commands(TENANT, SITE, epoch=1, seq=1, limit=10) == (command(1), command(2))


async def test_backlog_is_bounded_by_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("memory_state", "sqlite_queue"):
        monkeypatch.setattr(f"relay.store.{module}.MAX_BACKLOG", 3)
    await add(store, *map(command, (1, 2, 3)))
    with pytest.raises(Backlog):
        await add(store, command(4))
    await store.ack(TENANT, SITE, epoch=1, have=1, env=b"ack", now=NOW)
    await add(store, command(4))


async def test_backlog_is_bounded_by_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("memory_state", "sqlite_queue"):
        monkeypatch.setattr(f"relay.store.{module}.MAX_BACKLOG_BYTES", 100)
    await add(store, command(1, env=b"x" * 60))
    with pytest.raises(Backlog):
        await add(store, command(2, env=b"x" * 60))


async def test_refused_command_leaves_no_trace(store: Store) -> None:
    await add(store, command(1))
    before = (await states(store), await store.audit(TENANT, after=0, limit=10))
    with pytest.raises(SeqTaken):
        await store.add_command(
            command(1, salt="other", id=digest("x")[:16]), actor="a", answer=answer("k"), now=NOW
        )
    assert (await states(store), await store.audit(TENANT, after=0, limit=10)) == before
    assert await store.answer(TENANT, "portal", "k", now=NOW) is None


async def test_ack_delivers_up_to_have_and_never_goes_back(store: Store) -> None:
    await add(store, command(1), command(2), command(3))
    assert await store.ack(TENANT, SITE, epoch=1, have=2, env=b"ack 2", now=NOW)
    assert not await store.ack(TENANT, SITE, epoch=1, have=1, env=b"ack 1", now=NOW)
    assert await states(store) == {1: "accepted", 2: "accepted", 3: "queued"}
    view = await store.appliance(TENANT, SITE)
    assert view is not None
    assert (view.epoch, view.have, view.queued) == (1, 2, 1)


async def test_command_that_the_appliance_has_already_is_not_waiting(store: Store) -> None:
    await link(store, have=5)
    await add(store, command(5), command(6))
    assert await states(store) == {5: "accepted", 6: "queued"}


async def test_higher_epoch_retires_what_was_not_delivered(store: Store) -> None:
    await add(store, command(1), command(2))
    await store.ack(TENANT, SITE, epoch=1, have=1, env=b"ack", now=NOW)
    order = Kept("epoch", 2, b"epoch order", NOW)
    assert await store.keep(TENANT, SITE, order, actor="signer", now=NOW) == "new"
    await add(store, command(1, epoch=2, salt="second"), command(3))
    view = await store.appliance(TENANT, SITE)
    assert view is not None
    assert view.queued == 1
    heads = await store.heads(TENANT)
    assert [(head.epoch, head.seq) for head in heads] == [(2, 1)]


async def test_head_counts_contiguous_commands_above_what_is_delivered(store: Store) -> None:
    await link(store, have=10)
    await add(store, command(11), command(12), command(14))
    (head,) = await store.heads("*")
    assert (head.tenant, head.appliance, head.epoch, head.seq) == (TENANT, SITE, 1, 12)
    assert await store.heads("other") == ()


# --- presence ---


async def test_late_disconnect_of_an_old_generation_leaves_the_new_one_online(store: Store) -> None:
    first, second = await link(store), await link(store)
    assert (first.generation, second.generation) == (1, 2)
    assert not await store.close_link(TENANT, SITE, generation=1, now=NOW)
    view = await store.appliance(TENANT, SITE)
    assert view is not None
    assert view.connected
    assert await store.close_link(TENANT, SITE, generation=2, now=NOW)
    assert not await store.close_link(TENANT, SITE, generation=2, now=NOW)
    data = [
        msgspec.json.decode(event.data) for event in await store.events(TENANT, after=0, limit=9)
    ]
    assert [entry["connected"] for entry in data] == [True, True, False]


async def test_hello_acknowledges_what_the_appliance_has(store: Store) -> None:
    await add(store, command(1), command(2))
    await link(store, have=1)
    assert await states(store) == {1: "accepted", 2: "queued"}


async def test_appliances_are_listed_by_id_and_tenant(store: Store) -> None:
    for tenant, name in ((TENANT, "b"), (TENANT, "a"), ("other", "c")):
        await store.keep(tenant, name, Kept("record", 1, b"r", NOW), actor="s", now=NOW)
    assert [a.id for a in await store.appliances(TENANT, after="", limit=10)] == ["a", "b"]
    assert [a.id for a in await store.appliances(TENANT, after="a", limit=10)] == ["b"]
    assert await store.appliance(TENANT, "c") is None


# --- kept things ---


async def test_newer_manifest_replaces_an_older_one_only(store: Store) -> None:
    async def keep(serial: int, env: bytes) -> str:
        item = Kept("manifest", serial, env, NOW)
        return await store.keep(TENANT, "*", item, actor="signer", now=NOW)

    assert await keep(2, b"two") == "new"
    assert await keep(2, b"two") == "same"
    assert await keep(2, b"forked") == "stale"
    assert await keep(1, b"one") == "stale"
    assert await keep(3, b"three") == "new"
    found = await store.kept(TENANT, "*", "manifest")
    assert found == Kept("manifest", 3, b"three", NOW)
    assert await store.kept("other", "*", "manifest") is None


@pytest.mark.parametrize("kind", ["receipt", "hello", "ack", "inventory"])
async def test_newest_statement_wins_whatever_its_number(store: Store, kind: Any) -> None:
    for serial, env in ((7, b"first"), (3, b"second")):
        await store.keep(TENANT, SITE, Kept(kind, serial, env, NOW), actor="", now=NOW)
    found = await store.kept(TENANT, SITE, kind)
    assert found is not None
    assert found.env == b"second"


# --- jobs, results, events ---


async def test_result_ends_the_job_once(store: Store) -> None:
    await add(store, command(1))
    kept = await store.add_results(TENANT, SITE, (result(1, command(1)),), now=NOW)
    assert (kept.through, kept.clashes) == (1, ())
    again = result(2, command(1), status="failed")
    await store.add_results(TENANT, SITE, (again,), now=NOW)
    job = await store.job(TENANT, command(1).id)
    assert job is not None
    assert (job.state, job.result, job.report) == ("succeeded", b"result 1", b"{}")


async def test_result_numbers_are_contiguous_per_journal(store: Store) -> None:
    await add(store, *map(command, (1, 2, 3)))
    kept = await store.add_results(TENANT, SITE, (result(2, command(2)),), now=NOW)
    assert kept.through == 0
    kept = await store.add_results(TENANT, SITE, (result(1, command(1)),), now=NOW)
    assert kept.through == 2
    found = await store.results(TENANT, SITE, journal=JOURNAL, after=1, limit=9)
    assert found == (result(2, command(2)),)
    other = result(1, command(3), journal=b"k" * 16)
    assert (await store.add_results(TENANT, SITE, (other,), now=NOW + 1)).through == 1
    assert await store.journals(TENANT, SITE) == (JOURNAL, b"k" * 16)


async def test_confirmed_results_need_not_be_here(store: Store) -> None:
    await store.add_results(TENANT, SITE, (result(6, command(6)),), now=NOW)
    opened = await link(store, confirmed=5)
    assert opened.through == 6
    assert (await link(store, confirmed=2)).through == 6


async def test_other_result_under_a_number_is_a_clash_and_the_first_stands(store: Store) -> None:
    await add(store, command(1))
    await store.add_results(TENANT, SITE, (result(1, command(1)),), now=NOW)
    forged = result(1, command(1), status="failed", env=b"another")
    kept = await store.add_results(TENANT, SITE, (forged,), now=NOW)
    assert kept.clashes == (forged,)
    assert await store.results(TENANT, SITE, journal=JOURNAL, after=0, limit=9) == (
        result(1, command(1)),
    )
    assert (await store.audit(TENANT, after=0, limit=9))[-1].action == "appliance.equivocation"


async def test_result_of_a_lost_command_makes_its_job(store: Store) -> None:
    await store.add_results(TENANT, SITE, (result(1, command(9)),), now=NOW)
    assert await states(store) == {9: "succeeded"}
    await add(store, command(9))
    assert await states(store) == {9: "succeeded"}


async def test_result_for_another_digest_or_appliance_ends_nothing(store: Store) -> None:
    await add(store, command(1))
    await store.add_results(TENANT, SITE, (result(1, command(1), digest=digest("other")),), now=NOW)
    await store.add_results(TENANT, "site-2", (result(1, command(1)),), now=NOW)
    assert await states(store) == {1: "queued"}


async def test_progress_is_one_row_and_state_changes_are_kept(store: Store) -> None:
    await add(store, command(1))
    await store.ack(TENANT, SITE, epoch=1, have=1, env=b"ack", now=NOW)
    for n in range(1, 6):
        assert await store.update(TENANT, SITE, progress(n, command(1), n * 10), now=NOW)
    await store.add_results(TENANT, SITE, (result(1, command(1)),), now=NOW)
    assert await kinds(store) == [
        ("state", "queued"),
        ("state", "accepted"),
        ("state", "running"),
        ("progress", "succeeded"),
        ("state", "succeeded"),
    ]


async def test_late_events_change_nothing(store: Store) -> None:
    await add(store, command(1))
    assert await store.update(TENANT, SITE, progress(5, command(1), 50), now=NOW)
    assert not await store.update(TENANT, SITE, progress(5, command(1), 60), now=NOW)
    assert not await store.update(TENANT, SITE, progress(4, command(1), 60), now=NOW)
    assert not await store.update(TENANT, "site-2", progress(6, command(1), 60), now=NOW)
    assert not await store.update("other", SITE, progress(6, command(1), 60), now=NOW)
    await store.add_results(TENANT, SITE, (result(1, command(1)),), now=NOW)
    assert not await store.update(TENANT, SITE, progress(7, command(1), 70), now=NOW)


async def test_event_cannot_end_a_job(store: Store) -> None:
    await add(store, command(1))
    await store.update(TENANT, SITE, progress(1, command(1), 10), now=NOW)
    await store.update(TENANT, SITE, progress(2, command(1), 100, state=State.SUCCEEDED), now=NOW)
    assert await states(store) == {1: "running"}


async def test_events_resume_after_an_id_and_for_one_job(store: Store) -> None:
    await add(store, command(1), command(2))
    first, second = await store.events(TENANT, after=0, limit=9)
    assert await store.events(TENANT, after=first.id, limit=9) == (second,)
    assert await store.events(TENANT, after=0, limit=1) == (first,)
    assert await store.events(TENANT, after=0, limit=9, job=command(2).id) == (second,)
    assert await store.events("other", after=0, limit=9) == ()


async def test_event_ids_grow_with_the_clock_and_never_fall(store: Store) -> None:
    await add(store, command(1))
    await store.add_command(command(2), actor="a", answer=None, now=NOW - 60_000)
    await store.add_command(command(3), actor="a", answer=None, now=NOW + 60_000)
    ids = [event.id for event in await store.events(TENANT, after=0, limit=9)]
    assert ids == sorted(set(ids))
    assert ids[-1] >= (NOW + 60_000) * 1000


async def test_jobs_are_paged_newest_first(store: Store) -> None:
    await add(store, *map(command, (1, 2, 3)))
    first = await store.jobs(TENANT, before=0, limit=2)
    rest = await store.jobs(TENANT, before=first[-1].order, limit=2)
    assert [job.seq for job in (*first, *rest)] == [3, 2, 1]
    await store.add_results(TENANT, SITE, (result(1, command(2)),), now=NOW)
    done = await store.jobs(TENANT, before=0, limit=9, state="succeeded", appliance=SITE)
    assert [job.seq for job in done] == [2]
    assert await store.jobs(TENANT, before=0, limit=9, appliance="site-2") == ()
