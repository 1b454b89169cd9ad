"""The end of an experiment: from the record that says that an arm has won to what everybody gets.

Versions are registered one after the other; each is an arm of a running experiment, and served as one, until the record
has a decision, as the tracker writes it, while somebody asks all the time. From the broker's append of that record to
the last answer of an arm (so soon a harmful one is gone too), and to the first answer of the version that belongs to no
arm, both read from the topics afterwards. Every answer counts: those that failed are a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import Event, Thread
from typing import Any

import grpc

from benchmarks import seed
from benchmarks.environment import ASK_TIMEOUT_S, Process, Say, Servers, process, servers
from benchmarks.learning import read
from benchmarks.report import Row, latency_row
from millrace.ranking.first import first_ranker
from millrace.registry.registry import Registry
from millrace.settings import MlflowSettings
from millrace.topics import EXPERIMENTS, IMPRESSIONS, MODEL_EVENTS
from millrace.v1.experiment_pb2 import (
    Arm,
    Decision,
    DecisionKind,
    Experiment,
    ExperimentDefinition,
    ExperimentState,
)
from millrace.v1.impression_pb2 import AnswerStatus, Impression
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.recommendation_service_pb2 import RecommendRequest
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

MODEL = "ranker"
ITEMS = 2_000
PROMOTIONS = 8
ASK_S = 0.005
"""Between two requests."""


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The rows of stops, of promotions, and of answers that failed meanwhile."""
    with servers(say, bootstrap_servers, redis_url, mlflow=True) as at:
        seed.publish_items(at.kafka, seed.item_states(ITEMS))
        say("starting orchestrator and recommender")
        with process("workers.retrain_orchestrator", at) as orchestrator, process("services.recommender", at) as one:
            orchestrator.wait_ready()
            one.wait_ready()
            one.wait_ranks_with(MODEL, "1")
            stop = Event()
            failures: list[str] = []
            asking = Thread(target=_ask_on, args=(one.announced["grpc"], stop, failures))
            asking.start()
            try:
                won = _promote(at, one, say)
            finally:
                stop.set()
                asking.join()
        answers = [Impression.FromString(message.value() or b"") for message in read(at.kafka, IMPRESSIONS)]
        failed = len(failures) + sum(one.status == AnswerStatus.ANSWER_STATUS_FAILED for one in answers)
        return [
            latency_row("experiments.stop_to_serving_ms", list(_last_ms(answers, won))),
            latency_row("experiments.promotion_to_serving_ms", list(_delays_ms(answers, won))),
            Row("experiments.promotion_failed_requests", failed, "requests", samples=len(answers) + len(failures)),
        ]


def _ask_on(target: str, stop: Event, failures: list[str]) -> None:
    """Ask all the time; what fails is kept."""
    with grpc.insecure_channel(target) as channel:
        stub, number = RecommendationServiceStub(channel), 0
        while not stop.wait(ASK_S):
            number += 1
            try:
                stub.Recommend(RecommendRequest(user_id=f"user {number % 200}", k=10), timeout=ASK_TIMEOUT_S)
            except grpc.RpcError as error:
                failures.append(str(error))


def _promote(at: Servers, recommender: Process, say: Say) -> Mapping[str, int]:
    """Let version after version win; version -> when its record was appended, Unix ms."""
    registry, champion = Registry(MlflowSettings(tracking_uri=at.mlflow)), "1"
    for number in range(PROMOTIONS):
        made = registry.log_version(MODEL, first_ranker(), f"bench-{number}", "bench")
        say(f"version {made.version} wins over {champion}")
        event = ModelEvent(event_id=f"registered-{made.version}", model_name=MODEL, model_version=made.version)
        event.type, event.at_ms = ModelEventType.MODEL_EVENT_TYPE_REGISTERED, seed.now_ms()
        event.sha256 = bytes.fromhex(made.sha256)
        seed.publish(at.kafka, MODEL_EVENTS, [(MODEL, event)])
        record = _experiment(made.version, champion)
        seed.publish(at.kafka, EXPERIMENTS, [(made.version, record)])
        recommender.wait_ready(_serves(made.version))
        record.state, record.stopped_at_ms = ExperimentState.EXPERIMENT_STATE_STOPPED, seed.now_ms()
        record.decision.CopyFrom(Decision(kind=DecisionKind.DECISION_KIND_PROMOTE, arm="new", reason="bench"))
        seed.publish(at.kafka, EXPERIMENTS, [(made.version, record)])
        recommender.wait_ranks_with(MODEL, made.version)
        champion = made.version
    return {
        record.definition.experiment_id: message.timestamp()[1]
        for message in read(at.kafka, EXPERIMENTS)
        if (record := Experiment.FromString(message.value() or b"")).HasField("decision")
    }


def _serves(experiment_id: str) -> Callable[[dict[str, Any]], bool]:
    """Of what a recommender says: whether it serves every arm of an experiment."""
    return lambda state: (
        experiment_id in state["experiments"] and not any(one.startswith("arm ") for one in state["missing"])
    )


def _experiment(version: str, champion: str) -> Experiment:
    """A running one of a version against the champion."""
    arms = [Arm(name="old", share=0.5, control=True), Arm(name="new", model_version=version, share=0.5)]
    return Experiment(
        definition=ExperimentDefinition(experiment_id=version, model_name=MODEL, traffic=1.0, arms=arms),
        state=ExperimentState.EXPERIMENT_STATE_RUNNING,
        champion_version=champion,
        started_at_ms=seed.now_ms(),
    )


def _last_ms(answers: list[Impression], stopped: Mapping[str, int]) -> Iterator[float]:
    """From each stop to the last answer of an arm; 0 if there was none after it."""
    for name, at_ms in stopped.items():
        yield float(max(0, *(one.served_at_ms - at_ms for one in answers if one.experiment_id == name)))


def _delays_ms(answers: list[Impression], won: Mapping[str, int]) -> Iterator[float]:
    """From each record to the first answer of the version that won, for whomever."""
    served = sorted((one.served_at_ms, one.model_version) for one in answers if not one.arm)
    for version, at_ms in won.items():
        yield float(next(when for when, by in served if when >= at_ms and by == version) - at_ms)
