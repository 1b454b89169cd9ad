"""Asking before each click of a replay: order, figures, failures."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import pytest

from millrace.client import DeliveryFailed, Recommendation, RecommendedItem, RecommenderUnavailable
from millrace.events import build
from millrace.events.asking import Asked, AskingPublisher
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item

AT_MS = 1_506_826_800_000


class Shown:
    """A recommender that shows the same three items to everyone, but fails for some."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int, dict[str, Any]]] = []
        self.lock = threading.Lock()

    def recommend(self, user_id: str, k: int = 10, **fields: Any) -> Recommendation:
        with self.lock:
            self.requests.append((user_id, k, fields))
            number = len(self.requests)
        if user_id.startswith("unlucky"):
            raise RecommenderUnavailable("here", "UNAVAILABLE", "gone")
        items = tuple(RecommendedItem(item, 0.5, ()) for item in ("a", "b", "c"))
        return Recommendation(
            f"r{number}:{user_id}", items, "", "", "", (), None, "ok", "none", fields["as_of"], "", "", 1
        )


class Log:
    """A broker; refuses everything after some events."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.events: list[Interaction | Item] = []
        self.lock = threading.Lock()
        self.fails_after = fails_after

    def send(self, event: Interaction | Item) -> None:
        with self.lock:
            if self.fails_after is not None and len(self.events) >= self.fails_after:
                raise DeliveryFailed("the broker is away")
            self.events.append(event)

    def flush(self) -> None:
        pass


def click(user: str, item: str, number: int = 0, **fields: Any) -> Interaction:
    return build.interaction(user, item, occurred_at=AT_MS + number, session_id="s", **fields)


def sent(events: list[Interaction | Item]) -> list[Interaction]:
    return [event for event in events if isinstance(event, Interaction)]


def test_a_click_names_the_answer_that_holds_its_item() -> None:
    shown, log = Shown(), Log()
    with AskingPublisher(shown, log, k=3) as asking:
        asking.send(click("u", "b", 5))
        asking.send(click("u", "elsewhere", 6, request_id="of another shop"))
        asking.flush()
    first, second = sent(log.events)
    assert (first.request_id, second.request_id) == ("r1:u", "")
    assert shown.requests[0] == ("u", 3, {"session_id": "s", "context": None, "as_of": AT_MS + 5})
    assert asking.asked == Asked(3, answered=2, hits=1, reciprocal_ranks=0.5)
    assert (asking.asked.hit_rate, asking.asked.mrr) == (0.5, 0.25)


def test_a_request_knows_the_circumstances_of_the_event_before() -> None:
    shown, log = Shown(), Log()
    with AskingPublisher(shown, log, k=3) as asking:
        for place, referrer in enumerate(("search", "internal", "")):
            context = {"referrer": referrer, "plan": "free"} if referrer else None
            asking.send(build.interaction("u", "a", "click", occurred_at=AT_MS + place, context=context))
        asking.send(build.interaction("v", "a", "click", occurred_at=AT_MS))
        asking.flush()
    found = {(user, fields["as_of"] - AT_MS): fields["context"] for user, _, fields in shown.requests}
    assert found == {
        ("u", 0): None,
        ("u", 1): {"referrer": "search", "plan": "free"},
        ("u", 2): {"referrer": "internal", "plan": "free"},
        ("v", 0): None,
    }


def test_only_clicks_are_asked_for() -> None:
    shown, log = Shown(), Log()
    with AskingPublisher(shown, log, k=3) as asking:
        asking.send(Item(item_id="a"))
        asking.send(build.interaction("u", "a", "view", occurred_at=AT_MS))
        asking.flush()
    assert len(log.events) == 2
    assert shown.requests == []
    assert asking.asked.hit_rate is None


def test_a_request_without_answer_is_counted_and_its_click_goes_out() -> None:
    log = Log()
    with AskingPublisher(Shown(), log, k=3) as asking:
        for number in range(5):
            asking.send(click("unlucky", "a", number))
        asking.flush()
    assert [event.request_id for event in sent(log.events)] == [""] * 5
    assert (asking.asked.failed, asking.asked.answered) == (5, 0)


def test_each_users_order_stays() -> None:
    log = Log()
    with AskingPublisher(Shown(), log, k=3) as asking:
        for number in range(400):
            user = f"unlucky {number % 7}" if number % 2 else f"user {number % 7}"
            asking.send(click(user, "a", number))
        asking.flush()
        assert len(log.events) == 400
    times: dict[str, list[int]] = defaultdict(list)
    for event in sent(log.events):
        times[event.user_id].append(event.occurred_at_ms)
    assert all(of_one == sorted(of_one) for of_one in times.values())
    assert len(times) == 14


def test_what_the_broker_refuses_ends_the_replay_and_nothing_overtakes_it() -> None:
    log = Log(fails_after=10)
    with AskingPublisher(Shown(), log, k=3, lanes=1) as asking:

        def send_all() -> None:
            for number in range(100):
                asking.send(click("u", "a", number))

        with pytest.raises(DeliveryFailed):
            send_all()
        with pytest.raises(DeliveryFailed):
            asking.flush()
    assert [event.occurred_at_ms - AT_MS for event in sent(log.events)] == list(range(10))
