"""The loop as a fixture: every process of it on real servers, and the two clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import pytest

from deploy.embedded.ports import free_port
from millrace.client import EventProducer, RecommenderClient
from millrace.settings import KafkaSettings
from tests.conftest import StartProcess
from tests.processes import PATIENCE_S

V = TypeVar("V")


@dataclass(frozen=True)
class Loop:
    """The running pipeline, by its two clients."""

    events: EventProducer
    recommender: RecommenderClient


def eventually(ask: Callable[[], V], good: Callable[[V], object], timeout_s: float = PATIENCE_S) -> V:
    """Ask until the answer is good; fails the test with the last answer when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not good(answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"after {timeout_s} s still: {answer}")
        time.sleep(0.05)
    return answer


@pytest.fixture
def loop(
    topics_applied: KafkaSettings,
    kafka_env: Mapping[str, str],
    redis_url: str,
    mlflow_uri: str,
    process: StartProcess,
) -> Iterator[Loop]:
    """All processes of the loop, started in an order that nothing depends on, and the two clients."""
    port = free_port()
    env = {
        **kafka_env,
        "REDIS_URL": redis_url,
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "MILLRACE_RECOMMENDER_PORT": str(port),
        "MILLRACE_RECOMMENDER_DEADLINE_MS": "60000",
        "MILLRACE_RECOMMENDER_FEATURES_TIMEOUT_MS": "60000",
        "MILLRACE_RECOMMENDER_MODEL_NAME": "e2e",
        "MILLRACE_RECOMMENDER_SHUFFLED_SHARE": "0",
        "MILLRACE_ORCHESTRATOR_MODEL_NAME": "e2e",
    }
    processes = [
        process(name, env=env)
        for name in ("services.recommender", "workers.retrain_orchestrator", "workers.feature_updater")
    ]
    with ExitStack() as clients:
        yield Loop(
            clients.enter_context(EventProducer(topics_applied)),
            clients.enter_context(RecommenderClient(f"localhost:{port}", timeout_s=PATIENCE_S, wait_for_ready=True)),
        )
    for one in processes:
        assert one.terminate() == 0, one.output()
