"""How a training job is told to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from millrace.registry.training_runs import Cancelled
from workers.retrain_orchestrator.progress import Progress
from workers.retrain_orchestrator.signals import Cancellation


@pytest.fixture
def cancellation() -> Iterator[Cancellation]:
    with Cancellation() as begun:
        yield begun


class Finaliser:
    """Is asked to end while it is deleted: Python drops what is raised there."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_breaks_off_whatever_is_done(cancellation: Cancellation) -> None:
    with pytest.raises(Cancelled):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_was_dropped_counts_at_the_next_step(cancellation: Cancellation) -> None:
    progress = Progress(cancellation.check)
    progress.begin("searching")
    Finaliser()
    with pytest.raises(Cancelled):
        progress.did(1)
    with pytest.raises(Cancelled):
        progress.begin("fitting")
    with pytest.raises(Cancelled), cancellation.held(last=True):
        pytest.fail("what must be whole is not begun")


def test_a_step_that_must_be_whole_is_ended_first(cancellation: Cancellation) -> None:
    done = []

    def whole() -> None:
        with cancellation.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("whole")

    with pytest.raises(Cancelled):
        whole()
    assert done == ["whole"]


def test_the_last_step_is_never_broken_off(cancellation: Cancellation) -> None:
    with cancellation.held(last=True):
        signal.raise_signal(signal.SIGTERM)
    cancellation.check()
