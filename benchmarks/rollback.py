"""Rollback: from the command to answers that are ranked with the old parameters.

Two checkpoints are stored, and commands go back to the one and the other in turn, while somebody asks all the time:
from the broker's append of a command to the first answer that is ranked with the parameters that it names, both read
from the topics afterwards. Nobody learns meanwhile, so that parameters are told by their numbers. MLflow is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from typing import Any

import grpc

from benchmarks import seed
from benchmarks.environment import ASK_TIMEOUT_S, Process, Say, Servers, process, servers
from benchmarks.learning import ask_on, read
from benchmarks.report import Row, latency_row
from millrace.learning.state import fresh
from millrace.ranking.first import first_ranker
from millrace.registry.asking import ask, roll_back
from millrace.registry.checkpoints import CheckpointCache
from millrace.settings import StreamSettings
from millrace.topics import COMMANDS, IMPRESSIONS, MODEL_EVENTS
from millrace.v1.command_pb2 import Command
from millrace.v1.impression_pb2 import Impression
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.recommendation_service_pb2 import RecommendRequest
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

MODEL, VERSION = "ranker", "1"
ITEMS = 2_000
ROLLBACKS = 40
PAUSE_S = 0.25


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The row of rollbacks."""
    with servers(say, bootstrap_servers, redis_url, mlflow=True) as at:
        seed.publish_items(at.kafka, seed.item_states(ITEMS))
        say("starting orchestrator and recommender")
        with process("workers.retrain_orchestrator", at) as orchestrator, process("services.recommender", at) as one:
            orchestrator.wait_ready()
            one.wait_ready()
            one.wait_ranks_with(MODEL, VERSION)
            checkpoints = _store(at)
            with _asked(one):
                say(f"rolling back {ROLLBACKS} times")
                asked = _go_back(at, one, checkpoints)
        return [latency_row("learning.rollback_to_serving_ms", list(_delays_ms(at, asked)))]


def _store(at: Servers) -> list[ModelEvent]:
    """Two checkpoints of the champion, on this disk and in the topic, as a learner leaves them."""
    cache, made = CheckpointCache(MODEL), []
    for sequence in (1, 2):
        state = replace(fresh(first_ranker(), VERSION, "first", epoch=1), sequence=sequence)
        event = ModelEvent(
            event_id=f"checkpoint-{sequence}",
            model_name=MODEL,
            model_version=VERSION,
            type=ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED,
            at_ms=seed.now_ms(),
            checkpoint_id=state.checkpoint_id,
            sha256=cache.put(state)[1],
            figures={"epoch": 1.0, "sequence": float(sequence)},
        )
        made.append(event)
    seed.publish(at.kafka, MODEL_EVENTS, ((MODEL, event) for event in made))
    return made


@contextmanager
def _asked(recommender: Process) -> Iterator[None]:
    stop = Event()
    asking = Thread(target=ask_on, args=(recommender.announced["grpc"], stop))
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()


def _go_back(at: Servers, recommender: Process, checkpoints: list[ModelEvent]) -> dict[str, int]:
    """Command id -> sequence of the checkpoint."""
    asked: dict[str, int] = {}
    with grpc.insecure_channel(recommender.announced["grpc"]) as channel:
        stub = RecommendationServiceStub(channel)
        for number in range(ROLLBACKS):
            checkpoint = checkpoints[number % 2]
            sequence = round(checkpoint.figures["sequence"])
            command = roll_back(MODEL, "", "bench", "", checkpoint.checkpoint_id)
            ask(at.kafka, StreamSettings(), MODEL, command, timeout_s=ASK_TIMEOUT_S)
            asked[command.command_id] = sequence
            # The answers after it are part of the measurement; this one is there also if who asks is held up.
            recommender.wait_ready(partial(_serves, sequence))
            stub.Recommend(RecommendRequest(user_id="probe", k=1), timeout=ASK_TIMEOUT_S)
            time.sleep(PAUSE_S)
    return asked


def _serves(sequence: int, state: dict[str, Any]) -> bool:
    """Of what a recommender says: whether it ranks with the checkpoint of this sequence."""
    return bool(state["learner_sequence"] == sequence)


def _delays_ms(at: Servers, asked: Mapping[str, int]) -> Iterator[float]:
    answers = sorted(
        (one.served_at_ms, one.learner_sequence)
        for one in (Impression.FromString(message.value() or b"") for message in read(at.kafka, IMPRESSIONS))
    )
    sent_ms: dict[str, int] = {}
    for message in read(at.kafka, COMMANDS):
        sent_ms.setdefault(Command.FromString(message.value() or b"").command_id, message.timestamp()[1])
    for command_id, sequence in asked.items():
        at_ms = sent_ms[command_id]
        served_ms = next((when for when, served in answers if when >= at_ms and served == sequence), None)
        if served_ms is None:
            raise RuntimeError("a rollback was not served")
        yield float(served_ms - at_ms)
