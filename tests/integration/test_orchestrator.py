"""The orchestrator as processes on a real broker and a real MLflow: one effect each, whatever gets killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.seed import publish
from deploy.embedded.member import running
from deploy.embedded.mlflow import Mlflow
from deploy.embedded.ports import free_port
from millrace.errors import InfrastructureError
from millrace.registry.asking import Refused, ask, promote, send
from millrace.registry.journal import Journal
from millrace.settings import KafkaSettings, MlflowSettings
from millrace.stream.clients import consumer_config, producer_config
from millrace.topics import COMMANDS, EXPERIMENTS
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.conftest import Child, StartProcess
from tests.experiment_support import decided
from tests.integration.orchestration import (
    PROMOTED,
    REGISTERED,
    ROLLED_BACK,
    TIMEOUT_S,
    Model,
    figures,
    missing,
    orchestrator_env,
    ready,
    until_ready,
)

Start = Callable[..., Child]


@pytest.fixture
def model(request: pytest.FixtureRequest, topics_applied: KafkaSettings, mlflow_uri: str) -> Model:
    return Model(request.node.originalname, topics_applied, MlflowSettings(tracking_uri=mlflow_uri))


@pytest.fixture
def start(process: StartProcess, kafka_env: Mapping[str, str], mlflow_uri: str) -> Start:
    """Starts an orchestrator of a model."""

    def one(model: str, mlflow: str = mlflow_uri, **env: str) -> Child:
        return process("workers.retrain_orchestrator", env={**kafka_env, **orchestrator_env(model, mlflow), **env})

    return one


def test_first_version_is_registered_and_promoted_once_and_sigterm_ends_it(
    start: Start, model: Model, millrace_home: Path
) -> None:
    child = start(model.name)
    until_ready(child, millrace_home)
    assert model.events() == [(REGISTERED, "1"), (PROMOTED, "1")]
    assert model.champion() == "1"
    assert ready(child, millrace_home)[1]["leader"] is True
    shown = figures(child, millrace_home)
    assert f'millrace_orchestrator_buffered_commands{{model="{model.name}"}} 0.0' in shown
    assert f'millrace_orchestrator_buffered_commands_max{{model="{model.name}"}} 16.0' in shown
    assert child.terminate() == 0
    assert not (millrace_home / "run" / f"retrain_orchestrator-{child.pid}.json").exists()


def test_killed_at_every_step_of_its_start(start: Start, model: Model) -> None:
    for moment in ("leading", "ledger read", "stored in the registry", "registered  ", "promoted  "):
        child = start(model.name)

        def there(child: Child = child, moment: str = moment) -> bool:
            output = child.output()
            return moment in output or "everything is as it should be" in output

        child.until(there, TIMEOUT_S, interval_s=0.001)
        child.kill()
    child = start(model.name)
    child.until(lambda: model.champion() == "1", TIMEOUT_S)
    assert model.events() == [(REGISTERED, "1"), (PROMOTED, "1")]
    assert [version.version for version in model.registry.view(model.name).versions] == ["1"]


def test_two_at_once_do_everything_once_and_one_survives_the_other(
    start: Start, model: Model, millrace_home: Path
) -> None:
    both = [start(model.name), start(model.name)]
    for child in both:
        until_ready(child, millrace_home)
    model.register("2")
    model.promote("2")
    leader = next(child for child in both if ready(child, millrace_home)[1]["leader"])
    other = next(child for child in both if child is not leader)
    leader.kill()
    assert model.roll_back().model_version == "1"
    assert model.events() == [
        (REGISTERED, "1"),
        (PROMOTED, "1"),
        (REGISTERED, "2"),
        (PROMOTED, "2"),
        (ROLLED_BACK, "1"),
    ]
    other.until(lambda: model.champion() == "1", TIMEOUT_S)
    assert ready(other, millrace_home)[1]["leader"] is True


def test_a_command_sent_many_times_has_one_effect(start: Start, model: Model) -> None:
    child = start(model.name)
    child.until(lambda: model.champion() == "1", TIMEOUT_S)
    model.register("2")
    command = promote(model.name, "2", "test", "better")
    for _ in range(5):
        send(model.kafka, model.name, command, timeout_s=10)
    event = ask(model.kafka, model.stream, model.name, promote(model.name, "1", "test", ""), TIMEOUT_S)
    assert event.previous_version == "2"
    send(model.kafka, model.name, command, timeout_s=10)  # an old one that turns up late
    assert model.roll_back("2").model_version == "2"
    child.until(lambda: model.champion() == "2", TIMEOUT_S)
    assert model.events()[2:] == [(REGISTERED, "2"), (PROMOTED, "2"), (PROMOTED, "1"), (ROLLED_BACK, "2")]


def test_a_command_sent_while_nobody_runs_is_found(start: Start, model: Model) -> None:
    child = start(model.name)
    child.until(lambda: model.champion() == "1", TIMEOUT_S)
    assert child.terminate() == 0
    model.register("2")
    send(model.kafka, model.name, promote(model.name, "2", "test", ""), timeout_s=10)
    child = start(model.name)
    child.until(lambda: model.champion() == "2", TIMEOUT_S)


def test_refusals_carry_the_reason(start: Start, model: Model) -> None:
    child = start(model.name)
    child.until(lambda: model.champion() == "1", TIMEOUT_S)
    with pytest.raises(Refused, match=r"has no version '7' \(versions: 1\)"):
        model.promote("7")
    with pytest.raises(Refused, match="no earlier champion"):
        model.roll_back()
    assert [kind for kind, _ in model.events()] == [REGISTERED, PROMOTED, "COMMAND_REFUSED", "COMMAND_REFUSED"]


def test_what_is_no_command_goes_to_the_dead_letters(start: Start, model: Model) -> None:
    unnamed = promote(model.name, "1", "test", "")
    unnamed.command_id = ""
    producer = Producer(producer_config(model.kafka))
    producer.produce(COMMANDS.name, b"\xff\xff", b"k", headers=[("schema", b"millrace.v1.Command")])
    for_another = [("schema", b"millrace.v1.Command"), ("replay.worker", b"experiment_tracker")]
    producer.produce(COMMANDS.name, b"\xff\xff", b"k", headers=for_another)  # type: ignore[arg-type]
    producer.produce(COMMANDS.name, unnamed.SerializeToString(), b"k", headers=[("schema", b"millrace.v1.Command")])
    assert producer.flush(10) == 0
    child = start(model.name)
    letters = dead_letters(model.kafka, 2)
    assert [letter["dlq.reason"].split(" ")[0] for letter in letters] == ["value:", "command_id:"]
    assert {letter["dlq.topic"] for letter in letters} == {COMMANDS.name}
    child.until(lambda: model.champion() == "1", TIMEOUT_S)
    with pytest.raises(Refused):  # it goes on with what comes after
        model.roll_back()


def dead_letters(kafka: KafkaSettings, number: int) -> list[dict[str, str]]:
    """Headers of the first dead letters of commands."""
    consumer = Consumer(consumer_config(kafka, "test-dead-letters"))
    try:
        consumer.assign([TopicPartition(COMMANDS.dlq, 0, 0)])
        messages = consumer.consume(number, timeout=TIMEOUT_S)
    finally:
        consumer.close()
    headers = [dict(message.headers() or ()) for message in messages]
    return [{name: value.decode() for name, value in one.items() if isinstance(value, bytes)} for one in headers]


def test_mlflow_may_come_later(
    process: StartProcess, start: Callable[..., Child], model: Model, millrace_home: Path, tmp_path: Path
) -> None:
    member = Mlflow(tmp_path / "mlflow", free_port())
    child = start(model.name, mlflow=member.address)
    child.until(lambda: missing(child, millrace_home).startswith("mlflow:"), TIMEOUT_S)
    assert ready(child, millrace_home)[0] == 503
    assert model.events() == []
    with running(member):
        child.until(lambda: ready(child, millrace_home)[0] == 200, TIMEOUT_S)
        assert model.events() == [(REGISTERED, "1"), (PROMOTED, "1")]
    # Without MLflow people still get their answers, and a promotion serves; only the alias waits.
    with pytest.raises(Refused):
        model.roll_back()
    model.tell_registered("2")
    assert model.promote("2").previous_version == "1"
    child.until(lambda: missing(child, millrace_home).startswith("mlflow:"), TIMEOUT_S)
    assert child.terminate() == 0
    assert model.events()[-1] == (PROMOTED, "2")


def test_without_kafka_it_says_so_waits_and_ends_when_told(process: StartProcess, millrace_home: Path) -> None:
    child = process("workers.retrain_orchestrator", env={"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})
    child.until(lambda: missing(child, millrace_home).startswith("kafka:"), TIMEOUT_S)
    assert ready(child, millrace_home)[0] == 503
    assert child.terminate() == 0


def test_of_two_journals_only_the_later_can_write(model: Model) -> None:
    """Two processes that both think that it is their turn: the broker refuses the one that opened first."""
    event = ModelEvent(event_id="e", model_name=model.name, model_version="1")
    event.type = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
    with (
        Journal(model.kafka, model.stream, model.name) as first,
        Journal(model.kafka, model.stream, model.name) as second,
    ):
        assert not first.ledger().versions
        assert not second.ledger().versions
        with pytest.raises(InfrastructureError, match=r"another retrain_orchestrator of model .* has taken over"):
            first.append(event)
        second.append(event)
        assert model.events() == [(REGISTERED, "1")]
        assert list(first.ledger().versions) == ["1"]  # opens anew, and reads what the other wrote


def test_it_acts_on_the_decision_of_an_experiment_as_it_comes(start: Start, model: Model, millrace_home: Path) -> None:
    # It would wait for longer than the test does if it looked at intervals only.
    child = start(model.name, MILLRACE_ORCHESTRATOR_RECONCILE_INTERVAL_MS="600000")
    until_ready(child, millrace_home)
    model.register("2")
    record = decided(model.name, model.name, "2", "1")
    publish(model.kafka, EXPERIMENTS, [(model.name, record), (f"{model.name} again", record)])
    child.until(lambda: (PROMOTED, "2") in model.events(), TIMEOUT_S)
    child.until(lambda: model.champion() == "2", TIMEOUT_S)
    # Killed and started again it finds the decision, and that it was acted on.
    child.kill()
    second = start(model.name)
    until_ready(second, millrace_home)
    assert model.events() == [(REGISTERED, "1"), (PROMOTED, "1"), (REGISTERED, "2"), (PROMOTED, "2")]
    # A rollback stands: what the experiment decided was done once.
    model.roll_back()
    publish(model.kafka, EXPERIMENTS, [(model.name, record)])
    second.until(lambda: model.champion() == "1", TIMEOUT_S)
    assert model.events()[-1] == (ROLLED_BACK, "1")
    # A winner found after that waits for the cool-down, an hour.
    model.register("3")
    publish(model.kafka, EXPERIMENTS, [("later", decided("later", model.name, "3", "1"))])
    # Each answer comes after a look at the records.
    model.promote("2")
    model.roll_back()
    assert (PROMOTED, "3") not in model.events()
