"""Checkpoints on real parts: to MLflow while learning goes on, back from it, and rollbacks that serving follows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.seed import item_states, promote_first_ranker, publish_items, write_users
from deploy.embedded.member import running
from deploy.embedded.mlflow import Mlflow
from deploy.embedded.ports import free_port
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import to_vector
from millrace.learning.state import STATE_FILE, LearnerState, fresh
from millrace.learning.updates import Lines
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.registry.journal import read_ledger
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, MlflowSettings, StreamSettings
from millrace.stream.clients import admin_config
from millrace.stream.codec import encode
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_EVENTS, MODEL_UPDATES, OUTCOMES
from millrace.v1.model_pb2 import ModelEvent, ModelUpdate
from tests.conftest import Child, StartProcess
from tests.integration.orchestration import Model, orchestrator_env, until_ready
from tests.integration.test_registry_cli import Cli
from tests.learning_support import D, outcomes
from tests.recommending import Service, asked_all_the_time, recommender, wait_for
from tests.stream_support import get, read_all, send


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Mlflow:
    """An MLflow server that the module starts when it wants to, and whose artifacts it can damage."""
    return Mlflow(tmp_path_factory.mktemp("mlflow"), free_port())


@pytest.fixture(scope="module")
def mlflow(server: Mlflow) -> Iterator[Mlflow]:
    with running(server):
        yield server


class Line:
    """A model of the test's own, and what is known of it from outside."""

    def __init__(self, kafka: KafkaSettings, model: str, env: Mapping[str, str]) -> None:
        self.kafka, self.model = kafka, model
        self.env = {**env, "ONLINE_LEARNING_MODEL_NAME": model, "ONLINE_LEARNING_CHECKPOINT_INTERVAL_MS": "300"}
        self.expected = OnlineRanker(fresh(first_ranker(), "1", "promoted-1", 1))

    def learn(self, count: int, seed: int) -> None:
        """Outcomes to the topic, and to a learner in this process."""
        made = list(outcomes(count, seed=seed, users=1))
        send(self.kafka, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in made])
        for outcome in made:
            self.expected.learn(*read_examples(outcome, FEATURE_SCHEMA, D))

    def ledger(self) -> Ledger:
        with TopicReader(self.kafka, [MODEL_EVENTS], "beginning", StreamSettings()) as reader:
            return read_ledger(self.model, reader, 10)

    def newest(self) -> LearnerState | None:
        """The newest snapshot."""
        lines = Lines(self.model)
        for message in read_all(self.kafka, MODEL_UPDATES.name):
            lines.apply(ModelUpdate.FromString(message.value() or b""))
        return lines.last

    def learned(self, slots: int) -> bool:
        """Whether a learner has learned so many slots of the line, epochs before included."""
        state = self.newest()
        return state is not None and state.model.observations == 1_000 + slots

    def checkpoint_of(self, slots: int, child: Child) -> ModelEvent:
        """The checkpoint after so many slots of the present epoch, once it is stored."""

        def found() -> list[ModelEvent]:
            return [one for one in self.ledger().checkpoints.values() if one.figures["examples"] == slots]

        child.until(found, interval_s=0.2)
        return found()[-1]


@pytest.fixture
def line(
    request: pytest.FixtureRequest, topics_applied: KafkaSettings, kafka_env: Mapping[str, str], server: Mlflow
) -> Line:
    return Line(topics_applied, request.node.name, {**kafka_env, "MLFLOW_TRACKING_URI": server.address})


def test_without_mlflow_learning_goes_on_and_with_it_checkpoints_come(
    line: Line, process: StartProcess, server: Mlflow, request: pytest.FixtureRequest
) -> None:
    promote_first_ranker(line.kafka, line.model)
    learner = process("workers.online_learner", env=line.env)
    line.learn(20, seed=1)
    learner.until(lambda: 'checkpoints_total{model="' + line.model + '",result="failed"}' in metrics(learner))
    line.learn(20, seed=2)
    learner.until(lambda: line.learned(200), interval_s=0.2)
    assert not line.ledger().checkpoints
    assert get(learner, "online_learner", "/readyz")[0] == 200

    request.getfixturevalue("mlflow")
    event = line.checkpoint_of(200, learner)
    runs = Model(line.model, line.kafka, MlflowSettings(tracking_uri=server.address)).registry.client
    run = runs.get_run(event.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["millrace.checkpoint_id"] == event.checkpoint_id
    assert run.data.metrics["examples"] == 200
    assert 0 < event.figures["log_loss"] < 5
    state = LearnerState.from_bytes(stored(server, event).read_bytes())
    assert (to_vector(state.model) == to_vector(line.expected.model())).all()
    assert sum(state.learned.values()) == 40
    assert learner.terminate() == 0, learner.output()


def test_who_starts_when_the_topic_has_forgotten_goes_on_from_mlflow(
    line: Line, process: StartProcess, mlflow: Mlflow, millrace_home: Path
) -> None:
    promote_first_ranker(line.kafka, line.model)
    learner = process("workers.online_learner", env=line.env)
    line.learn(30, seed=3)
    event = line.checkpoint_of(150, learner)
    learner.kill()
    line.learn(30, seed=4)
    forget(line.kafka)
    # One that was cut in half on this disk is no obstacle: MLflow has it whole.
    local = millrace_home / "models" / line.model / "checkpoints" / event.checkpoint_id / STATE_FILE
    local.write_bytes(local.read_bytes()[:100])

    again = process("workers.online_learner", env=line.env)
    again.until(lambda: line.learned(300), interval_s=0.2)
    state = line.newest()
    assert state is not None
    np.testing.assert_allclose(to_vector(state.model), to_vector(line.expected.model()), rtol=0, atol=1e-9)
    assert state.epoch == 2
    assert "SHA-256" in again.output()
    assert again.terminate() == 0, again.output()


def test_a_rollback_to_a_checkpoint_is_served_and_learned_from(
    line: Line, process: StartProcess, mlflow: Mlflow, redis_url: str, millrace_home: Path, tmp_path: Path
) -> None:
    env = {**line.env, **orchestrator_env(line.model, mlflow.address), "REDIS_URL": redis_url}
    orchestrator = process("workers.retrain_orchestrator", env=env)
    until_ready(orchestrator, millrace_home)
    publish_items(line.kafka, item_states(300))
    write_users(redis_url, 5, 300)
    learner = process("workers.online_learner", env=env)
    line.learn(20, seed=5)
    good = line.checkpoint_of(100, learner)
    cli = Cli(env)
    assert "no checkpoint yet" in Cli(env)("checkpoints", "--model", "nobody's").stdout
    with recommender(
        millrace_home, tmp_path / "log", {**env, "MILLRACE_RECOMMENDER_MODEL_NAME": line.model}
    ) as service:
        wait_for(lambda: service.ready() and place(service)[0] == 1, "the learned parameters")
        with asked_all_the_time(service, "user-0") as failures:
            line.learn(20, seed=6)
            later = line.checkpoint_of(200, learner)
            wait_for(lambda: place(service) >= position(later), "what came after")
            wait_for(lambda: "millrace_recommender_checkpoints" in service.figures(), "checkpoints ahead")
            # Nobody learns: serving goes back by itself, and the learner that comes goes on from there.
            learner.kill()
            done = cli("rollback", "--checkpoint", good.checkpoint_id, "--reason", "it learned nonsense")
            assert done.returncode == 0, done.stderr
            assert f"as of checkpoint {good.checkpoint_id}, is the champion" in done.stdout
            wait_for(lambda: place(service) == position(good), "the checkpoint")
            learner = process("workers.online_learner", env=env)
            wait_for(lambda: place(service)[0] == 2, "the line that goes on from the checkpoint")
            assert begins_with(line, checkpointed(mlflow, good))
            line.learn(20, seed=7)
            # What comes now and nothing of before.
            learner.until(lambda: line.learned(200), interval_s=0.2)
            assert cli("rollback", "--checkpoint", later.checkpoint_id).returncode == 0
            wait_for(lambda: place(service)[0] == 3, "the line that goes on from the other checkpoint")
            assert begins_with(line, checkpointed(mlflow, later))
        assert not failures

        # One that is damaged everywhere: the version of which it is one, for serving and learning alike.
        content = stored(mlflow, good).read_bytes()
        stored(mlflow, good).write_bytes(content[: len(content) // 2])
        shutil.rmtree(millrace_home / "models" / line.model / "checkpoints")
        assert cli("rollback", "--checkpoint", good.checkpoint_id).returncode == 0
        # Both find out by fetching it: two processes that import MLflow, one after the other.
        wait_for(lambda: place(service)[0] == 4, "the line that goes on from the version")
        assert begins_with(line, fresh(first_ranker(), "1", "", 0))
        assert "is damaged" in learner.output()

    listed = cli.json("checkpoints")
    assert good.checkpoint_id in [one["checkpoint_id"] for one in listed["checkpoints"]]
    assert listed["went_back_to"] == good.checkpoint_id
    table = cli("checkpoints").stdout
    assert good.checkpoint_id in table
    assert "went back to it" in table
    refused = cli("rollback", "--checkpoint", "9.9.9")
    assert refused.returncode == 1
    assert "has no checkpoint '9.9.9' (the last 10: " in refused.stderr
    assert learner.terminate() == 0, learner.output()
    assert orchestrator.terminate() == 0, orchestrator.output()


def metrics(learner: Child) -> str:
    with suppress(FileNotFoundError):
        return get(learner, "online_learner", "/metrics")[1]
    return ""


def stored(server: Mlflow, event: ModelEvent) -> Path:
    """The file of a checkpoint where the server keeps it."""
    (path,) = (server.folder / "artifacts").rglob(f"{event.run_id}/artifacts/checkpoint/{STATE_FILE}")
    return path


def checkpointed(server: Mlflow, event: ModelEvent) -> LearnerState:
    return LearnerState.from_bytes(stored(server, event).read_bytes())


def forget(kafka: KafkaSettings) -> None:
    """What a topic does with records that are older than it keeps them."""
    admin = AdminClient(admin_config(kafka))
    (done,) = admin.delete_records([TopicPartition(MODEL_UPDATES.name, 0, -1)]).values()
    done.result(timeout=10)


def begins_with(line: Line, state: LearnerState) -> bool:
    """Whether the newest epoch began with the parameters of a state."""
    newest = line.newest()
    return newest is not None and bool((to_vector(newest.model) == to_vector(state.model)).all())


def position(event: ModelEvent) -> tuple[int, int]:
    return int(event.figures["epoch"]), int(event.figures["sequence"])


def place(service: Service) -> tuple[int, int]:
    detail = service.readiness()[1]
    return detail["learner_epoch"], detail["learner_sequence"]
