"""Check `clock`: this machine's clock beside the relay's and beside signed time. At worst a warning.

Expiry is judged by signed time alone (PROTOCOL 4), so a wrong clock misleads people who read logs, and nobody else.
"""

from collections.abc import AsyncIterator

from appliance.doctor.base import Check, Context, Finding, passed, skipped, warned

TOLERATED_S = 60.0
FIX = "timedatectl set-ntp true   (nothing of imageport fails because of it: orders are judged by signed time)"


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
        return warned(id_, title, f"{detail}; nothing fails because of it", fix=FIX, ahead_s=ahead)
    return passed(id_, title, detail, ahead_s=ahead)


CHECK = Check(
    "clock",
    "this machine's clock beside the relay's and signed time",
    run,
    needs=("config",),
    after=("relay", "journal"),
)
