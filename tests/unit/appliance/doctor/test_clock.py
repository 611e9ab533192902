"""The clock: never worse than a warning, and it says beside what."""

import pytest

from agent.config import AgentConfig, Loaded
from appliance.doctor.base import Context, Finding, Options, Status, passed
from appliance.doctor.checks import clock

_NOW = 1_800_000_000.0


async def _judged(*, date: float | None = None, floor_s: float | None = None) -> list[Finding]:
    context = Context(Loaded(AgentConfig(), {}), Options(), lambda: _NOW)
    if date is not None:
        context.found["relay"] = [passed("relay.channel", "", "", date=date, wall=_NOW)]
    if floor_s is not None:
        context.found["journal"] = [passed("journal", "", "", floor_ms=int(floor_s * 1000))]
    return [finding async for finding in clock.run(context)]


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        (0, Status.PASS),
        (60, Status.PASS),
        (-60, Status.PASS),
        (61, Status.WARN),
        (-61, Status.WARN),
    ],
)
async def test_beside_the_relay_it_may_be_a_minute_off(ahead: float, status: Status) -> None:
    (relay, signed) = await _judged(date=_NOW - ahead)
    assert (relay.id, relay.status) == ("clock.relay", status)
    assert relay.evidence["ahead_s"] == ahead
    assert relay.evidence.get("code") == (None if status is Status.PASS else "appliance.clock-off")
    assert "the relay's Date" in relay.detail
    assert signed.status is Status.SKIP


async def test_a_warning_says_who_minds() -> None:
    (relay, _) = await _judged(date=_NOW + 3600)
    assert "3600 s behind" in relay.detail
    assert "Kerberos refuses above 300 s" in relay.detail
    assert "timedatectl" in relay.fix


@pytest.mark.parametrize(
    ("floor_s", "status"),
    [(_NOW - 7 * 86400, Status.PASS), (_NOW + 60, Status.PASS), (_NOW + 61, Status.WARN)],
    ids=["old floor", "tolerated", "behind"],
)
async def test_signed_time_is_a_floor_so_only_behind_is_wrong(
    floor_s: float, status: Status
) -> None:
    (relay, signed) = await _judged(floor_s=floor_s)
    assert (signed.id, signed.status) == ("clock.signed", status)
    assert "signed time in the journal" in signed.detail
    assert relay.status is Status.SKIP
