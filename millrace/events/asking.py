"""Asks for recommendations before each click of a replay, as a shop would have, and tells how good they were."""

from __future__ import annotations

import queue
import threading
import zlib
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, Unpack

from millrace.client.errors import RecommenderUnavailable
from millrace.events.build import RequestFields, context_values
from millrace.v1.common_pb2 import Context
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item

if TYPE_CHECKING:
    from millrace.client import Recommendation
    from millrace.events.replay import Publisher

LANES = 16
"""Requests under way at once. A recommender answers in about 2 ms: more only make each other wait."""
CONTEXTS_KEPT = 100_000
"""Users whose last circumstances are known."""
LANE_DEPTH = 4
"""Events that wait in a lane: enough that no lane runs dry, few enough that Ctrl-C waits for little."""

_CLICK = InteractionType.INTERACTION_TYPE_CLICK


class Recommender(Protocol):
    """The part of ``RecommenderClient`` that asking needs; called from several threads."""

    def recommend(self, user_id: str, k: int = 10, **fields: Unpack[RequestFields]) -> Recommendation: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """How good the answers were.

    Attributes
    ----------
    answered, failed
        Requests with and without an answer.
    hits
        Answers that held the clicked item.
    reciprocal_ranks
        Sum of 1/rank of the clicked item, rank from 1; 0 for an answer without it.
    """

    k: int
    answered: int = 0
    failed: int = 0
    hits: int = 0
    reciprocal_ranks: float = 0.0

    @property
    def hit_rate(self) -> float | None:
        """Share of the answers that held the clicked item; None before the first answer."""
        return self.hits / self.answered if self.answered else None

    @property
    def mrr(self) -> float | None:
        """Mean reciprocal rank at k, over all answers; None before the first."""
        return self.reciprocal_ranks / self.answered if self.answered else None


class AskingPublisher:
    """A publisher that asks before each click.

    Users are spread over lanes by hash. A lane asks and publishes one event after the other, so that each user's
    order stays; ``flush`` waits for all lanes. A click goes out with the ``request_id`` of its answer if the clicked
    item is in it, else without: nobody clicks what they are not shown. A request without an answer is counted, and
    its click goes out without one. A request has the circumstances of its user's event before: those of the click
    itself may tell of the clicked item, as a referrer does.

    Parameters
    ----------
    publisher
        Takes the events; called from several threads.
    """

    def __init__(self, recommender: Recommender, publisher: Publisher, k: int, lanes: int = LANES) -> None:
        self._recommender = recommender
        self._publisher = publisher
        self._k = k
        self._contexts: dict[str, Context] = {}
        self._lock = threading.Lock()
        self._asked = Asked(k)
        self._problem: Exception | None = None
        self._lanes: list[queue.Queue[Interaction | None]] = [queue.Queue(LANE_DEPTH) for _ in range(lanes)]
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"ask-{number}", daemon=True)
            for number, lane in enumerate(self._lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def asked(self) -> Asked:
        """The figures so far."""
        with self._lock:
            return self._asked

    def send(self, event: Interaction | Item) -> None:
        """Publish an event behind the earlier ones of its user; waits while its lane is full.

        Raises what publishing an earlier event raised.
        """
        self._raise_problem()
        if isinstance(event, Item):
            self._publisher.send(event)
        else:
            self._lanes[zlib.crc32(event.user_id.encode()) % len(self._lanes)].put(event)

    def flush(self) -> None:
        """Wait until everything is asked, published and acknowledged."""
        for lane in self._lanes:
            lane.join()
        self._raise_problem()
        self._publisher.flush()

    def close(self) -> None:
        """Let the lanes end when they are through; harmless when repeated."""
        for lane, thread in zip(self._lanes, self._threads, strict=True):
            if thread.is_alive():
                lane.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _work(self, lane: queue.Queue[Interaction | None]) -> None:
        while (event := lane.get()) is not None:
            try:
                # After a failure nothing may overtake what is missing: the next run repeats all of it.
                if self._problem is None:
                    self._publisher.send(self._with_answer(event) if event.type == _CLICK else event)
                    self._remember(event)
            except Exception as error:  # noqa: BLE001  (raised by the next send or flush, in the caller's thread)
                self._problem = error
            finally:
                lane.task_done()
        lane.task_done()

    def _with_answer(self, click: Interaction) -> Interaction:
        """The click, having asked: it names the answer that holds its item, and none otherwise."""
        try:
            with self._lock:
                context = self._contexts.get(click.user_id)
            answer = self._recommender.recommend(
                click.user_id,
                self._k,
                session_id=click.session_id,
                context=None if context is None else context_values(context),
                as_of=click.occurred_at_ms,
            )
        except RecommenderUnavailable:
            self._count(failed=1)
            click.request_id = ""
            return click
        try:
            rank = answer.item_ids.index(click.item_id) + 1
        except ValueError:
            self._count(answered=1)
            click.request_id = ""
        else:
            self._count(answered=1, hits=1, reciprocal_ranks=1 / rank)
            click.request_id = answer.request_id
        return click

    def _remember(self, event: Interaction) -> None:
        with self._lock:
            self._contexts.pop(event.user_id, None)
            self._contexts[event.user_id] = event.context
            if len(self._contexts) > CONTEXTS_KEPT:
                del self._contexts[next(iter(self._contexts))]

    def _count(self, answered: int = 0, failed: int = 0, hits: int = 0, reciprocal_ranks: float = 0.0) -> None:
        with self._lock:
            so_far = self._asked
            self._asked = Asked(
                self._k,
                so_far.answered + answered,
                so_far.failed + failed,
                so_far.hits + hits,
                so_far.reciprocal_ranks + reciprocal_ranks,
            )

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem
