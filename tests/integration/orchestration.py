"""An orchestrator and its model as tests see them: from outside."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from millrace.ranking.first import first_ranker
from millrace.registry.asking import ask, promote, roll_back
from millrace.registry.registry import Registry
from millrace.registry.view import CHAMPION
from millrace.settings import KafkaSettings, MlflowSettings, StreamSettings
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_EVENTS
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.conftest import Child
from tests.processes import PATIENCE_S

REGISTERED, PROMOTED, ROLLED_BACK = "REGISTERED", "PROMOTED", "ROLLED_BACK"
# Short, so that the work of a killed process moves on soon.
SESSION_MS = 1_500
TIMEOUT_S = PATIENCE_S


class Model:
    """One registered model, as seen from outside: each test takes its own."""

    def __init__(self, name: str, kafka: KafkaSettings, mlflow: MlflowSettings) -> None:
        self.name = name
        self.kafka = kafka
        self.stream = StreamSettings()
        # A busy server answers late; refusals come at once.
        self.registry = Registry(mlflow.model_copy(update={"timeout_ms": round(PATIENCE_S * 1_000)}))

    def events(self) -> list[tuple[str, str]]:
        """Type and version of every event in the topic."""
        with TopicReader(self.kafka, [MODEL_EVENTS]) as reader:
            records = []
            while not reader.caught_up:
                records += reader.poll()
        messages = [record.message for record in records if isinstance(record.message, ModelEvent)]
        return [
            (ModelEventType.Name(event.type).removeprefix("MODEL_EVENT_TYPE_"), event.model_version)
            for event in messages
            if event.model_name == self.name
        ]

    def champion(self) -> str | None:
        return self.registry.view(self.name).aliases.get(CHAMPION)

    def register(self, version: str) -> None:
        """What the training job will do: a version in the registry and its event in the topic."""
        made = self.registry.log_version(self.name, first_ranker(), f"trained-{version}", "trained")
        assert made.version == version
        self.tell_registered(version)

    def tell_registered(self, version: str) -> None:
        """The event of a version."""
        event = ModelEvent(event_id=f"{self.name}/{version}", model_name=self.name, model_version=version)
        event.type = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
        value, headers = encode(event)
        producer = Producer(producer_config(self.kafka))
        producer.produce(MODEL_EVENTS.name, value, self.name.encode(), headers=[*headers])
        assert producer.flush(PATIENCE_S) == 0

    def promote(self, version: str) -> ModelEvent:
        return ask(self.kafka, self.stream, self.name, promote(self.name, version, "test", ""), TIMEOUT_S)

    def roll_back(self, version: str = "") -> ModelEvent:
        return ask(self.kafka, self.stream, self.name, roll_back(self.name, version, "test", ""), TIMEOUT_S)


def orchestrator_env(model: str, mlflow_uri: str) -> Mapping[str, str]:
    """Settings of an orchestrator of this model, beside those of the broker."""
    return {
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "MILLRACE_ORCHESTRATOR_MODEL_NAME": model,
        "MILLRACE_ORCHESTRATOR_SESSION_TIMEOUT_MS": str(SESSION_MS),
        "MILLRACE_ORCHESTRATOR_RECONCILE_INTERVAL_MS": "500",
    }


def ready(child: Child, home: Path) -> tuple[int, Mapping[str, Any]]:
    """Status and body of /readyz; status 0 while nothing listens."""
    file = home / "run" / f"retrain_orchestrator-{child.pid}.json"
    if not file.exists():
        return 0, {}
    address = json.loads(file.read_text())["metrics"]
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def missing(child: Child, home: Path) -> str:
    """What /readyz says that it waits for."""
    listed: list[str] = ready(child, home)[1].get("missing", [])
    return ", ".join(listed)


def figures(child: Child, home: Path) -> str:
    """What /metrics says."""
    address = json.loads((home / "run" / f"retrain_orchestrator-{child.pid}.json").read_text())["metrics"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def until_ready(child: Child, home: Path) -> None:
    child.until(lambda: ready(child, home)[0] == 200, TIMEOUT_S)
