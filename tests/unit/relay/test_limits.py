from relay import limits
from relay.limits import Buckets


def test_burst_is_free_and_then_the_rate_holds() -> None:
    buckets = Buckets(rate=2.0, burst=3)
    assert [buckets.take("a", now=0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("a", now=0.5) == 0.0
    assert buckets.take("a", now=0.5) == 0.5


def test_callers_do_not_share_an_account() -> None:
    buckets = Buckets(rate=1.0, burst=1)
    assert buckets.take("a", now=0.0) == 0.0
    assert buckets.take("b", now=0.0) == 0.0
    assert buckets.take("a", now=0.0) > 0


def test_pause_fills_up_to_the_burst_only() -> None:
    buckets = Buckets(rate=1.0, burst=2)
    buckets.take("a", now=0.0)
    assert [buckets.take("a", now=1000.0) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_number_of_accounts_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(limits, "MAX_CALLERS", 3)
    buckets = Buckets(rate=1.0, burst=1)
    for caller in "abcd":
        buckets.take(caller, now=0.0)
    assert len(buckets._state) == 3
    assert buckets.take("d", now=0.0) > 0
