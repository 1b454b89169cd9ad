"""Arms in the recommender: seen as they come, sticky, logged with their propensity, and never a failed request."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from benchmarks.seed import (
    item_states,
    now_ms,
    promote_first_ranker,
    publish,
    publish_items,
    user_fields,
    write_users,
)
from millrace.experiments.assignment import assign
from millrace.experiments.definition import shares
from millrace.experiments.life import obey
from millrace.features.user_state import user_key
from millrace.learning.state import fresh
from millrace.ranking.first import first_ranker
from millrace.registry.checkpoints import CheckpointCache
from millrace.registry.ledger import fold
from millrace.settings import KafkaSettings
from millrace.topics import EXPERIMENTS, IMPRESSIONS, MODEL_EVENTS
from millrace.v1.experiment_pb2 import AllocationPolicy, Experiment, ExperimentDefinition, ExperimentState, Period
from millrace.v1.impression_pb2 import Fallback, Impression
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.recommendation_service_pb2 import RecommendResponse
from tests.experiment_support import define, definition, start, stop
from tests.recommending import Service, asked_all_the_time, recommender, wait_for
from tests.stream_support import read_all

USERS = [f"user-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def shop(topics_applied: KafkaSettings, redis_url: str, millrace_home: Path) -> dict[str, str]:
    """Items, users, the champion 1, and the version 2 on disk, which ranks the other way round."""
    publish_items(topics_applied, item_states(300))
    write_users(redis_url, len(USERS), 300)
    folder = promote_first_ranker(topics_applied)
    first = first_ranker()
    replace(first, weights=-first.weights).save(folder.parent / "2")
    # Nobody listens there: what is not on disk cannot be had.
    return {
        "KAFKA_BOOTSTRAP_SERVERS": topics_applied.bootstrap_servers,
        "REDIS_URL": redis_url,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }


@contextmanager
def running(home: Path, log: Path, env: dict[str, str]) -> Iterator[Service]:
    with recommender(home, log, env) as service:
        wait_for(lambda: service.ready() and service.readiness()[1]["model_version"] == "1", "the recommender")
        yield service


class Records:
    """The one writer of ``experiments``, for a moment."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._records: dict[str, Experiment] = {}
        versions = [
            ModelEvent(event_id=f"{number}", model_name="ranker", model_version=version, type=kind)
            for number, (version, kind) in enumerate(
                [(version, ModelEventType.MODEL_EVENT_TYPE_REGISTERED) for version in ("1", "2", "3")]
                + [("1", ModelEventType.MODEL_EVENT_TYPE_PROMOTED)]
            )
        ]
        self.ledger = fold("ranker", versions)

    def started(self, given: ExperimentDefinition) -> Experiment:
        for command in (define(given), start(given.experiment_id)):
            changed = obey(command, self._records, {"ranker": self.ledger}, now_ms())
            assert changed is not None
            self._records[given.experiment_id] = changed
        return self._put(given.experiment_id)

    def stopped(self, name: str) -> Experiment:
        changed = obey(stop(name), self._records, {"ranker": self.ledger}, now_ms())
        assert changed is not None
        self._records[name] = changed
        return self._put(name)

    def _put(self, name: str) -> Experiment:
        publish(self._kafka, EXPERIMENTS, [(name, self._records[name])])
        return self._records[name]

    def stop_all(self) -> None:
        """Stop what a test has left running; the tests share the topic."""
        for name, record in list(self._records.items()):
            if record.state == ExperimentState.EXPERIMENT_STATE_RUNNING:
                self.stopped(name)


@pytest.fixture
def records(topics_applied: KafkaSettings) -> Iterator[Records]:
    records = Records(topics_applied)
    yield records
    records.stop_all()


def promote(kafka: KafkaSettings, version: str) -> None:
    event = ModelEvent(event_id=str(uuid.uuid4()), model_name="ranker", model_version=version)
    event.type = ModelEventType.MODEL_EVENT_TYPE_PROMOTED
    publish(kafka, MODEL_EVENTS, [("ranker", event)])


def ask_all(service: Service, **fields: int) -> dict[str, RecommendResponse]:
    return {user: service.ask(user, **fields) for user in USERS}


def test_arms_come_and_go_and_are_logged_exactly(
    topics_applied: KafkaSettings, records: Records, shop: dict[str, str], millrace_home: Path, tmp_path: Path
) -> None:
    given = definition("arms", versions=("", "2", ""), traffic=0.7)
    given.arms[2].settings["ranking"] = "popular"
    with running(millrace_home, tmp_path / "log", shop) as service:
        # As of one moment: how long ago a user saw an item is a feature, and moves the order within seconds.
        at_ms = now_ms()
        before = ask_all(service, as_of_ms=at_ms)
        assert {one.arm for one in before.values()} == {""}
        record = records.started(given)
        # On the topic. How soon it is seen is measured: `millrace bench promotion`.
        wait_for(lambda: any(service.ask(user).arm for user in USERS[:10]), "an arm")
        first, second = ask_all(service, as_of_ms=at_ms), ask_all(service)
        for user in USERS:
            assert first[user].arm == second[user].arm
            if first[user].arm:
                drawn = assign("arms", user, shares(record.definition))
                assert (first[user].experiment_id, first[user].arm) == ("arms", drawn.arm)
        seen = {one.arm for one in first.values()}
        assert seen == {"", "a", "b", "c"}
        assert {one.model_version for one in first.values() if one.arm == "b"} == {"2"}
        assert {one.model_version for one in first.values() if one.arm in ("", "a")} == {"1"}
        assert all(one.fallback == Fallback.FALLBACK_NONE for one in first.values())
        for user in USERS:
            same = [item.item_id for item in first[user].items] == [item.item_id for item in before[user].items]
            assert same == (first[user].arm in ("", "a")), first[user].arm

        with asked_all_the_time(service, USERS[0]) as failed:
            records.stopped("arms")
            wait_for(lambda: not service.readiness()[1]["experiments"], "no experiment")
            assert not any(service.ask(user).arm for user in USERS)
            # MLflow is away: what was an arm is here, and needs no download to serve everybody.
            for version in ("2", "1"):
                promote(topics_applied, version)
                wait_for(lambda v=version: service.readiness()[1]["model_version"] == v, "the champion")  # type: ignore[misc]
                assert {one.model_version for one in ask_all(service).values()} == {version}
                assert service.readiness()[1]["missing"] == []
        assert failed == []
        ids = {one.request_id: one for one in (*first.values(), *before.values())}
        wait_for(lambda: len([1 for one in logged(topics_applied) if one.request_id in ids]) == len(ids), "impressions")
    for one in logged(topics_applied):
        if one.request_id in ids:
            response = ids[one.request_id]
            assert (one.experiment_id, one.arm) == (response.experiment_id, response.arm)
            assert one.propensity == pytest.approx(1 / 3 if one.arm else 1.0, abs=1e-12)


def test_shares_move_and_every_answer_says_of_which_period_it_is(
    topics_applied: KafkaSettings, records: Records, shop: dict[str, str], millrace_home: Path, tmp_path: Path
) -> None:
    given = definition("moving", versions=("", ""))
    given.arms[1].settings["ranking"] = "popular"
    given.policy, given.period_ms, given.floor = AllocationPolicy.ALLOCATION_POLICY_THOMPSON, 60_000, 0.1
    asked: dict[str, tuple[int, RecommendResponse]] = {}
    with running(millrace_home, tmp_path / "log", shop) as service:
        record = records.started(given)
        for number, share in enumerate((0.5, 0.1, 0.8)):
            if number:
                record.periods.append(Period(from_ms=now_ms(), shares=[1 - share, share]))
                publish(topics_applied, EXPERIMENTS, [("moving", record)])
            expected = {user: drawn(record, user, number) for user in USERS}
            wait_for(lambda e=expected: {user: service.ask(user).arm for user in USERS} == e, f"period {number}")  # type: ignore[misc]
            asked |= {one.request_id: (number, one) for one in ask_all(service).values()}
        records.stopped("moving")
        wait_for(lambda: asked.keys() <= {one.request_id for one in logged(topics_applied)}, "impressions")
    for one in logged(topics_applied):
        if one.request_id in asked:
            number, response = asked[one.request_id]
            share = dict(zip("ab", record.periods[number].shares, strict=True))[response.arm]
            assert (one.period, one.arm, one.propensity) == (number, response.arm, share)
    assert len({drawn(record, USERS[0], number) for number in range(30)}) == 2, "the number is in the hash"


def test_what_users_did_before_the_start_is_logged_and_what_they_do_since_is_not(
    topics_applied: KafkaSettings,
    records: Records,
    shop: dict[str, str],
    redis_url: str,
    millrace_home: Path,
    tmp_path: Path,
) -> None:
    asked: set[str] = set()
    with running(millrace_home, tmp_path / "log", shop) as service:
        for name, asks in (("quiet", False), ("curious", True)):
            record = records.started(definition(name, versions=("", "2"), earlier_activity=asks))
            wait_for(lambda n=name: service.readiness()[1]["experiments"] == [n], "the experiment")  # type: ignore[misc]
            with Redis.from_url(redis_url) as redis:
                # Five of them at the start or since.
                fields = user_fields([f"i{number}" for number in range(25)], record.started_at_ms + 4_000)
                redis.hset(user_key(USERS[0]), mapping=fields)
            asked |= {service.ask(user).request_id for user in (USERS[0], USERS[1], "nobody")}
            records.stopped(name)
            wait_for(lambda: not service.readiness()[1]["experiments"], "its end")
        wait_for(lambda: asked <= {one.request_id for one in logged(topics_applied)}, "impressions")
    said = {
        (one.experiment_id, one.user_id): one.earlier_activity if one.HasField("earlier_activity") else None
        for one in logged(topics_applied)
        if one.request_id in asked
    }
    assert {user: said["curious", user] for user in (USERS[0], USERS[1], "nobody")} == {
        USERS[0]: 20,
        USERS[1]: 20,
        "nobody": 0,
    }
    assert {value for (name, _), value in said.items() if name == "quiet"} == {None}


def drawn(record: Experiment, user: str, number: int) -> str:
    shares = record.periods[min(number, len(record.periods) - 1)].shares
    return assign("moving", user, dict(zip("ab", shares, strict=True)), number).arm


def logged(kafka: KafkaSettings) -> list[Impression]:
    return [Impression.FromString(message.value() or b"") for message in read_all(kafka, IMPRESSIONS.name)]


def test_an_arm_that_cannot_be_served_falls_back_and_is_counted(
    topics_applied: KafkaSettings, records: Records, shop: dict[str, str], millrace_home: Path, tmp_path: Path
) -> None:
    with running(millrace_home, tmp_path / "log", shop) as service:
        records.started(definition("missing", versions=("", "3")))
        wait_for(lambda: service.readiness()[1]["experiments"] == ["missing"], "the experiment")
        answers = ask_all(service)
        for one in answers.values():
            assert one.model_version == "1"
            expected = Fallback.FALLBACK_ARM_UNAVAILABLE if one.arm == "b" else Fallback.FALLBACK_NONE
            assert one.fallback == expected
        assert {one.arm for one in answers.values()} == {"a", "b"}
        status, said = service.readiness()
        assert status == 200
        assert any(problem.startswith("arm missing/b: version 3") for problem in said["missing"])
        figures = service.figures()
        unavailable = sum(one.arm == "b" for one in answers.values())
        labels = 'arm="b",experiment="missing",result="unavailable"'
        assert f"millrace_recommender_arm_answers_total{{{labels}}} {unavailable}.0" in figures
        assert "millrace_recommender_arms_missing 1.0" in figures
        records.stopped("missing")


def test_an_arm_stands_still_at_a_checkpoint_also_after_a_restart(
    topics_applied: KafkaSettings, records: Records, shop: dict[str, str], millrace_home: Path, tmp_path: Path
) -> None:
    first = first_ranker()
    state = replace(fresh(replace(first, weights=-first.weights), "1", "promoted-1", 4), sequence=7)
    _, digest = CheckpointCache("ranker").put(state)
    event = ModelEvent(
        event_id="checkpoint",
        model_name="ranker",
        model_version="1",
        type=ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED,
        checkpoint_id=state.checkpoint_id,
        figures={"epoch": 4, "sequence": 7},
        sha256=digest,
    )
    publish(topics_applied, MODEL_EVENTS, [("ranker", event)])
    records.ledger.apply(event)
    given = definition("frozen", versions=("", ""))
    given.arms[1].settings["checkpoint"] = "latest"
    records.started(given)
    for number in range(2):
        with running(millrace_home, tmp_path / f"log {number}", shop) as service:
            wait_for(lambda s=service: s.readiness()[1]["experiments"] == ["frozen"], "the experiment")  # type: ignore[misc]
            answers = ask_all(service)
            ids = {one.request_id for one in answers.values()}
            wait_for(lambda i=ids: i <= {one.request_id for one in logged(topics_applied)}, "impressions")  # type: ignore[misc]
        assert all(one.fallback == Fallback.FALLBACK_NONE for one in answers.values())
    shown = {one.request_id: one for one in logged(topics_applied)}
    for one in answers.values():
        impression = shown[one.request_id]
        assert (impression.learner_epoch, impression.learner_sequence) == ((4, 7) if one.arm == "b" else (0, 0))
    records.stopped("frozen")
