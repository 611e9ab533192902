"""Workers end together; the first error is the one that is told, whoever of them meets it."""

import threading

import pytest

from imaging.workers import run_workers


def test_all_of_them_work_at_once() -> None:
    together = threading.Barrier(3, timeout=30)
    run_workers(together.wait, count=3, name="test", abort=lambda: None)


@pytest.mark.parametrize("first", [0, 2])
def test_the_first_error_ends_the_others_and_is_told(first: int) -> None:
    stop, numbers, lock = threading.Event(), iter(range(3)), threading.Lock()

    def work() -> None:
        with lock:
            number = next(numbers)
        if number == first:
            raise KeyError("cause")
        assert stop.wait(30)
        raise ValueError("what the end made of it")

    with pytest.raises(KeyError, match="cause"):
        run_workers(work, count=3, name="test", abort=stop.set)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test_")]


def test_a_thread_that_cannot_be_started_ends_those_that_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, start, started = threading.Event(), threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="start new thread"):
        run_workers(lambda: stop.wait(30) and None, count=2, name="test", abort=stop.set)
    assert stop.is_set()
