"""Counters add up, remember the most in flight, and start again."""

from appliance.sim.stats import Stats


def test_counts_by_operation_and_most_in_flight() -> None:
    stats = Stats()
    stats.begin("blob.get")
    stats.begin("blob.get")
    stats.inflight -= 1
    stats.begin("disk.put-page")
    shown = stats.as_json()
    assert shown["requests"] == {"blob.get": 2, "disk.put-page": 1}
    assert (shown["inflight"], shown["inflight_most"]) == (2, 2)


def test_reset_keeps_the_requests_in_flight() -> None:
    stats = Stats()
    stats.begin("blob.get")
    stats.bytes_stored = 7
    stats.reset()
    assert stats.as_json()["requests"] == {}
    assert (stats.bytes_stored, stats.inflight, stats.inflight_most) == (0, 1, 1)
