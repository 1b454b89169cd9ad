"""Fetching ahead: what fails is tried again or given up, and never ends the thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from millrace.errors import InfrastructureError
from millrace.ranking.model import UnusableModel
from services.recommender.prefetch import Prefetch

TIMEOUT_S = 20


@pytest.fixture
def prefetch() -> Iterator[Prefetch]:
    made = Prefetch()
    yield made
    made.close()


@pytest.mark.parametrize("failure", [InfrastructureError("mlflow", "away"), OSError("no space left on device")])
def test_what_is_not_to_be_had_now_is_tried_again(prefetch: Prefetch, failure: Exception) -> None:
    problems: list[str] = []
    after = threading.Event()
    failures = iter([failure, failure])

    def fetch() -> None:
        problems.append(prefetch.problems.get("version 1", ""))
        error = next(failures, None)
        if error is not None:
            raise error

    prefetch.want({"version 1": fetch, "the next": after.set})
    assert after.wait(TIMEOUT_S)
    assert problems == ["", str(failure), str(failure)]
    assert "version 1" in prefetch.here
    assert not prefetch.problems


def test_what_is_no_use_is_given_up_and_the_others_come(prefetch: Prefetch) -> None:
    tries: list[None] = []
    after = threading.Event()

    def damaged() -> None:
        tries.append(None)
        raise UnusableModel("it is damaged")

    prefetch.want({"checkpoint 1.1.1": damaged, "the next": after.set})
    assert after.wait(TIMEOUT_S)
    assert (prefetch.unusable, prefetch.problems) == ({"checkpoint 1.1.1"}, {"checkpoint 1.1.1": "it is damaged"})
    assert len(tries) == 1


def test_what_was_removed_is_fetched_again(prefetch: Prefetch) -> None:
    fetched = threading.Semaphore(0)
    prefetch.want({"checkpoint 1.1.1": fetched.release})
    assert fetched.acquire(timeout=TIMEOUT_S)
    after = threading.Event()
    prefetch.want({"checkpoint 1.1.1": fetched.release, "the next": after.set})
    assert after.wait(TIMEOUT_S)
    prefetch.again("checkpoint 1.1.1")
    assert fetched.acquire(timeout=TIMEOUT_S)
