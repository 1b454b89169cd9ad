"""The online learner as a process, on a real broker: what it publishes, refuses, and goes on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.seed import promote_first_ranker, publish
from millrace.errors import InfrastructureError
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import apply, to_vector
from millrace.learning.state import LearnerState, fresh
from millrace.learning.updates import Lines
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.registry.asking import trigger_update
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.codec import encode
from millrace.stream.fenced import FencedProducer
from millrace.topics import COMMANDS, EXPERIMENTS, MODEL_UPDATES, OUTCOMES
from millrace.v1.experiment_pb2 import Arm, Experiment, ExperimentDefinition, ExperimentState
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import Child, StartProcess
from tests.learning_support import D, outcomes
from tests.recommending import wait_for
from tests.stream_support import get, headers_of, read_all, send
from workers.online_learner.following import Following


@pytest.fixture
def env(kafka_env: Mapping[str, str], topics_applied: KafkaSettings, request: pytest.FixtureRequest) -> dict[str, str]:
    """A model of the test's own."""
    name = request.node.name
    promote_first_ranker(topics_applied, name)
    return {**kafka_env, "ONLINE_LEARNING_MODEL_NAME": name}


def updates(kafka: KafkaSettings, model: str) -> list[ModelUpdate]:
    """Committed records of a model."""
    return [ModelUpdate.FromString(message.value() or b"") for message in read_all(kafka, MODEL_UPDATES.name)
            if message.key() == model.encode()]  # fmt: skip


def put(kafka: KafkaSettings, some: Sequence[Outcome]) -> None:
    send(kafka, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in some])


def newest(kafka: KafkaSettings, model: str) -> LearnerState | None:
    """The newest snapshot."""
    lines = Lines(model)
    for record in updates(kafka, model):
        lines.apply(record)
    return lines.last


def wait_learned(child: Child, kafka: KafkaSettings, model: str, examples: int, epoch: int = 1) -> list[ModelUpdate]:
    """Records of the model once so many slots were learned in an epoch."""

    def learned() -> bool:
        return any(
            one.update.epoch == epoch and one.update.examples >= examples
            for one in updates(kafka, model)
            if one.HasField("update")
        )

    child.until(learned, interval_s=0.2)
    return updates(kafka, model)


def test_it_learns_publishes_and_refuses(
    topics_applied: KafkaSettings, env: dict[str, str], process: StartProcess
) -> None:
    kafka, model = topics_applied, env["ONLINE_LEARNING_MODEL_NAME"]
    made = list(outcomes(60, users=1))
    bad = [Outcome.FromString(made[0].SerializeToString()) for _ in range(3)]
    bad[0].impression.feature_schema = "v0-unknown"
    bad[1].slots[0].slot.features[0] = math.nan
    del bad[2].slots[1].slot.features[5:]
    put(kafka, [*made[:30], *bad, *made[30:]])
    learner = process("workers.online_learner", env=env)
    records = wait_learned(learner, kafka, model, 300)

    expected = OnlineRanker(fresh(first_ranker(), "1", "promoted-1", 1))
    for outcome in made:
        expected.learn(*read_examples(outcome, FEATURE_SCHEMA, D))
    first = records[0].snapshot
    assert (first.epoch, first.sequence, first.reign_id) == (1, 0, "promoted-1")
    vector = to_vector(first_ranker())
    own = [record.update for record in records if record.HasField("update")]
    assert [update.sequence for update in own] == list(range(1, len(own) + 1))
    for update in own:
        vector = apply(vector, update.parameters)
    np.testing.assert_allclose(vector, to_vector(expected.model()), rtol=0, atol=1e-12)
    assert sum(position.offset + 1 for position in own[-1].learned) >= 63

    def fields() -> list[str]:
        return sorted(headers_of(dead)["dlq.field"].decode() for dead in read_all(kafka, OUTCOMES.dlq))

    learner.until(lambda: len(fields()) >= len(bad), interval_s=0.2)
    assert fields() == ["impression.feature_schema", "slots[0].slot.features[0]", "slots[1].slot.features"]
    figures = get(learner, "online_learner", "/metrics")[1]
    assert f'millrace_learner_parameters{{model="{model}"}} {3 * len(first_ranker().columns) + 2}.0' in figures
    assert get(learner, "online_learner", "/readyz")[0] == 200
    assert learner.terminate() == 0, learner.output()
    # It leaves a state behind that includes everything.
    state = newest(kafka, model)
    assert state is not None
    assert (to_vector(state.model) == to_vector(expected.model())).all()


def test_a_command_is_answered_by_an_update_also_with_nothing_to_learn(
    topics_applied: KafkaSettings, env: dict[str, str], process: StartProcess
) -> None:
    kafka, model = topics_applied, env["ONLINE_LEARNING_MODEL_NAME"]
    learner = process("workers.online_learner", env=env | {"ONLINE_LEARNING_INTERVAL_MS": "3600000"})
    learner.until(lambda: newest(kafka, model))
    command = trigger_update(model, "tester", "now")
    other = trigger_update("another model", "tester", "now")

    def answered() -> list[ParameterUpdate]:
        # Sent again until it is answered, as senders do.
        send(kafka, COMMANDS, [(model, *encode(command)), ("other", *encode(other))])
        return [one.update for one in updates(kafka, model) if command.command_id in one.update.command_ids]

    learner.until(answered, interval_s=0.2)
    assert len(answered()) == 1
    assert list(answered()[0].command_ids) == [command.command_id]
    assert learner.terminate() == 0, learner.output()


def test_without_a_champion_it_waits_and_says_so(
    topics_applied: KafkaSettings, kafka_env: Mapping[str, str], process: StartProcess
) -> None:
    model = "not there yet"
    learner = process("workers.online_learner", env={**kafka_env, "ONLINE_LEARNING_MODEL_NAME": model})
    learner.until(lambda: "has no champion yet" in get(learner, "online_learner", "/readyz")[1])
    promote_first_ranker(topics_applied, model)
    learner.until(lambda: newest(topics_applied, model))
    assert learner.terminate() == 0, learner.output()


def test_a_new_champion_begins_a_line_and_a_stand_by_takes_over(
    topics_applied: KafkaSettings, env: dict[str, str], process: StartProcess, millrace_home: Path
) -> None:
    kafka, model = topics_applied, env["ONLINE_LEARNING_MODEL_NAME"]
    first = process("workers.online_learner", env=env)
    first.until(lambda: newest(kafka, model))
    second = process("workers.online_learner", env=env)
    second.until(lambda: "stand-by" in get(second, "online_learner", "/readyz")[1])
    promote_first_ranker(kafka, model, version="2")

    def line(condition: Callable[[LearnerState], bool]) -> Callable[[], bool]:
        def found() -> bool:
            state = newest(kafka, model)
            return state is not None and condition(state)

        return found

    first.until(line(lambda state: state.reign_id == "promoted-2" and state.epoch == 2))
    put(kafka, list(outcomes(20, seed=3)))
    wait_learned(first, kafka, model, 100, epoch=2)
    assert first.terminate() == 0, first.output()
    second.until(line(lambda state: state.epoch == 3))
    state = newest(kafka, model)
    assert state is not None
    # It goes on from all that the first one learned.
    assert state.model.observations == 1_100
    put(kafka, list(outcomes(20, seed=4)))
    wait_learned(second, kafka, model, 100, epoch=3)
    assert second.terminate() == 0, second.output()


def test_a_writer_that_was_replaced_is_refused(topics_applied: KafkaSettings) -> None:
    old, new = (FencedProducer(topics_applied, "online_learner", "fenced") for _ in range(2))
    old.open()
    record = [(MODEL_UPDATES, "fenced", ModelUpdate(update=ParameterUpdate(model_name="fenced", epoch=1)))]
    old.write(record)
    new.open()
    with pytest.raises(InfrastructureError, match="another online_learner of model 'fenced' has taken over"):
        old.write(record)
    assert not old.is_open
    new.write(record)
    assert len(updates(topics_applied, "fenced")) == 2


def test_checkpoints_that_a_running_experiment_compares_are_kept(
    topics_applied: KafkaSettings, env: dict[str, str]
) -> None:
    """What `store-checkpoint --keep` gets besides those that a rollback may choose from."""
    kafka, model = topics_applied, env["ONLINE_LEARNING_MODEL_NAME"]
    arms = [Arm(name="live"), Arm(name="frozen", settings={"checkpoint": "1.2.3"})]
    given = ExperimentDefinition(experiment_id="e", model_name=model, arms=arms)
    record = Experiment(definition=given, state=ExperimentState.EXPERIMENT_STATE_RUNNING)
    publish(kafka, EXPERIMENTS, [("e", record)])
    following = Following(kafka, StreamSettings(), model)
    following.open()

    def compared() -> list[str]:
        following.poll(time.monotonic())
        return following.compared

    try:
        wait_for(lambda: compared() == ["1.2.3"], "the experiment")
        record.state = ExperimentState.EXPERIMENT_STATE_STOPPED
        publish(kafka, EXPERIMENTS, [("e", record)])
        wait_for(lambda: compared() == [], "its end")
    finally:
        following.close()
