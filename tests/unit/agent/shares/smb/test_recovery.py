"""Patience by error class, on a virtual clock."""

import random

import pytest

from agent.errors import AgentError
from agent.shares.errors import (
    AccessDenied,
    FileChanged,
    InUse,
    LogonFailed,
    SecurityRefused,
    ShareBusy,
    ShareDisconnected,
    ShareTimeout,
    ShareUnreachable,
)
from agent.shares.smb.policy import SmbPolicy
from agent.shares.smb.recovery import Recovery, Timing

POLICY = SmbPolicy(reconnect_for=120.0, busy_for=90.0, backoff_base=0.1, backoff_cap=5.0)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Longest(random.Random):
    """Always the upper bound: shows the bound itself."""

    def uniform(self, a: float, b: float) -> float:
        return b


def _patience(err: AgentError, rng: random.Random) -> list[float]:
    """Wait as told until the error itself comes back; return the pauses."""
    clock = Clock()
    recovery = Recovery(POLICY, Timing(clock, rng))
    pauses: list[float] = []

    def wait_for_ever() -> None:
        while True:
            pauses.append(recovery.pause_after(err))
            clock.now += pauses[-1] + 0.01  # The failed try itself.

    with pytest.raises(type(err)) as caught:
        wait_for_ever()
    assert caught.value is err
    return pauses


@pytest.mark.parametrize("cls", [ShareDisconnected, ShareTimeout, ShareUnreachable])
def test_a_lost_server_is_waited_for_as_long_as_the_policy_says(cls: type[AgentError]) -> None:
    pauses = _patience(cls("x"), Longest())
    assert sum(pauses) == pytest.approx(120.0, abs=5.1)


@pytest.mark.parametrize("cls", [InUse, ShareBusy])
def test_a_busy_file_has_its_own_patience(cls: type[AgentError]) -> None:
    assert sum(_patience(cls("x"), Longest())) == pytest.approx(90.0, abs=5.1)


def test_the_bound_doubles_up_to_its_cap() -> None:
    pauses = _patience(ShareDisconnected("x"), Longest())
    assert pauses[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])


def test_pauses_are_jittered_over_the_whole_range() -> None:
    pauses = _patience(ShareDisconnected("x"), random.Random(7))[10:]
    assert min(pauses) < 1.0
    assert 4.0 < max(pauses) <= 5.0


@pytest.mark.parametrize("cls", [AccessDenied, FileChanged, LogonFailed, SecurityRefused])
def test_what_waiting_cannot_cure_is_raised_at_once(cls: type[AgentError]) -> None:
    err = cls("x")
    with pytest.raises(cls) as caught:
        Recovery(POLICY, Timing(Clock())).pause_after(err)
    assert caught.value is err


def test_no_patience_means_no_second_try() -> None:
    impatient = SmbPolicy(reconnect_for=0.0)
    with pytest.raises(ShareTimeout):
        Recovery(impatient, Timing(Clock())).pause_after(ShareTimeout("x"))
