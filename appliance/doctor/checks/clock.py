"""Check `clock`: this machine's clock beside the relay's and beside signed time. At worst a warning.

Expiry is judged by signed time alone (PROTOCOL 4), so orders do not mind a wrong clock; Kerberos and Azure's account
keys do, and people who read logs.
"""

from collections.abc import AsyncIterator

from agent.trust import CLOCK_OFF, TOLERATED_S
from appliance.doctor.base import Check, Context, Finding, passed, skipped, warned

FIX = "timedatectl set-ntp true"
WHO_MINDS = "orders are judged by signed time, but Kerberos refuses above 300 s, Azure's account keys above 900 s"


async def run(context: Context) -> AsyncIterator[Finding]:
    """Compare with the relay's Date and with the last signed time."""
    yield _against_relay(context)
    yield _against_signed_time(context)


def _against_relay(context: Context) -> Finding:
    id_, title = "clock.relay", "clock beside the relay's"
    facts = context.evidence("relay")
    date, wall = facts.get("date"), facts.get("wall")
    if date is None or wall is None:
        return skipped(id_, title, "the relay was not reached or sent no Date")
    ahead = round(wall - date, 1)
    return _judged(id_, title, ahead, off=abs(ahead) > TOLERATED_S, than="the relay's Date")


def _against_signed_time(context: Context) -> Finding:
    """Signed time in the journal is a floor: it was already so late when it came."""
    id_, title = "clock.signed", "clock beside signed time"
    floor = context.evidence("journal").get("floor_ms")
    if not floor:
        return skipped(id_, title, "no signed time has come yet")
    ahead = round(context.wall() - floor / 1000, 1)
    return _judged(
        id_, title, ahead, off=ahead < -TOLERATED_S, than="the last signed time in the journal"
    )


def _judged(id_: str, title: str, ahead: float, *, off: bool, than: str) -> Finding:
    side = "ahead of" if ahead >= 0 else "behind"
    detail = f"{abs(ahead):g} s {side} {than}"
    if off:
        return warned(id_, title, f"{detail}; {WHO_MINDS}", fix=FIX, ahead_s=ahead, code=CLOCK_OFF)
    return passed(id_, title, detail, ahead_s=ahead)


CHECK = Check(
    "clock",
    "this machine's clock beside the relay's and signed time",
    run,
    needs=("config",),
    after=("relay", "journal"),
)
