"""Measure versions for the gate: the champion's answers in random order from the log, and the versions themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence

from millrace.experiments.asking import in_time
from millrace.experiments.gate_evidence import measure
from millrace.experiments.shuffled import ShuffledAnswers
from millrace.ranking.model import RankingModel
from millrace.registry.cache import ModelCache, default_directory
from millrace.settings import KafkaSettings, MlflowSettings, StreamSettings
from millrace.stream.admin import topic_ids
from millrace.stream.reader import TopicReader
from millrace.topics import OUTCOMES
from millrace.v1.common_pb2 import Position
from millrace.v1.experiment_pb2 import GateEvidence
from millrace.v1.outcome_pb2 import Outcome

# Reading does some 20,000 outcomes a second: twelve million, and more would not be waited for.
READ_TIMEOUT_S = 600.0


def measure_versions(
    kafka: KafkaSettings,
    stream: StreamSettings,
    mlflow: MlflowSettings,
    model_name: str,
    champion: str,
    versions: Sequence[str],
    last_ms: int,
) -> list[GateEvidence]:
    """What is known of some versions from the champion's answers in random order of the last ``last_ms`` milliseconds.

    Raises
    ------
    InfrastructureError
        The broker did not deliver in time. A version that cannot be had is refused, and no error.
    """

    def load(version: str) -> RankingModel:
        cache = ModelCache(default_directory(model_name), mlflow)
        return RankingModel.load(cache.path(version) or cache.ensure(version))

    now_ms = time.time_ns() // 1_000_000
    answers, included = read_shuffled(kafka, stream, model_name, champion, now_ms - last_ms, READ_TIMEOUT_S)
    found = []
    for version in versions:
        evidence = measure(answers, lambda version=version: load(version))  # type: ignore[misc]
        evidence.model_version, evidence.champion_version = version, champion
        evidence.at_ms, evidence.from_ms = now_ms, now_ms - last_ms
        evidence.included.extend(included)
        found.append(evidence)
    return found


def read_shuffled(
    kafka: KafkaSettings, stream: StreamSettings, model_name: str, version: str, from_ms: int, timeout_s: float
) -> tuple[ShuffledAnswers, list[Position]]:
    """A version's answers in random order, from outcomes that the broker took since ``from_ms`` (Unix milliseconds).

    Returns
    -------
    The answers, and the newest position of each partition that is included.

    Raises
    ------
    InfrastructureError
        The broker did not deliver in time.
    """
    answers = ShuffledAnswers(model_name, version)
    last: dict[int, int] = {}
    give_up = time.monotonic() + timeout_s
    with TopicReader(kafka, [OUTCOMES], from_ms, stream) as reader:
        while not reader.caught_up:
            in_time(give_up, OUTCOMES, timeout_s)
            for record in reader.poll(5_000):
                if isinstance(record.message, Outcome):
                    answers.take(record.message)
                    last[record.partition] = record.offset
    topic_id = topic_ids(kafka, [OUTCOMES.name])[OUTCOMES.name]
    at = {"topic": OUTCOMES.name, "topic_id": topic_id}
    return answers, [Position(**at, partition=number, offset=offset) for number, offset in sorted(last.items())]
