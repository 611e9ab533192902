"""Who is inside without having proved who he is, and who must go when it gets full. Pure state; knows no socket.

A stranger is a connection before its first good API key, hello or attachment, TLS handshake included. Where there is
no room, the oldest stranger of the address with the most of them goes, never the newcomer: a flood pushes itself out,
and an honest client needs its place for the moment in which it says who it is.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

V6_SITE_BITS = 64
"""One customer of a provider has at least a /64: single IPv6 addresses cost nothing."""


@dataclass(slots=True, eq=False)
class Stranger:
    """One connection; `cut` ends it at once, for the reason that it is given."""

    address: str
    cut: Callable[[str], None]


@dataclass(slots=True)
class Lobby:
    """All strangers. Memory: at most `most` entries.

    Attributes:
        most: Strangers in all.
        most_per_address: Strangers of one IPv4 address or IPv6 /64; 0: no bound (they all come through a proxy).
    """

    most: int
    most_per_address: int
    _by_address: dict[str, dict[Stranger, None]] = field(default_factory=dict)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, address: str, cut: Callable[[str], None]) -> Stranger:
        """Take somebody in, and cut whoever has to make room."""
        site = site_of(address)
        if self.most_per_address and len(self._by_address.get(site, ())) >= self.most_per_address:
            self._cut_oldest(site)
        elif self._count >= self.most:
            self.make_room()
        stranger = Stranger(site, cut)
        self._by_address.setdefault(site, {})[stranger] = None
        self._count += 1
        return stranger

    def leave(self, stranger: Stranger) -> None:
        """Forget somebody who is gone, or known now; again does nothing."""
        there = self._by_address.get(stranger.address, {})
        if stranger not in there:
            return
        del there[stranger]
        self._count -= 1
        if not there:
            del self._by_address[stranger.address]

    def make_room(self) -> None:
        """Cut the oldest stranger of the address with the most of them, if there is any."""
        if self._by_address:
            self._cut_oldest(max(self._by_address, key=lambda key: len(self._by_address[key])))

    def _cut_oldest(self, site: str) -> None:
        oldest = next(iter(self._by_address[site]))
        self.leave(oldest)
        oldest.cut("crowded")


def site_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, the /64 of an IPv6 one, anything else as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, V6_SITE_BITS), strict=False))
