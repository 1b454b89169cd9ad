"""An experiment through the real loop: asked over gRPC, clicked, joined, counted, decided, promoted for everyone."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.answers import answer
from benchmarks.seed import item_states, now_ms, promote_first_ranker, publish, publish_items, write_users
from millrace.client import EventProducer
from millrace.experiments.asking import ask_tracker, read_experiments, recount
from millrace.experiments.periods import period_differences
from millrace.ranking.first import first_ranker
from millrace.registry.asking import new_command
from millrace.settings import KafkaSettings, StreamSettings
from millrace.topics import IMPRESSIONS, MODEL_EVENTS, OUTCOMES
from millrace.v1.experiment_pb2 import AllocationPolicy, DecisionKind, Experiment
from millrace.v1.impression_pb2 import AnswerStatus
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.conftest import StartProcess
from tests.experiment_support import definition
from tests.recommending import recommender, wait_for
from tests.stream_support import read_all

pytestmark = pytest.mark.timeout(300)

STREAM = StreamSettings()
USERS = 120


def test_from_an_answer_to_the_decision(
    topics_applied: KafkaSettings,
    kafka_env: Mapping[str, str],
    redis_url: str,
    process: StartProcess,
    millrace_home: Path,
    tmp_path: Path,
) -> None:
    kafka = topics_applied
    publish_items(kafka, item_states(200))
    users = write_users(redis_url, USERS, 200)
    folder = promote_first_ranker(kafka)
    first = first_ranker()
    digest = replace(first, weights=-first.weights).save(folder.parent / "2")
    registered = ModelEvent(
        event_id="registered-2",
        model_name="ranker",
        model_version="2",
        type=ModelEventType.MODEL_EVENT_TYPE_REGISTERED,
        at_ms=now_ms(),
        sha256=bytes.fromhex(digest),
    )
    publish(kafka, MODEL_EVENTS, [("ranker", registered)])
    env = {**kafka_env, "REDIS_URL": redis_url, "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": "2000"}
    process("workers.outcome_joiner", env=env)
    tracker = process("workers.experiment_tracker", env=env)
    given = definition("loop", minimum_users=20, expected_rate=0.1, expected_lift=3.0, earlier_activity=True)
    given.policy, given.period_ms, given.floor = AllocationPolicy.ALLOCATION_POLICY_THOMPSON, 1_000, 0.3
    define, start = new_command("test", ""), new_command("test", "")
    define.define_experiment.definition.CopyFrom(given)
    start.start_experiment.experiment_id, start.start_experiment.override_reason = "loop", "it has no log yet"
    ask_tracker(kafka, STREAM, define, 60)
    began = ask_tracker(kafka, STREAM, start, 60)

    # Who is shown the second version clicks: 4 of 10 slots, and buys what costs 5. The others click 1 slot.
    shown = dict[str, str]()
    with (
        recommender(millrace_home, tmp_path / "log", env) as service,
        EventProducer(kafka=kafka) as events,
    ):
        wait_for(lambda: service.ready() and service.readiness()[1]["experiments"] == ["loop"], "the experiment")
        # One more got no answer.
        failed = answer(given, "nobody", "failed", now_ms(), began.periods)
        failed.status = AnswerStatus.ANSWER_STATUS_FAILED
        publish(kafka, IMPRESSIONS, [(failed.user_id, failed)])
        shown[failed.user_id] = failed.arm
        wait_for(lambda: read_all(kafka, OUTCOMES.name), "the end of its window")
        chance = random.Random(1)
        for user in users:
            told = service.ask(user)
            shown[user] = told.arm
            clicked = chance.sample([item.item_id for item in told.items], 4 if told.arm == "b" else 1)
            for item in clicked:
                events.interaction(user, item, "click", request_id=told.request_id)
            if told.arm == "b":
                events.interaction(user, clicked[0], "purchase", value=5.0)
        events.flush()
        wait_for(lambda: len(read_all(kafka, IMPRESSIONS.name)) == USERS + 1, "the impressions")

        def record() -> Experiment:
            return read_experiments(kafka, STREAM, 10)["loop"]

        # Windows close with the joiner's clock, which goes on by itself.
        tracker.until(lambda: record().stopped_at_ms, interval_s=0.3)
        wait_for(lambda: not service.readiness()[1]["experiments"], "the end of the experiment")
        assert {service.ask(user).arm for user in users[:10]} == {""}
    found = record()
    assert (found.decision.kind, found.decision.arm) == (DecisionKind.DECISION_KIND_PROMOTE, "b")
    for figures in found.figures:
        # The decision may have come before the last windows closed.
        assert 20 <= figures.users <= sum(arm == figures.name for arm in shown.values())
        assert figures.impressions == figures.users
        assert figures.failures == (figures.name == failed.arm)
        assert figures.clicks == (figures.impressions - figures.failures) * (4 if figures.name == "b" else 1)
        assert figures.slots > figures.clicks
        assert sum(figures.serve_counts) == figures.impressions
    assert found.figures[0].conversions == 0
    assert found.figures[1].conversions >= found.figures[1].users - found.figures[1].failures
    assert found.figures[1].conversion_value == 5.0 * found.figures[1].conversions
    counted = recount(kafka, STREAM, found, 30)
    assert counted.figures == found.figures
    assert counted.periods == found.periods
    assert period_differences(found) == []
    # Every user clicked 20 items before; of who got no answer nothing was read.
    answered = sum(one.slots for one in found.figures)
    assert found.figures[0].statistics["earlier.units"] == answered
    assert found.figures[0].statistics["earlier.x"] == pytest.approx(answered * math.log1p(20))
