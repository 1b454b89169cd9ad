"""``millrace models learn``: what waits in the learner's buffer is learned now, and the command says when it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from benchmarks.seed import promote_first_ranker
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings
from millrace.stream.codec import encode
from millrace.topics import MODEL_UPDATES, OUTCOMES
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from tests.conftest import StartProcess
from tests.learning_support import outcomes
from tests.processes import PATIENCE_S
from tests.stream_support import get, read_all, send

MILLRACE = Path(sys.executable).parent / "millrace"
Learn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def learn(kafka_env: Mapping[str, str]) -> Learn:
    """Runs the command."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MILLRACE, "models", "learn", *arguments],
            env=os.environ | dict(kafka_env) | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


def updates(kafka: KafkaSettings) -> list[ParameterUpdate]:
    records = [ModelUpdate.FromString(message.value() or b"") for message in read_all(kafka, MODEL_UPDATES.name)]
    return [record.update for record in records if record.HasField("update")]


def test_the_buffer_is_learned_when_somebody_asks(
    topics_applied: KafkaSettings, kafka_env: Mapping[str, str], process: StartProcess, learn: Learn
) -> None:
    promote_first_ranker(topics_applied)
    # By itself it would learn in an hour.
    learner = process("workers.online_learner", env={**kafka_env, "ONLINE_LEARNING_INTERVAL_MS": "3600000"})
    send(topics_applied, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in outcomes(10, slots=5)])
    learner.until(lambda: "millrace_learner_buffer_slots 50.0" in get(learner, "online_learner", "/metrics")[1])
    assert updates(topics_applied) == []

    asked = learn("--reason", "a test", "--json")
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    [update] = updates(topics_applied)
    assert list(update.command_ids) == [answer["command_id"]]
    assert update.parameters.indices
    assert (update.buffer_slots, update.buffer_slots_max) == (50, 1_000)
    assert answer == {
        "command_id": answer["command_id"],
        "settled": True,
        "version": "1",
        "epoch": update.epoch,
        "sequence": update.sequence,
        "examples": 50,
        "at_ms": update.created_at_ms,
    }

    nothing_new = learn()
    assert (nothing_new.returncode, nothing_new.stdout) == (
        0,
        f"model 'ranker' has learned what was in its buffer (epoch {update.epoch}, update {update.sequence + 1})\n",
    )
    unheard = json.loads(learn("--no-wait", "--json").stdout)
    assert unheard["settled"] is False
    learner.until(lambda: [unheard["command_id"]] in [list(one.command_ids) for one in updates(topics_applied)])
    assert learner.terminate() == 0, learner.output()


def test_who_asks_in_vain_is_told_why(topics_applied: KafkaSettings, learn: Learn) -> None:
    nobody = learn("--model", "nobody's", "--timeout", "2")
    assert nobody.returncode == 1
    assert 'no answer from the learner of model "nobody\'s" within 2 s; is it running' in nobody.stderr
    away = learn("--timeout", "2", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert away.returncode == 1
    assert away.stderr.startswith("error: kafka:")
