"""Experiments: slots a second of one tracker that counts two arms, with users and figures written as it goes.

It reads outcomes of ten slots of as many users as a shop has; half of the answers come in two outcomes, a click and the
rest. The limit is the bare consumer that reads the same records.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import seed
from benchmarks.answers import answer, begun, outcome
from benchmarks.environment import Say, process, servers
from benchmarks.report import Row, rate_row
from benchmarks.workers import consume_rate, worker_rate
from millrace.ranking.features import FEATURE_NAMES
from millrace.topics import EXPERIMENTS, OUTCOMES
from millrace.v1.experiment_pb2 import Arm, ExperimentDefinition
from millrace.v1.outcome_pb2 import Label, Outcome

ANSWERS, SHOWN, USERS = 20_000, 10, 5_000


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The row of the tracker."""
    with servers(say, bootstrap_servers, redis_url) as at:
        say(f"writing what came of {ANSWERS:,} answers")
        given = a_a_test()
        seed.publish(at.kafka, EXPERIMENTS, [(given.experiment_id, begun(given))])
        made = list(outcomes(given, ANSWERS))
        seed.publish(at.kafka, OUTCOMES, ((one.user_id, one) for one in made))
        slots_each = ANSWERS * SHOWN / len(made)
        say("the limit: a bare consumer")
        limit = consume_rate(at.kafka, [OUTCOMES], len(made)) * slots_each
        say("one experiment tracker")
        with process("workers.experiment_tracker", at) as tracker:
            rate = worker_rate(tracker, len(made)) * slots_each
    return [rate_row("experiment_tracker.slots_per_s", rate, "slots/s", limit, ANSWERS * SHOWN)]


def a_a_test() -> ExperimentDefinition:
    """An A/A test of everyone, which nothing will decide."""
    arms = [Arm(name=name, share=0.5, control=name == "a") for name in "ab"]
    return ExperimentDefinition(
        experiment_id="bench", model_name="ranker", traffic=1.0, arms=arms, minimum_users=10 * USERS
    )


def outcomes(given: ExperimentDefinition, count: int) -> Iterator[Outcome]:
    """What came of answers, in the order in which they were given."""
    random = np.random.default_rng(5)
    features = random.normal(size=len(FEATURE_NAMES)).tolist()
    users, clicked = random.integers(0, USERS, count).tolist(), (random.random(count) < 0.5).tolist()
    begin_ms = seed.now_ms() - count
    for number, (user, click) in enumerate(zip(users, clicked, strict=True)):
        shown = answer(given, f"shopper-{user}", f"bench-{number}", begin_ms + number)
        rest = SHOWN - click
        if click:
            yield outcome(shown, [Label.LABEL_POSITIVE], final=False, features=features)
        yield outcome(shown, [Label.LABEL_NEGATIVE] * rest, first=not click, rank=click, features=features)
