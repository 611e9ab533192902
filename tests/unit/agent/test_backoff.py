"""When to dial again and how often to answer nonsense."""

from agent.backoff import GRACE_S, NACK_BURST, Backoff, NackLimit, worth_logging


def test_waits_double_up_to_the_cap_and_are_random_below_it() -> None:
    most = Backoff(0.5, 30.0, lambda: 1.0)
    assert [most.next() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    least = Backoff(0.5, 30.0, lambda: 0.0)
    assert [least.next() for _ in range(3)] == [0, 0, 0]


def test_only_a_connection_that_lasted_resets_the_waits() -> None:
    backoff = Backoff(0.5, 30.0, lambda: 1.0)
    for _ in range(5):
        backoff.next()
    backoff.ended(GRACE_S - 1)
    assert backoff.next() == 16
    backoff.ended(GRACE_S)
    assert backoff.next() == 0.5


def test_thousands_of_failures_do_not_overflow() -> None:
    backoff = Backoff(0.5, 30.0, lambda: 1.0)
    assert {backoff.next() for _ in range(5000)} <= {0.5, 1, 2, 4, 8, 16, 30}


def test_nacks_of_one_code_are_limited_and_others_are_not_starved() -> None:
    limit = NackLimit()
    sent = sum(limit.allow("protocol.malformed", now=0.0) for _ in range(1000))
    assert sent == NACK_BURST
    assert limit.allow("protocol.fork", now=0.0)
    assert limit.allow("protocol.malformed", now=1.0)
    assert not limit.allow("protocol.malformed", now=1.0)


def test_the_sampled_log_thins_out() -> None:
    assert [n for n in range(20) if worth_logging(n)] == [1, 2, 4, 8, 16]
