"""Experiments: slots a second of one tracker that counts two arms, with users and figures written as it goes.

It reads outcomes of ten slots of as many users as a shop has; half of the answers come in two outcomes, a click and the
rest. The limit is the bare consumer that reads the same records.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import seed
from benchmarks.environment import Say, process, servers
from benchmarks.report import Row, rate_row
from benchmarks.workers import consume_rate, worker_rate
from millrace.experiments.assignment import assign
from millrace.experiments.life import obey
from millrace.ranking.features import FEATURE_NAMES
from millrace.registry.ledger import fold
from millrace.topics import EXPERIMENTS, OUTCOMES
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import Arm, Experiment, ExperimentDefinition
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression, Slot
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome

ANSWERS, SHOWN, USERS = 20_000, 10, 5_000
SHARES = {"a": 0.5, "b": 0.5}


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The row of the tracker."""
    with servers(say, bootstrap_servers, redis_url) as at:
        say(f"writing what came of {ANSWERS:,} answers")
        seed.publish(at.kafka, EXPERIMENTS, [("bench", started())])
        made = list(outcomes(ANSWERS))
        seed.publish(at.kafka, OUTCOMES, ((one.user_id, one) for one in made))
        slots_each = ANSWERS * SHOWN / len(made)
        say("the limit: a bare consumer")
        limit = consume_rate(at.kafka, [OUTCOMES], len(made)) * slots_each
        say("one experiment tracker")
        with process("workers.experiment_tracker", at) as tracker:
            rate = worker_rate(tracker, len(made)) * slots_each
    return [rate_row("experiment_tracker.slots_per_s", rate, "slots/s", limit, ANSWERS * SHOWN)]


def started() -> Experiment:
    """The record of an A/A test of everyone, which nothing will decide."""
    champion = ModelEvent(
        event_id="1", model_name="ranker", model_version="1", type=ModelEventType.MODEL_EVENT_TYPE_PROMOTED
    )
    arms = [Arm(name=name, share=share, control=name == "a") for name, share in SHARES.items()]
    define, start = Command(command_id="define"), Command(command_id="start")
    define.define_experiment.definition.CopyFrom(
        ExperimentDefinition(
            experiment_id="bench", model_name="ranker", traffic=1.0, arms=arms, minimum_users=10 * USERS
        )
    )
    start.start_experiment.experiment_id = "bench"
    records: dict[str, Experiment] = {}
    for command in (define, start):
        changed = obey(command, records, {"ranker": fold("ranker", [champion])}, seed.now_ms())
        assert changed is not None
        records["bench"] = changed
    return records["bench"]


def outcomes(count: int) -> Iterator[Outcome]:
    """What came of answers, in the order in which they were given."""
    random = np.random.default_rng(5)
    features = random.normal(size=len(FEATURE_NAMES)).tolist()
    users, clicked = random.integers(0, USERS, count).tolist(), (random.random(count) < 0.5).tolist()
    begin_ms = seed.now_ms() - count
    for number, (user, click) in enumerate(zip(users, clicked, strict=True)):
        user_id = f"shopper-{user}"
        drawn = assign("bench", user_id, SHARES)
        impression = Impression(
            request_id=f"bench-{number}",
            user_id=user_id,
            served_at_ms=begin_ms + number,
            experiment_id="bench",
            arm=drawn.arm,
            propensity=drawn.propensity,
            serve_micros=3_000,
            status=AnswerStatus.ANSWER_STATUS_OK,
            fallback=Fallback.FALLBACK_NONE,
        )
        slots = [
            DecidedSlot(slot=Slot(item_id=f"item-{place}", rank=place, features=features), label=Label.LABEL_NEGATIVE)
            for place in range(SHOWN)
        ]
        if click:
            slots[0].label = Label.LABEL_POSITIVE
            yield _outcome(impression, slots[:1], first=True, final=False)
            yield _outcome(impression, slots[1:], first=False, final=True)
        else:
            yield _outcome(impression, slots, first=True, final=True)


def _outcome(impression: Impression, slots: list[DecidedSlot], first: bool, final: bool) -> Outcome:
    return Outcome(
        request_id=impression.request_id,
        user_id=impression.user_id,
        origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
        decided_at_ms=impression.served_at_ms + 500,
        impression=impression,
        slots=slots,
        first=first,
        final=final,
    )
