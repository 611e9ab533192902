"""Turns come in the order of their numbers, and an abort wakes who waits."""

import threading

import pytest

from imaging.convert.turns import Turns
from imaging.errors import Stopped


def test_turns_are_taken_in_order():
    turns, order = Turns(), []

    def work(number):
        turns.take(number)
        order.append(number)
        turns.give()

    threads = [threading.Thread(target=work, args=(number,)) for number in (3, 2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2, 3]


def test_an_abort_wakes_who_waits():
    turns, caught = Turns(), []

    def work():
        try:
            turns.take(1)
        except Stopped as err:
            caught.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    turns.abort()
    thread.join(30)
    assert len(caught) == 1
    with pytest.raises(Stopped):
        turns.take(0)
