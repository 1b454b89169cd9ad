"""What ``millrace evaluate`` says of some clicks is what ``millrace replay --ask`` finds on the running pipeline.

    click n ──► asked before it, as of its time ──► gRPC ──► the answer and its impression, beside the evaluator's
       └──► interactions ──► feature updater ──► Redis, item-state ──► recommender, and only then click n + 1

Two things are held still on both sides: new items of the catalogue, which are drawn by chance, are not proposed, and
the ranker does not learn (the evaluator teaches it the negatives that it draws, the pipeline those that were shown).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pytest

from benchmarks import seed
from millrace.client import EventProducer, Recommendation, RecommenderClient
from millrace.evaluation import protocols
from millrace.evaluation.figures import Record
from millrace.evaluation.lag import parse_lag
from millrace.evaluation.prequential import Answer, Prequential
from millrace.evaluation.questions import MISS, Question, Questioner
from millrace.evaluation.stream import Event, EventStream, Happened, checksum
from millrace.events.asking import AskingPublisher
from millrace.events.build import RequestFields
from millrace.learning.learner import OnlineRanker
from millrace.ranking.circumstances import circumstances
from millrace.ranking.first import first_ranker
from millrace.settings import DAY_MS, SECOND_MS, KafkaSettings, Settings
from millrace.stream.admin import apply_topics
from millrace.topics import IMPRESSIONS
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item
from tests.conftest import StartProcess
from tests.evaluation_support import T0, click, stream
from tests.processes import PATIENCE_S
from tests.recommending import recommender, wait_for
from tests.stream_support import read_all

# Sessions of people who come back, three at a time, on so few items that what was learned tells what comes next.
SESSIONS, LENGTH, AT_ONCE, USERS, ITEMS, K = 36, 5, 3, 12, 40, 10
# Bounds so small that the stream goes over each of them; an item's state is published at once.
KNOBS = {
    "MILLRACE_FEATURES_NEIGHBOURS_KEPT": "3",
    "MILLRACE_FEATURES_PUBLISH_INTERVAL_MS": "1",
    "MILLRACE_FEATURES_SESSION_CONTEXT": "3",
    "MILLRACE_RECOMMENDER_CANDIDATES_MAX": "15",
    "MILLRACE_RECOMMENDER_CONTEXT_ITEMS": "3",
    "MILLRACE_RECOMMENDER_FRESH_ITEMS": "0",
    "MILLRACE_RECOMMENDER_TRENDING_ITEMS": "8",
}
# Two items of the test's own, clicked once and so long ago that they weigh nothing; nobody is shown them.
BEACONS = ("beacon-0", "beacon-1")
LONG_AGO_MS = T0 - 1_000 * DAY_MS
# More than there are items: such an answer holds all that may be shown.
EVERYTHING = 200


def clicks() -> list[Interaction]:
    """The clicks in the order of their times. A quarter of the people have no session ids."""
    made = list(stream(SESSIONS, items=ITEMS, length=LENGTH))
    for number, one in enumerate(made):
        session, place = divmod(number, LENGTH)
        turn, lane = divmod(session, AT_ONCE)
        one.user_id = f"user {session % USERS}"
        one.session_id = one.session_id if session % 4 else ""
        # A third of the people tell nothing of themselves, and some change their device.
        if session % 3:
            one.context.region = f"region {session % USERS % 5}"
            one.context.device = "mobile" if place % 4 else "desktop"
            one.context.attributes["plan"] = "free"
        one.occurred_at_ms = T0 + ((turn * LENGTH + place) * AT_ONCE + lane) * SECOND_MS
    return sorted(made, key=lambda one: one.occurred_at_ms)


def beacon_clicks() -> list[Interaction]:
    return [
        click(-1 - place, f"user of {beacon}", beacon, at_ms=LONG_AGO_MS + place)
        for place, beacon in enumerate(BEACONS)
    ]


class Pipeline:
    """The running pipeline as a replay sees it; but an event is only sent when all that follows from it is known.

    Attributes
    ----------
    answers
        In the order in which they were asked for.
    """

    def __init__(
        self, client: RecommenderClient, events: EventProducer, readiness: Callable[[], tuple[int, dict[str, Any]]]
    ) -> None:
        self.answers: list[Recommendation] = []
        self._client, self._events, self._readiness = client, events, readiness
        self._sent = 0
        self._beacons = cycle((BEACONS, BEACONS[::-1]))

    def recommend(self, user_id: str, k: int = 10, **fields: Unpack[RequestFields]) -> Recommendation:
        fields["exclude"] = BEACONS
        answer = self._client.recommend(user_id, k, **fields)
        self.answers.append(answer)
        return answer

    def send(self, event: Interaction | Item) -> None:
        assert isinstance(event, Interaction)
        before = self._known(event.user_id)
        self._events.send(event)
        self._events.flush()
        self._sent += 1
        wait_for(lambda: self._readiness()[1]["events_read"] == self._sent, "the sessions")
        wait_for(lambda: self._known(event.user_id) != before, "the user's state")
        # What the updater takes from here on is published behind the items of the event; and an item that is on sale
        # again is trending as soon as the recommender has brought its lists up to date.
        lit, dark = next(self._beacons)
        self._events.item(dark, title=dark, available=False)
        self._events.item(lit, title=lit, available=True)
        self._events.flush()
        wait_for(lambda: self._is_trending(lit), "the items' states")

    def flush(self) -> None:
        self._events.flush()

    def _known(self, user_id: str) -> object:
        return self._client.recommend(user_id, 1).known

    def _is_trending(self, item_id: str) -> bool:
        answer = self._client.recommend("nobody", EVERYTHING)
        return any(item.item_id == item_id and "trending_short" in item.sources for item in answer.items)


@pytest.fixture(scope="module")
def knobs(millrace_home: Path) -> Iterator[Settings]:
    """The settings of both sides."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KNOBS.items():
            patch.setenv(name, value)
        yield Settings()


@pytest.fixture(scope="module")
def kafka(kafka_settings: KafkaSettings) -> KafkaSettings:
    """Topics of one partition, in which what follows from an event stands behind what follows from earlier ones."""
    kafka = kafka_settings.model_copy(update={"partitions": 1})
    apply_topics(kafka)
    return kafka


@pytest.fixture
def pipeline(
    kafka: KafkaSettings, redis_url: str, knobs: Settings, process: StartProcess, millrace_home: Path, tmp_path: Path
) -> Iterator[Pipeline]:
    """Feature updater and recommender with the first version, which nobody teaches; the beacons have been clicked."""
    seed.promote_first_ranker(kafka)
    env = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "KAFKA_PARTITIONS": "1", "REDIS_URL": redis_url}
    process("workers.feature_updater", env=env)
    with (
        recommender(millrace_home, tmp_path / "recommender.log", env) as service,
        EventProducer(kafka) as events,
        RecommenderClient(service.target, timeout_s=PATIENCE_S) as client,
    ):
        wait_for(lambda: service.ready() and service.readiness()[1]["model_version"], "the champion")
        running = Pipeline(client, events, service.readiness)
        for event in beacon_clicks():
            running.send(event)
        yield running


class EveryClick(protocols.Protocol):
    """Asks before each event, as a replay does; but nobody asks on behalf of the beacons."""

    def asks(self, place: int, event: Event, period: int, continues: bool) -> protocols.Asked | None:
        return None if event.item_id in BEACONS else protocols.Asked(counted=True)


class Evaluated:
    """A pass over the clicks: the evaluator's answers, and what they were made from."""

    def __init__(self, events: Sequence[Interaction], settings: Settings) -> None:
        self.happened = [
            Happened(
                one.user_id,
                one.item_id,
                one.type,
                one.occurred_at_ms,
                one.session_id,
                one.value,
                one.event_id,
                circumstances(one.context),
            )
            for one in (*beacon_clicks(), *events)
        ]
        source = EventStream("clicks", self.happened, [0], 0, checksum(self.happened))
        self._run = Prequential(source, EveryClick(source, 0), settings, K, parse_lag("0"), every=1, seed=0)
        self._memory = self._run.memory
        random = np.random.default_rng(0)
        self._questioner = Questioner(self._memory, settings.features, settings.recommender, K, random)

    def answers(self) -> Iterator[tuple[Answer, Question]]:
        """The answer before each click."""
        passed = self._run.run()
        for event in self.happened:
            self._memory.ready(self._memory.users.get(event.user_id))
            question = self._questioner.before(event)
            _, answer = next(passed)
            if answer is None:
                self._memory.withdraw(event.item_id)
            else:
                yield answer, question

    def item_ids(self, answer: Answer) -> list[str]:
        """The items of an answer."""
        return [self._memory.table.id_of(row) for row in answer.top.tolist()]


def impressions(kafka: KafkaSettings, answers: Sequence[Recommendation]) -> list[Impression]:
    """What is logged of each answer, once all of it is."""

    def logged() -> list[Impression]:
        made = (Impression.FromString(message.value() or b"") for message in read_all(kafka, IMPRESSIONS.name))
        found: Mapping[str, Impression] = {one.request_id: one for one in made}
        return [found[one.request_id] for one in answers if one.request_id in found]

    wait_for(lambda: len(logged()) == len(answers), "the impressions")
    return logged()


# 180 clicks, each of which waits for the next refresh of the recommender's lists (0.25 s): a minute and a half among
# busy neighbours, a quarter of an hour among very busy ones.
@pytest.mark.timeout(1_200)
def test_a_replay_finds_what_the_evaluator_says(
    pipeline: Pipeline, kafka: KafkaSettings, knobs: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = clicks()
    with AskingPublisher(pipeline, pipeline, K, lanes=1) as replay:
        for event in events:
            replay.send(event)
        replay.flush()
    asked, logged = replay.asked, impressions(kafka, pipeline.answers)

    monkeypatch.setattr(OnlineRanker, "learn", lambda *_: None)
    evaluated, model, record = Evaluated(events, knobs), first_ranker(), Record(K)
    for event, served, impression, (answer, question) in zip(
        events, pipeline.answers, logged, evaluated.answers(), strict=True
    ):
        assert served.status == "ok"
        item_ids = evaluated.item_ids(answer)
        record.add(answer, item_ids)
        assert list(served.item_ids) == item_ids
        assert impression.candidates == answer.ranked
        place = item_ids.index(event.item_id) + 1 if event.item_id in item_ids else MISS
        assert place == (answer.rank if answer.rank <= K else MISS)

        slots = impression.slots
        assert [slot.item_id for slot in slots] == item_ids
        scores = model.score(question.features)
        best = np.argsort(-scores, kind="stable")[:K]
        # Redis takes its powers of two from another library: their last bits may differ.
        assert [slot.score for slot in slots] == pytest.approx(scores[best].tolist(), abs=1e-6)
        for slot, features in zip(slots, question.features[best], strict=True):
            assert list(slot.features) == pytest.approx(features.tolist(), rel=1e-6)

    figures = record.figures(ITEMS, by_period=False)
    assert figures is not None
    assert asked.answered == figures.n == len(events)
    assert asked.hit_rate == figures.hr
    assert asked.mrr == pytest.approx(figures.mrr)
    # What was learned is in the answers: by chance one list in four would hold the item.
    assert figures.hr > 0.4
