"""A recommender as a process: started, asked and watched by tests."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc

from deploy.embedded.member import clean_environment, stop
from millrace.v1.recommendation_service_pb2 import RecommendRequest, RecommendResponse
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """The first true answer of a condition; the test fails when none comes in time."""
    give_up = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < give_up, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)
    return found


def environment(home: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a recommender on a free port; ``env`` may say otherwise.

    No answer is in random order, nor given without a user's features because the machine is busy.
    """
    own = {
        "MILLRACE_RECOMMENDER_PORT": "0",
        "MILLRACE_RECOMMENDER_SHUFFLED_SHARE": "0",
        "MILLRACE_RECOMMENDER_DEADLINE_MS": "60000",
        "MILLRACE_RECOMMENDER_FEATURES_TIMEOUT_MS": "60000",
    }
    return clean_environment() | {"MILLRACE_HOME": str(home)} | own | dict(env)


def popen(home: Path, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """``python -m services.recommender`` in the checkout."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "services.recommender"],
            cwd=ROOT,
            env=environment(home, env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Service:
    """A running recommender and stubs to ask it."""

    def __init__(self, popen: subprocess.Popen[bytes], announced: dict[str, Any]) -> None:
        self.popen = popen
        self.metrics = announced["metrics"]
        self.target = announced["grpc"]
        self.channel = grpc.insecure_channel(self.target)
        self.stub = RecommendationServiceStub(self.channel)

    def ask(
        self, user_id: str = "user-0", k: int = 10, timeout: float = PATIENCE_S, **fields: Any
    ) -> RecommendResponse:
        return self.stub.Recommend(RecommendRequest(user_id=user_id, k=k, **fields), timeout=timeout)

    def readiness(self) -> tuple[int, dict[str, Any]]:
        try:
            with urlopen(f"http://{self.metrics}/readyz", timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)

    def figures(self) -> str:
        with urlopen(f"http://{self.metrics}/metrics", timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    def ready(self) -> bool:
        return self.readiness()[0] == 200


@contextmanager
def recommender(home: Path, log: Path, env: Mapping[str, str]) -> Iterator[Service]:
    """A running recommender; it listens, but need not be ready."""
    process = popen(home, log, env)
    announced = home / "run" / f"recommender-{process.pid}.json"
    try:
        wait_for(lambda: announced.exists() or process.poll() is not None, "the recommender's addresses")
        assert process.poll() is None, log.read_text()
        service = Service(process, json.loads(announced.read_text()))
        with service.channel:
            yield service
    finally:
        stop(process)


@contextmanager
def asked_all_the_time(service: Service, user_id: str) -> Iterator[list[Exception]]:
    """Somebody asks until the end; what failed is listed."""
    failures: list[Exception] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.001):
            try:
                service.ask(user_id)
            except Exception as error:  # noqa: BLE001  (the test looks at it)
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield failures
    finally:
        over.set()
        asking.join()
