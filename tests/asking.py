"""Callers who ask a recommender all the time with our own client, and keep what came of each call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from millrace.client import AsyncRecommenderClient, Recommendation, RecommenderClient
from tests.processes import PATIENCE_S

# Between two calls of a caller: about a hundred a second each, so that what restarts has work under way.
PAUSE_S = 0.005


class Asked:
    """What came of the calls so far. Lists only grow; callers append from their threads.

    Attributes
    ----------
    answers
        In the order in which they came.
    failures
        What the client raised.
    """

    def __init__(self) -> None:
        self.answers: list[Recommendation] = []
        self.failures: list[Exception] = []

    def more(self, count: int) -> Callable[[], bool]:
        """A condition: so many answers more than now."""
        wanted = len(self.answers) + count
        return lambda: len(self.answers) >= wanted


@contextmanager
def asking(target: str, user_id: str, callers: int, timeout_s: float = PATIENCE_S) -> Iterator[Asked]:
    """Callers who ask until the end of a ``with`` block, each over a channel of its own; every other one awaits."""
    asked, over = Asked(), threading.Event()

    def call() -> None:
        with RecommenderClient(target, timeout_s=timeout_s) as client:
            while not over.wait(PAUSE_S):
                try:
                    asked.answers.append(client.recommend(user_id))
                except Exception as error:  # noqa: BLE001  (the test looks at it)
                    asked.failures.append(error)

    async def call_awaiting() -> None:
        async with AsyncRecommenderClient(target, timeout_s=timeout_s) as client:
            while not over.is_set():
                await asyncio.sleep(PAUSE_S)
                try:
                    asked.answers.append(await client.recommend(user_id))
                except Exception as error:  # noqa: BLE001  (the test looks at it)
                    asked.failures.append(error)

    threads = [
        threading.Thread(target=(lambda: asyncio.run(call_awaiting())) if number % 2 else call)
        for number in range(callers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()
