from typing import Any

import pytest

from protocol.frames import CLOSE_REFUSED, CLOSE_SUPERSEDED, GoingAway
from relay import agents
from relay.agents import Agents, Link
from tests.support import protocol_world as w
from tests.support.relay_rows import command

FRAME = GoingAway(after=1, spread=1)


class Seen:
    """A link with what was asked of its connection."""

    def __init__(
        self, generation: int, *, tenant: str = w.TENANT, appliance: str = w.APPLIANCE
    ) -> None:
        self.ends: list[Any] = []
        self.dues = 0
        self.link = Link(
            tenant, appliance, generation, self._due, lambda *end: self.ends.append(end)
        )

    def _due(self) -> None:
        self.dues += 1


def test_newer_connection_ends_the_older_one() -> None:
    links, old, new = Agents(), Seen(1), Seen(2)
    assert links.add(old.link)
    assert links.add(new.link)
    assert old.ends == [(CLOSE_SUPERSEDED, "relay.superseded")]
    links.remove(old.link)  # its late end
    assert list(links) == [new.link]
    links.remove(new.link)
    assert links.empty.is_set()


def test_connection_that_was_overtaken_while_it_was_verified_does_not_win() -> None:
    links, new, old = Agents(), Seen(2), Seen(1)
    links.add(new.link)
    assert not links.add(old.link)
    assert new.ends == []


def test_frames_for_everybody_stay_in_the_tenant() -> None:
    links, mine, theirs = Agents(), Seen(1), Seen(1, tenant="other")
    links.add(mine.link)
    links.add(theirs.link)
    links.offer(w.TENANT, "*", FRAME)
    links.offer(w.TENANT, "site-9", FRAME)
    assert (mine.link.offers, theirs.link.offers) == ([FRAME], [])
    assert mine.dues == 1


def test_agent_that_reads_nothing_is_let_go() -> None:
    seen = Seen(1)
    for _ in range(agents.MAX_OFFERS + 1):
        seen.link.offer(FRAME)
    assert len(seen.link.offers) == agents.MAX_OFFERS
    assert seen.ends == [(1013, "relay.agent-slow")]


def test_more_new_commands_than_are_remembered_make_the_link_read() -> None:
    links, seen = Agents(), Seen(1)
    links.add(seen.link)
    seen.link.behind = False
    for seq in range(1, agents.MAX_FRESH + 1):
        links.queued(command(seq, appliance=w.APPLIANCE))
    assert len(seen.link.fresh) == agents.MAX_FRESH
    assert not seen.link.behind
    links.queued(command(99, appliance=w.APPLIANCE))
    assert (seen.link.fresh, seen.link.behind) == ({}, True)


@pytest.mark.parametrize(
    ("revoked", "ends"), [(None, []), (1, [(CLOSE_REFUSED, "appliance.revoked")])]
)
def test_only_a_revoked_record_disconnects(revoked: int | None, ends: list[Any]) -> None:
    links, seen = Agents(), Seen(1)
    links.add(seen.link)
    links.renew(w.record(revoked=revoked))
    assert seen.ends == ends
