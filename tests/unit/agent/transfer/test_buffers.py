"""The pool hands out no more than it was built with and wakes everybody when it closes."""

import threading

import pytest

from agent.errors import Cancelled
from agent.transfer.buffers import BufferPool


def test_a_buffer_given_back_is_the_next_one_taken():
    pool = BufferPool(2, 16)
    first, second = pool.take(), pool.take()
    assert first is not second
    pool.give(first)
    assert pool.take() is first


def test_a_taker_waits_until_one_is_free():
    pool = BufferPool(1, 16)
    held = pool.take()
    got = []
    thread = threading.Thread(target=lambda: got.append(pool.take()))
    thread.start()
    assert not got
    pool.give(held)
    thread.join(timeout=30)
    assert got == [held]


def test_closing_wakes_a_waiter_with_cancelled():
    pool = BufferPool(1, 16)
    pool.take()
    errors = []

    def take():
        try:
            pool.take()
        except Cancelled as err:
            errors.append(err)

    thread = threading.Thread(target=take)
    thread.start()
    pool.close()
    thread.join(timeout=30)
    assert len(errors) == 1
    with pytest.raises(Cancelled):
        pool.take()
