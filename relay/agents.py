"""The connected agents: one link an appliance, the newest verified one. Knows frames, not sockets (`relay.channel`)."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from protocol.frames import CLOSE_REFUSED, CLOSE_SUPERSEDED, Frame
from protocol.messages import Record
from relay.store.base import EVERYWHERE, Command

MAX_FRESH = 8
"""Commands that a link may get without a look into the store."""
MAX_OFFERS = 64
"""Frames that wait to be sent; more means that the agent does not read, and it is disconnected."""


@dataclass(slots=True, eq=False)
class Link:
    """One verified connection as the rest of the relay sees it.

    Attributes:
        generation: Which of the appliance's connections this is.
        due: Call it after a change; the connection's task then looks at `fresh` and `offers`.
        close: Ends the connection with a close code and a reason.
        fresh: Commands that were just stored, by (epoch, seq): no need to read them back.
        behind: The store may hold commands that are not in `fresh`.
        offers: Frames to send.
    """

    tenant: str
    appliance: str
    generation: int
    due: Callable[[], None]
    close: Callable[[int, str], None]
    fresh: dict[tuple[int, int], Command] = field(default_factory=dict)
    behind: bool = True
    offers: list[Frame] = field(default_factory=list)

    def queued(self, command: Command) -> None:
        """Note a command that was just stored."""
        if len(self.fresh) < MAX_FRESH:
            self.fresh[command.epoch, command.seq] = command
        else:
            self.look_back()
        self.due()

    def look_back(self) -> None:
        """Have the store read: what is in `fresh` is not all, or not right any more."""
        self.fresh.clear()
        self.behind = True

    def offer(self, frame: Frame) -> None:
        """Queue a frame for this appliance."""
        if len(self.offers) >= MAX_OFFERS:
            self.close(1013, "relay.agent-slow")
            return
        self.offers.append(frame)
        self.due()


@dataclass(slots=True)
class Agents:
    """All links. `empty` is set while there is none."""

    empty: asyncio.Event = field(default_factory=asyncio.Event)
    _links: dict[tuple[str, str], Link] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.empty.set()

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(tuple(self._links.values()))

    def add(self, link: Link) -> bool:
        """Register a verified connection and end the older one; False if a newer one is there already."""
        key = (link.tenant, link.appliance)
        old = self._links.get(key)
        if old is not None and old.generation > link.generation:
            return False
        self._links[key] = link
        self.empty.clear()
        if old is not None:
            old.close(CLOSE_SUPERSEDED, "relay.superseded")
        return True

    def remove(self, link: Link) -> None:
        """Forget a connection, unless a newer one has taken its place."""
        key = (link.tenant, link.appliance)
        if self._links.get(key) is link:
            del self._links[key]
        if not self._links:
            self.empty.set()

    def queued(self, command: Command) -> None:
        """See relay.intake.Links."""
        link = self._links.get((command.tenant, command.appliance))
        if link is not None:
            link.queued(command)

    def offer(self, tenant: str, appliance: str, frame: Frame) -> None:
        """See relay.intake.Links."""
        if appliance == EVERYWHERE:
            for link in self:
                if link.tenant == tenant:
                    link.offer(frame)
        elif (tenant, appliance) in self._links:
            self._links[tenant, appliance].offer(frame)

    def renew(self, record: Record) -> None:
        """See relay.intake.Links."""
        link = self._links.get((record.tenant, record.id))
        if link is not None and record.revoked is not None:
            link.close(CLOSE_REFUSED, "appliance.revoked")
