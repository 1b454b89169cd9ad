"""A thread that ends by an error takes its process along, and says which it was."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from millrace.errors import MillraceError
from millrace.stream.threads import Indispensable, in_time


def failing() -> None:
    raise ZeroDivisionError("a broken view")


def process(thread: Callable[[], None], error: Exception | None = None) -> None:
    """A process that works until it is asked to stop, or until its one thread is done."""
    stopped = threading.Event()
    with Indispensable(stopped.set):
        view = threading.Thread(target=thread, name="view")
        view.start()
        view.join(30)
        assert stopped.is_set() is (thread is failing)
        if error is not None:
            raise error


def test_a_failed_thread_stops_the_process_and_is_named() -> None:
    before = threading.excepthook
    with pytest.raises(MillraceError, match=r"thread view ended: ZeroDivisionError\('a broken view'\)"):
        process(failing)
    assert threading.excepthook is before


def test_an_error_of_the_process_itself_comes_first() -> None:
    with pytest.raises(KeyError):
        process(failing, KeyError("mine"))


def test_nothing_is_raised_where_nothing_failed() -> None:
    process(lambda: None)


def test_a_call_that_returns_has_been_made_and_its_error_is_the_callers() -> None:
    made: list[int] = []
    in_time(lambda: made.append(1), timeout_s=60)
    assert made == [1]
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 // 0, timeout_s=60)


def test_a_call_that_never_returns_is_left_behind() -> None:
    ends = threading.Event()
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        in_time(ends.wait, timeout_s=0.01)
    ends.set()
