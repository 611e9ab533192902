"""Credits are waited for, in order of what the server grants, and never for ever."""

import threading

import pytest

from agent.shares.smb.allowance import RESERVED_CREDITS, Allowance

GUARD = 30.0


def allowance(granted: int) -> tuple[Allowance, dict[str, int]]:
    window = {"low": 5, "high": 5 + granted}
    return Allowance(window, threading.Lock()), window


def test_ids_are_taken_in_runs_as_long_as_their_cost() -> None:
    credits, window = allowance(RESERVED_CREDITS + 20)
    assert [credits.take(n, timeout=0, is_over=lambda: False) for n in (16, 1, 3)] == [5, 21, 22]
    assert (credits.left, window["low"]) == (RESERVED_CREDITS, 25)


def test_a_server_that_grants_nothing_is_not_waited_for_for_ever() -> None:
    credits, _ = allowance(RESERVED_CREDITS)
    with pytest.raises(TimeoutError, match="credits"):
        credits.take(1, timeout=0.01, is_over=lambda: False)


def test_a_grant_lets_the_next_one_go() -> None:
    credits, _ = allowance(RESERVED_CREDITS)
    got: list[int] = []
    waiter = threading.Thread(
        target=lambda: got.append(credits.take(4, timeout=GUARD, is_over=lambda: False))
    )
    waiter.start()
    for _ in range(4):
        credits.grant(1)
    waiter.join(GUARD)
    assert got == [5]


def test_the_end_of_the_connection_ends_the_wait() -> None:
    credits, _ = allowance(0)
    over = threading.Event()
    waiter = threading.Thread(target=lambda: credits.take(4, timeout=GUARD, is_over=over.is_set))
    waiter.start()
    over.set()
    credits.wake()
    waiter.join(GUARD)
    assert not waiter.is_alive()
