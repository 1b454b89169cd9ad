"""The outcome joiner as a process, on a real broker and a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pytest
from google.protobuf.message import Message

from benchmarks.seed import item_id, item_states
from millrace.features.decay import DecayedSum
from millrace.features.user_state import Engagement, KnownPosition, UserState, encode_user, user_key
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.settings import JoinerSettings, KafkaSettings
from millrace.stream.codec import encode
from millrace.topics import IMPRESSIONS, INTERACTIONS, ITEM_STATE, OUTCOMES, Topic
from millrace.v1.interaction_pb2 import InteractionType
from millrace.v1.outcome_pb2 import ImpressionOrigin, Outcome
from tests.conftest import Child, StartProcess
from tests.feature_support import RedisServer, connected
from tests.outcome_support import act, check_frames, impression, labels
from tests.stream_support import Place, get, headers_of, read_all, ready, send

CLICK = InteractionType.INTERACTION_TYPE_CLICK
WINDOW_MS = 3_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def env(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], server: RedisServer) -> Mapping[str, str]:
    put(topics_applied, ITEM_STATE, item_states(200), key="item_id")
    return {
        **kafka_env,
        "REDIS_URL": server.url,
        "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": str(WINDOW_MS),
        "MILLRACE_JOINER_ORGANIC_RATE": "1",
    }


def put(kafka: KafkaSettings, topic: Topic, messages: Iterable[Message], key: str = "user_id") -> list[Place]:
    return send(kafka, topic, [(getattr(message, key), *encode(message)) for message in messages])


def outcomes(kafka: KafkaSettings, user: str) -> list[Outcome]:
    """Committed outcomes of a user."""
    found = [Outcome.FromString(value) for message in read_all(kafka, OUTCOMES.name) if (value := message.value())]
    return [outcome for outcome in found if outcome.user_id == user]


def until(child: Child, kafka: KafkaSettings, user: str, condition: Callable[[list[Outcome]], bool]) -> list[Outcome]:
    """The user's outcomes once they are as they should be."""
    child.until(lambda: condition(outcomes(kafka, user)), interval_s=0.2)
    return outcomes(kafka, user)


def now_ms() -> int:
    return int(time.time() * 1_000)


def test_answers_become_labels_and_bad_records_dead_letters(
    topics_applied: KafkaSettings, env: Mapping[str, str], process: StartProcess
) -> None:
    kafka, at_ms = topics_applied, now_ms()
    shown = impression("answer", "user", ["a", "b", "c"], at_ms, viewport=2)
    misplaced = [impression("", "user", ["a"], at_ms), impression("gap", "user", ["a", "b"], at_ms)]
    misplaced[1].slots[1].rank = 7
    early = act("user", "b", "click", at_ms + 5, "answer")
    put(kafka, INTERACTIONS, [early])
    [place, *_] = put(kafka, IMPRESSIONS, [shown, shown, *misplaced])
    put(kafka, INTERACTIONS, [early, act("user", "not shown", "click", at_ms + 6, "answer")])
    # All of it stands in the log by now: else the window might close by the clock between two of them.
    worker = process("workers.outcome_joiner", env=env)
    found = until(worker, kafka, "user", lambda found: bool(found) and found[-1].final)
    check_frames(found)
    # Time alone closed the window: nothing came after the clicks.
    assert labels(found) == {("answer", "a"): "negative", ("answer", "b"): "positive", ("answer", "c"): "unseen"}
    assert found[0].impression_position.offset == place[2]
    assert found[0].impression_position.topic_id
    assert found[0].impression.feature_schema == FEATURE_SCHEMA
    assert list(found[0].slots[0].slot.features) == list(shown.slots[1].features)
    worker.until(lambda: read_all(kafka, INTERACTIONS.dlq))
    [dead] = read_all(kafka, INTERACTIONS.dlq)
    assert headers_of(dead)["dlq.field"] == b"item_id"
    assert headers_of(dead)["dlq.worker"] == b"outcome_joiner"
    reasons = {headers_of(message)["dlq.field"] for message in read_all(kafka, IMPRESSIONS.dlq)}
    assert reasons == {b"request_id", b"slots[1].rank"}
    figures = get(worker, "outcome_joiner", "/metrics")[1]
    assert 'millrace_joiner_slots_total{label="positive",origin="served"} 1.0' in figures
    assert 'millrace_joiner_impressions_total{verdict="duplicate"} 1.0' in figures
    assert 'millrace_joiner_interactions_total{verdict="duplicate"} 1.0' in figures
    assert worker.terminate() == 0, worker.output()


def test_organic_clicks_become_examples_as_of_just_before_them(
    topics_applied: KafkaSettings, env: Mapping[str, str], server: RedisServer, process: StartProcess
) -> None:
    kafka, at_ms = topics_applied, now_ms()
    user, store = "organic user", connected(server.url)
    states = {state.item_id: state for state in item_states(200)}
    before = item_id(3)
    # Follows the item that the user looked at before.
    item = states[before].neighbours.item_ids[0]
    click = act(user, item, "click", at_ms)
    earlier = act(user, before, "view", at_ms - 1)
    [(_, partition, first), (_, _, offset)] = put(kafka, INTERACTIONS, [earlier, click])
    state = make_user([(before, first), (item, offset)], partition, at_ms)
    for field, value in encode_user(state).items():
        store.ask("HSET", user_key(user), field, value)
    store.close()

    worker = process("workers.outcome_joiner", env=env)
    [found] = until(worker, kafka, user, bool)
    assert found.origin == ImpressionOrigin.IMPRESSION_ORIGIN_ORGANIC
    assert found.first
    assert found.final
    assert not found.HasField("impression_position")
    assert found.impression.feature_schema == FEATURE_SCHEMA
    negatives = JoinerSettings().organic_negatives
    assert list(labels([found]).values()) == ["positive", *["negative"] * negatives]
    assert found.slots[0].slot.item_id == item
    assert found.slots[0].event_id == click.event_id
    features = np.array([slot.slot.features for slot in found.slots])
    assert features.shape == (1 + negatives, len(FEATURE_NAMES))
    assert np.isfinite(features).all()
    # The user's key knows the click itself already; the example does not.
    assert features[0, FEATURE_NAMES.index("seen")] == 0
    assert features[0, FEATURE_NAMES.index("covisit_last")] > 0
    # The same click again gives nothing.
    put(kafka, INTERACTIONS, [click, act("last one", item_id(0), "click", at_ms)])
    until(worker, kafka, "last one", bool)
    assert outcomes(kafka, user) == [found]
    assert worker.terminate() == 0, worker.output()


def make_user(recent: list[tuple[str, int]], partition: int, at_ms: int) -> UserState:
    """A user who clicked items at offsets, the oldest first."""
    return UserState(
        counts={CLICK: len(recent)},
        decayed={CLICK: DecayedSum(len(recent), at_ms)},
        first_seen_ms=at_ms - 1_000,
        last_seen_ms=at_ms,
        purchase_value=0.0,
        recent=tuple(Engagement(item, CLICK, at_ms, partition, offset, 0) for item, offset in reversed(recent)),
        disliked=frozenset(),
        known=KnownPosition(partition, recent[-1][1]),
    )


def test_restarts_of_redis_and_of_the_worker_lose_and_double_nothing(
    topics_applied: KafkaSettings, env: Mapping[str, str], server: RedisServer, process: StartProcess
) -> None:
    kafka, at_ms, user = topics_applied, now_ms(), "patient"
    first = process("workers.outcome_joiner", env=env)
    put(kafka, IMPRESSIONS, [impression("kept", user, ["a", "b"], at_ms)])
    put(kafka, INTERACTIONS, [act(user, "b", "click", at_ms, "kept")])
    until(first, kafka, user, bool)
    server.stop()
    put(kafka, INTERACTIONS, [act(user, item_id(1), "click", at_ms)])
    first.until(lambda: "redis" in get(first, "outcome_joiner", "/readyz")[1])
    server.start()
    until(first, kafka, user, lambda found: len(found) >= 2)
    assert first.terminate() == 0, first.output()
    second = process("workers.outcome_joiner", env=env)
    found = until(second, kafka, user, lambda found: any(one.final and one.request_id == "kept" for one in found))
    check_frames(found)
    assert labels(found)["kept", "a"] == "negative"
    # On a slow machine the first has closed the window already, and the second may have come no further than here.
    second.until(lambda: ready(second, "outcome_joiner"))
    assert second.terminate() == 0, second.output()
