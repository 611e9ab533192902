"""The blocking authorizer asks on the loop, once for all threads, and renews once for all who were refused."""

import asyncio
import threading

import pytest

from agent.errors import Cancelled
from agent.targets.azure.authorizer import FRESH_S, BlockingAuthorizer
from agent.targets.errors import CredentialRefused
from agent.threads import Pool, Stop, run_blocking


class Counting:
    """Gives a new URL for every question; counts on which thread it was asked."""

    def __init__(self, *, renewable=True):
        self.asked, self.renewed = [], 0
        self.renewable = renewable
        self.hang = False

    async def request(self):
        if self.hang:
            await asyncio.sleep(600)
        self.asked.append(threading.get_ident())
        return f"https://x/{len(self.asked)}", {"h": "1"}

    async def refused(self, error):
        self.renewed += 1
        if not self.renewable:
            raise error


class Clock:
    at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def pool():
    made = Pool("test", 8)
    yield made
    made.close()


def made(counting, clock=None):
    return BlockingAuthorizer(counting, asyncio.get_running_loop(), clock=clock or Clock())


async def at_once(pool, fn, times=8):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_blocking(pool, fn)) for _ in range(times)]
    return [task.result() for task in tasks]


async def test_all_threads_share_one_question_and_it_is_asked_on_the_loop(pool):
    counting, stop = Counting(), Stop()
    authorizer = made(counting)
    grants = await at_once(pool, lambda: authorizer.grant(stop))
    assert {grant.url for grant in grants} == {"https://x/1"}
    assert counting.asked == [threading.get_ident()]


async def test_it_asks_again_after_a_while(pool):
    counting, clock, stop = Counting(), Clock(), Stop()
    authorizer = made(counting, clock)
    first = await run_blocking(pool, lambda: authorizer.grant(stop))
    clock.at = FRESH_S - 1
    assert await run_blocking(pool, lambda: authorizer.grant(stop)) is first
    clock.at = FRESH_S
    assert (await run_blocking(pool, lambda: authorizer.grant(stop))).url == "https://x/2"


async def test_a_refused_grant_is_renewed_once_however_many_threads_were_refused(pool):
    counting, stop, error = Counting(), Stop(), CredentialRefused("no")
    authorizer = made(counting)
    grant = await run_blocking(pool, lambda: authorizer.grant(stop))

    def renew():
        authorizer.refused(grant, error, stop)
        return authorizer.grant(stop)

    again = await at_once(pool, renew)
    assert {one.url for one in again} == {"https://x/2"}
    assert counting.renewed == 1


async def test_what_cannot_be_renewed_is_the_callers_error(pool):
    authorizer, stop = made(Counting(renewable=False)), Stop()
    grant = await run_blocking(pool, lambda: authorizer.grant(stop))
    with pytest.raises(CredentialRefused):
        await run_blocking(pool, lambda: authorizer.refused(grant, CredentialRefused("no"), stop))


async def test_a_stop_ends_the_question(pool):
    counting, stop = Counting(), Stop()
    counting.hang = True
    authorizer = made(counting)
    asyncio.get_running_loop().call_later(0.05, stop.set)
    async with asyncio.timeout(30):
        with pytest.raises(Cancelled):
            await run_blocking(pool, lambda: authorizer.grant(stop))
        with pytest.raises(Cancelled):
            await run_blocking(pool, lambda: authorizer.grant(stop))
