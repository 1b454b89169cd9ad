"""The orchestrator killed with -9 in every state of a retraining: whatever was asked for is done exactly once.

Real broker, MLflow and experiment tracker; the training job is one that learns nothing. There is one kill in each
state, and six more for each further time that ``make chaos`` asks for.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reliability_document import ORCHESTRATOR_DIES
from benchmarks.seed import now_ms, publish
from millrace.experiments.asking import read_experiments
from millrace.registry.asking import new_command, promote, retrain, send
from millrace.registry.history import History
from millrace.registry.registry import Registry
from millrace.registry.retraining import CHALLENGER, PROMOTED, REJECTED, SHADOWS, STARTED, TRAINS, State
from millrace.registry.retraining_as_json import IDLE
from millrace.registry.view import CHAMPION
from millrace.settings import HOUR_MS, KafkaSettings, MlflowSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import DRIFT_SIGNALS, MODEL_EVENTS, OUTCOMES
from millrace.v1.command_pb2 import Command
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.experiment_pb2 import Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.chaos.forking import Forked, Forking
from tests.chaos.impatient import impatient_kafka
from tests.chaos.results import Found, report, times
from tests.conftest import StartProcess
from tests.integration.orchestration import TIMEOUT_S, orchestrator_env
from tests.learning_support import served
from tests.processes import in_time
from tests.quick_training import HAS_TO_BE_KILLED, WAITS

SEED = 20_261_127
KILLS = 12 * (times() - 1)
MODEL = "ranker"
COLLECT_MS = 1_500
STOPPED = ExperimentState.EXPERIMENT_STATE_STOPPED
COMMAND_REFUSED = ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED
# Time between the moment at which a state is seen and the kill, seconds. Collecting ends by itself, evaluating as soon
# as its job has read the log, which a process does not do within half a second; the others wait for the test.
LATER_S = {
    IDLE: (0.0, 0.3),
    State.COLLECTING: (0.0, 1.0),
    State.TRAINING: (0.0, 0.5),
    State.EVALUATING: (0.0, 0.4),
    State.SHADOW: (0.0, 2.0),
    State.CHALLENGER: (0.0, 0.7),
}
ORDER = {state: place for place, state in enumerate(LATER_S)}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[KafkaSettings]:
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars) as kafka:
        yield kafka


class Watched:
    """What stands in model-events, as it comes: what happened, and every record."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.history = History(MODEL)
        self.records: list[ModelEvent] = []
        self._reader = TopicReader(kafka, [MODEL_EVENTS])

    def read(self, timeout_s: float = 0.02) -> bool:
        """Take what has come; whether there was any of it."""
        records = self._reader.poll(timeout_s=timeout_s)
        for record in records:
            if isinstance(record.message, ModelEvent):
                self.history.apply(record.message)
                self.records.append(record.message)
        return bool(records)

    @property
    def state(self) -> str:
        """Of the retraining under way; idle if there is none."""
        self.read()
        present = self.history.retrainings.under_way
        return IDLE if present is None else present.state

    @property
    def champion(self) -> str:
        """Empty before the first."""
        self.read()
        return self.history.champion

    @property
    def version(self) -> str:
        """Of the newest retraining."""
        newest = self.history.retrainings.newest
        return "" if newest is None else newest.version


class Shop:
    """An orchestrator that is killed again and again, and what is asked of it."""

    def __init__(self, kafka: KafkaSettings, forking: Forking, watched: Watched) -> None:
        self.kafka, self.watched = kafka, watched
        self.killed: Counter[str] = Counter()
        self.commands: list[Command] = []
        self._forking, self._chance = forking, random.Random(SEED)
        self.experiments = "on"
        self._orchestrator: Forked = forking.start({})

    def kill_in(self, state: str, said: str = "") -> None:
        """Kill it a moment after a state is seen, or is over, and start the next one."""

        def is_there() -> bool:
            now = self.watched.state
            return (now == state and said in self._orchestrator.output()) or ORDER[now] > ORDER[state]

        in_time(is_there, TIMEOUT_S)
        self.kill(*LATER_S[state])

    def kill(self, at_least_s: float, at_most_s: float) -> None:
        """Kill it within some time from now, wherever it is, and start the next one."""
        time.sleep(self._chance.uniform(at_least_s, at_most_s))
        self._orchestrator.kill()
        while self.watched.read(timeout_s=0.2):
            pass
        self.killed[self.watched.state] += 1
        self._orchestrator = self._forking.start({"RETRAIN_EXPERIMENTS": self.experiments})

    def ask(self, command: Command) -> None:
        self.commands.append(command)
        send(self.kafka, MODEL, command, TIMEOUT_S)

    def drift(self, holds: bool) -> None:
        """Labels of the champion drift, or do so no more."""
        signal = DriftSignal(
            signal_id=f"signal {self.watched.champion}",
            model_name=MODEL,
            model_version=self.watched.champion,
            channel=DriftChannel.DRIFT_CHANNEL_PERFORMANCE,
            first_at_ms=now_ms() - HOUR_MS,
            at_ms=now_ms(),
            holds=holds,
        )
        publish(self.kafka, DRIFT_SIGNALS, [(MODEL, signal)])

    def show(self) -> None:
        """The champion answers, far from the truth."""
        made = served(1_500, 3.0, version=self.watched.champion)
        publish(self.kafka, OUTCOMES, [(outcome.user_id, outcome) for outcome in made])

    def experiment(self) -> Experiment:
        """Of the newest version."""
        [found] = [
            one
            for one in read_experiments(self.kafka, StreamSettings(), TIMEOUT_S).values()
            if one.definition.arms[1].model_version == self.watched.version
        ]
        return found


def retraining(shop: Shop, number: int) -> None:
    """One from its beginning to its end, killed in every state; how it begins and ends goes round."""
    by_drift, end = number % 2 == 0, ("promoted", "stopped", "in the shadow")[number % 3]
    shop.experiments = "off" if end == "in the shadow" else "on"
    shop.kill_in(IDLE)
    if by_drift:
        shop.drift(holds=True)
        shop.kill_in(State.COLLECTING)
        shop.drift(holds=False)
    else:
        shop.ask(retrain(MODEL, "test", f"number {number}"))
        shop.kill(*LATER_S[IDLE])
    shop.kill_in(State.TRAINING, WAITS)
    shop.kill_in(State.EVALUATING)
    shop.kill_in(State.SHADOW)
    shop.show()
    if end != "in the shadow":
        shop.kill_in(State.CHALLENGER)
        if end == "promoted":
            shop.ask(promote(MODEL, shop.watched.version, "test", ""))
        else:
            command = new_command("test", "seen enough")
            command.stop_experiment.experiment_id = shop.experiment().definition.experiment_id
            send(shop.kafka, command.stop_experiment.experiment_id, command, TIMEOUT_S)
        shop.kill(*LATER_S[IDLE])
    in_time(lambda: shop.watched.state == IDLE, TIMEOUT_S)


@pytest.mark.timeout(600 + 60 * KILLS)
def test_killed_in_every_state_everything_is_done_once(
    kafka: KafkaSettings, mlflow_uri: str, process: StartProcess, millrace_home: Path, tmp_path: Path
) -> None:
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_PARTITIONS": str(kafka.partitions),
        **orchestrator_env(MODEL, mlflow_uri),
        "MILLRACE_ORCHESTRATOR_RECONCILE_INTERVAL_MS": "100",
        HAS_TO_BE_KILLED: "1",
        "RETRAIN_DEBOUNCE_MS": "0",
        "RETRAIN_COOL_DOWN_MS": "0",
        "RETRAIN_COLLECT_MS": str(COLLECT_MS),
        "RETRAIN_COLLECT_MAX_MS": str(COLLECT_MS),
        "RETRAIN_IN_VAIN_MAX": "1000",
    }
    process("workers.experiment_tracker", env=env)
    with Forking(tmp_path, "tests.quick_training:orchestrate", env) as forking:
        watched = Watched(kafka)
        shop = Shop(kafka, forking, watched)
        in_time(lambda: watched.champion, TIMEOUT_S)
        count = 0
        # A stall of this process may cost a state, which is over when the kill comes: then one more.
        while shop.killed.total() < KILLS or set(shop.killed) != set(LATER_S):
            retraining(shop, count)
            count += 1
        registry = Registry(MlflowSettings(tracking_uri=mlflow_uri))
        aliases = {CHAMPION: watched.champion}
        in_time(lambda: registry.view(MODEL).aliases == aliases, TIMEOUT_S)
        experiments = read_experiments(kafka, StreamSettings(), TIMEOUT_S).values()
        in_time(
            lambda: all(one.state == STOPPED for one in read_experiments(kafka, StreamSettings(), TIMEOUT_S).values())
        )
    sys.stdout.write(f"{shop.killed.total()} kills in {count} retrainings: {dict(shop.killed)}\n")

    ids = Counter(event.event_id for event in watched.records)
    assert set(ids.values()) == {1}, "an event was written twice"
    per_retraining = Counter(
        (event.retraining_id, event.type) for event in watched.history.events if event.retraining_id
    )
    assert set(per_retraining.values()) == {1}
    kinds = Counter(event.type for event in watched.history.events)
    assert [kinds[kind] for kind in (STARTED, TRAINS, SHADOWS)] == [count] * 3
    settled = Counter(event.command_id for event in watched.history.events if event.command_id)
    found = Found(events=len(watched.records) + len(shop.commands))
    for once in (Counter(ids), settled, per_retraining):
        for done in once.values():
            found.compare(1, done)
    found.compare(len(shop.commands), len(settled))
    report(ORCHESTRATOR_DIES, shop.killed.total(), found)
    assert settled == Counter(command.command_id for command in shop.commands)
    assert COMMAND_REFUSED not in kinds
    versions = registry.view(MODEL).versions
    assert [version.version for version in versions] == [str(number + 1) for number in range(count + 1)]
    assert len({version.step_id for version in versions}) == count + 1
    tried = [one.definition.arms[1].model_version for one in experiments]
    assert sorted(tried) == sorted(str(number + 2) for number in range(count) if number % 3 != 2)
    assert kinds[CHALLENGER] == len(tried)
    assert kinds[PROMOTED] == 1 + sum(number % 3 != 1 for number in range(count))
    assert kinds[REJECTED] == sum(number % 3 == 1 for number in range(count))
