"""From drift to an experiment by itself, and to a champion without one, on a real broker and a real MLflow.

Who is killed on the way: ``tests/chaos/test_orchestrator_kills.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.seed import now_ms, publish
from millrace.cli.retrain import command
from millrace.experiments.asking import read_experiments
from millrace.registry.registry import SINCE_TAG
from millrace.settings import HOUR_MS, KafkaSettings, MlflowSettings, settings
from millrace.topics import DRIFT_SIGNALS, OUTCOMES
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from millrace.v1.experiment_pb2 import ExperimentState, GateVerdict
from tests.conftest import StartProcess
from tests.integration.orchestration import PROMOTED, REGISTERED, TIMEOUT_S, Model, orchestrator_env, until_ready
from tests.learning_support import served
from tests.quick_training import TOO_EARLY

MODEL, SHADOWS = "drifting", "RETRAINING_SHADOWS"


def drift(channel: DriftChannel.ValueType, feature: str) -> DriftSignal:
    """A drift of version 1 that holds for two hours, of a world that changed an hour before."""
    return DriftSignal(
        signal_id=feature,
        model_name=MODEL,
        model_version="1",
        channel=channel,
        first_at_ms=now_ms() - 2 * HOUR_MS,
        changed_at_ms=now_ms() - 3 * HOUR_MS,
        at_ms=now_ms(),
        holds=True,
        evidence=[DriftEvidence(name=feature)],
    )


def test_from_drift_to_an_experiment(
    topics_applied: KafkaSettings,
    kafka_env: Mapping[str, str],
    mlflow_uri: str,
    millrace_home: Path,
    process: StartProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = topics_applied
    model = Model(MODEL, kafka, MlflowSettings(tracking_uri=mlflow_uri))
    env = {
        **kafka_env,
        **orchestrator_env(MODEL, mlflow_uri),
        "RETRAIN_COLLECT_MS": "0",
        "MILLRACE_TRAINING_EXAMPLES_MIN": "5000",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    process("workers.experiment_tracker", env=env)
    child = process("tests.quick_training", env=env)
    until_ready(child, millrace_home)
    inputs, labels = DriftChannel.DRIFT_CHANNEL_INPUT, DriftChannel.DRIFT_CHANNEL_PERFORMANCE
    signal = drift(labels, "click_through")
    # What is collected: just enough. Outcomes of before the change are on the topic too.
    show(kafka, "0")
    show(kafka, "0", signal.changed_at_ms)
    publish(kafka, DRIFT_SIGNALS, [(MODEL, drift(inputs, "item_age")), (MODEL, signal)])

    # Nothing is known of it by answers in random order: what it predicts is compared first.
    child.until(lambda: (SHADOWS, "2") in model.events(), TIMEOUT_S)
    said = retrain("status").stdout
    assert "compared with version 1, for at most another 14.0 days" in said
    assert "for a world that changed at 2" in said
    [_, made] = model.registry.view(MODEL).versions
    assert made.tags[SINCE_TAG] == str(signal.changed_at_ms)
    show(kafka, "1")
    child.until(lambda: ("CHALLENGER", "2") in model.events(), TIMEOUT_S)

    found = json.loads(retrain("status", "--json").stdout)
    newest = found["newest"]
    assert (found["state"], newest["version"], newest["signal_id"]) == ("challenger", "2", "click_through")
    assert newest["since_ms"] == signal.changed_at_ms
    assert [one["reason"] for one in found["declined"]] == ["input: item_age: the model uses none of these features"]
    [record] = [one for one in experiments(kafka).values() if one.definition.model_name == MODEL]
    assert (record.state, record.champion_version) == (ExperimentState.EXPERIMENT_STATE_RUNNING, "1")
    assert record.definition.traffic * record.definition.arms[1].share == pytest.approx(0.01)
    assert (record.gates[0].verdict, record.gates[0].override_reason) == (GateVerdict.GATE_VERDICT_REFUSED, "")
    refused = retrain("--reason", "impatient")
    assert refused.exit_code == 1
    assert "a retraining is under way already: challenger, version 2" in str(refused.exception)
    assert "challenger, version 1 serves" in retrain("status").stdout
    assert "is cancelled: enough seen" in retrain("cancel", "--reason", "enough seen").stdout
    name = record.definition.experiment_id
    child.until(lambda: experiments(kafka)[name].state == ExperimentState.EXPERIMENT_STATE_STOPPED, TIMEOUT_S)

    done = retrain("--wait", "--reason", TOO_EARLY)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "failed: there is nothing yet"

    events = [event for event in model.events() if event[0] != "COMMAND_REFUSED"]
    assert sorted(events[2:4]) == [("RETRAINING_STARTED", ""), ("SIGNAL_DECLINED", "1")]
    assert events[:2] + events[4:] == [
        *((REGISTERED, "1"), (PROMOTED, "1"), ("RETRAINING_TRAINS", ""), (REGISTERED, "2")),
        *((SHADOWS, "2"), ("CHALLENGER", "2"), ("RETRAINING_ENDED", "2")),
        *(("RETRAINING_STARTED", ""), ("RETRAINING_TRAINS", ""), ("RETRAINING_ENDED", "")),
    ]
    assert [version.version for version in model.registry.view(MODEL).versions] == ["1", "2"]

    # Where nobody wants experiments, the comparison decides.
    child.kill()
    env["RETRAIN_EXPERIMENTS"] = "off"
    alone = process("tests.quick_training", env=env)
    retrain("--reason", "in the shadow")
    alone.until(lambda: (SHADOWS, "3") in model.events(), TIMEOUT_S)
    show(kafka, "1")
    alone.until(lambda: (PROMOTED, "3") in model.events(), TIMEOUT_S)
    said = retrain("status").stdout
    assert "promoted, version 3" in said
    assert "in the shadow of version 1: better: saves" in said
    alone.until(lambda: model.champion() == "3", TIMEOUT_S)
    assert [event for event in model.events() if event[1] == "3"] == [
        (REGISTERED, "3"),
        (SHADOWS, "3"),
        (PROMOTED, "3"),
    ]
    settings.cache_clear()


def show(kafka: KafkaSettings, version: str, at_ms: int = 0) -> None:
    """Answers of a version that is far from the truth, and what came of them. ``at_ms``: when they were served."""
    made = list(served(1_500, 3.0, version=version, model=MODEL))
    for outcome in made:
        outcome.impression.served_at_ms = at_ms
    publish(kafka, OUTCOMES, [(outcome.user_id, outcome) for outcome in made])


def retrain(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def experiments(kafka: KafkaSettings) -> Any:
    return read_experiments(kafka, Model(MODEL, kafka, MlflowSettings()).stream, TIMEOUT_S)
