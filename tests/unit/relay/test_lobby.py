"""The lobby: strangers are bounded in all and by address, the oldest of the biggest crowd goes, nobody counts twice."""

from dataclasses import dataclass, field

import pytest

from relay.lobby import Lobby, Stranger, site_of


@dataclass
class Doorman:
    """A lobby with a list of who was cut."""

    lobby: Lobby
    cut: list[str] = field(default_factory=list)

    def enter(self, address: str, name: str) -> Stranger:
        return self.lobby.enter(address, lambda reason: self.cut.append(f"{name}:{reason}"))


def test_oldest_of_a_full_address_goes_and_others_stay() -> None:
    door = Doorman(Lobby(most=10, most_per_address=2))
    door.enter("192.0.2.9", "other")
    for name in ("a", "b", "c"):
        door.enter("192.0.2.1", name)
    assert door.cut == ["a:crowded"]
    assert len(door.lobby) == 3


def test_full_lobby_pushes_out_the_biggest_crowd_not_the_oldest_guest() -> None:
    door = Doorman(Lobby(most=4, most_per_address=3))
    door.enter("192.0.2.9", "first")
    for name in ("a", "b", "c"):
        door.enter("192.0.2.1", name)
    door.enter("192.0.2.8", "newcomer")
    assert door.cut == ["a:crowded"]
    assert len(door.lobby) == 4


def test_who_leaves_makes_room_once() -> None:
    door = Doorman(Lobby(most=2, most_per_address=2))
    known = door.enter("192.0.2.1", "known")
    door.lobby.leave(known)
    door.lobby.leave(known)
    for name in ("a", "b"):
        door.enter("192.0.2.1", name)
    assert door.cut == []
    assert len(door.lobby) == 2


def test_without_a_bound_by_address_only_the_sum_counts() -> None:
    door = Doorman(Lobby(most=3, most_per_address=0))
    for name in ("a", "b", "c", "d"):
        door.enter("192.0.2.1", name)
    assert door.cut == ["a:crowded"]


def test_room_in_an_empty_lobby_is_there_already() -> None:
    Lobby(most=1, most_per_address=1).make_room()


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_site_is_one_address(address: str, site: str) -> None:
    assert site_of(address) == site
