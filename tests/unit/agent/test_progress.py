"""Progress: what is told is the newest, never falls, and comes at most four times a second."""

from agent.progress import EVERY_S, Meter


def test_reports_are_coalesced_and_the_latest_one_wins() -> None:
    meter = Meter(1)
    told = []
    for step in range(100):
        now = step * EVERY_S / 10
        meter.report("transfer", step, 100, now=now)
        if meter.due(now):
            told.append(meter.take(now))
    assert len(told) == 10
    done = [progress.done for progress in told if progress is not None]
    assert done == sorted(done)
    assert meter.latest is not None
    assert meter.latest.done == 99


def test_nothing_new_is_not_told_again() -> None:
    meter = Meter(1)
    meter.report("transfer", 1, 2, now=0.0)
    meter.take(0.0)
    assert not meter.due(10.0)


def test_done_never_falls_inside_a_step_and_a_new_step_begins_at_its_own() -> None:
    meter = Meter(2)
    meter.report("transfer", 50, 100, now=0.0)
    meter.report("transfer", 10, 100, now=1.0)
    assert meter.latest is not None
    assert (meter.latest.done, meter.latest.attempt) == (50, 2)
    meter.report("verify", 0, 100, now=2.0)
    assert (meter.latest.step, meter.latest.done) == ("verify", 0)


def test_rates_and_eta_follow_the_bytes() -> None:
    meter = Meter(1)
    for second in range(11):
        meter.report("transfer", second * 1000, 20_000, now=float(second))
    assert meter.latest is not None
    assert (meter.latest.rate, meter.latest.mean_rate) == (1000, 1000)
    assert meter.latest.eta_ms == 10_000


def test_a_stall_shows_in_the_rate() -> None:
    meter = Meter(1)
    meter.report("transfer", 0, 10_000, now=0.0)
    meter.report("transfer", 5000, 10_000, now=1.0)
    meter.report("transfer", 5000, 10_000, now=21.0, slow="throttled", retries=3)
    assert meter.latest is not None
    assert meter.latest.rate < 400
    assert (meter.latest.slow, meter.latest.retries) == ("throttled", 3)


def test_an_unknown_rate_gives_no_eta() -> None:
    meter = Meter(1)
    meter.report("transfer", 0, 10_000, now=0.0)
    assert meter.latest is not None
    assert meter.latest.eta_ms is None


def test_a_burst_at_the_beginning_does_not_stand_for_the_first_seconds() -> None:
    meter = Meter(1)
    meter.report("copy", 0, 100_000, now=10.0)
    meter.report("copy", 10_000, 100_000, now=10.1)
    for second in range(1, 5):
        meter.report("copy", 10_000 + 1000 * second, 100_000, now=10.1 + second)
    assert meter.latest is not None
    assert 2500 < meter.latest.rate < 5000
