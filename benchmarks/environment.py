"""Where a benchmark runs: servers of its own unless pointed at some, and processes of Millrace that end with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from deploy.embedded.member import log_tail, stop
from deploy.embedded.stack import ephemeral
from millrace.errors import MillraceError
from millrace.settings import KafkaSettings, RedisSettings, settings
from millrace.stream.admin import apply_topics

ROOT = Path(__file__).resolve().parent.parent

# The slowest start is that of a process on a busy machine; one that ends instead is noticed at once.
START_TIMEOUT_S = 180.0
# Of a question that is no measurement.
ASK_TIMEOUT_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Servers:
    """Kafka and Redis for a benchmark.

    Attributes
    ----------
    home
        MILLRACE_HOME of the benchmark's processes.
    mlflow
        Address of MLflow; empty if there is none.
    """

    kafka: KafkaSettings
    redis: RedisSettings
    home: Path
    mlflow: str = ""

    def environment(self) -> dict[str, str]:
        """What points a process of Millrace at these servers; its ports are free ones."""
        return {
            "MILLRACE_HOME": str(self.home),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_PARTITIONS": str(self.kafka.partitions),
            "REDIS_URL": self.redis.url,
            "MILLRACE_RECOMMENDER_PORT": "0",
            "MILLRACE_METRICS_PORT": "0",
            "MILLRACE_LOG_LEVEL": "WARNING",
            **({"MLFLOW_TRACKING_URI": self.mlflow} if self.mlflow else {}),
        }


@contextmanager
def servers(say: Say, bootstrap_servers: str = "", redis_url: str = "", mlflow: bool = False) -> Iterator[Servers]:
    """Servers with all topics made: fresh ones, unless addresses are given; a fresh MLflow too if asked for."""
    if bool(bootstrap_servers) != bool(redis_url):
        raise MillraceError("a benchmark needs both --bootstrap-servers and --redis-url, or neither")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-")))
        if not bootstrap_servers:
            addresses = stack.enter_context(ephemeral(members=("kafka", "redis"), say=say))
            bootstrap_servers, redis_url = addresses.kafka, addresses.redis
        registry = stack.enter_context(ephemeral(members=("mlflow",), say=say)).mlflow if mlflow else ""
        kafka = settings().kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})
        redis = settings().redis.model_copy(update={"url": redis_url})
        # The benchmark's own process keeps its models where its children look for them.
        before = os.environ.get("MILLRACE_HOME")
        os.environ["MILLRACE_HOME"] = str(home)
        stack.callback(_restore_home, before)
        say("making topics")
        apply_topics(kafka)
        yield Servers(kafka, redis, home, registry)


def _restore_home(before: str | None) -> None:
    if before is None:
        del os.environ["MILLRACE_HOME"]
    else:
        os.environ["MILLRACE_HOME"] = before


@dataclass(frozen=True, slots=True)
class Process:
    """A running process of Millrace and what it announced (``metrics``, ``grpc``)."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    announced: Mapping[str, str]

    def wait_ready(self, and_so: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        """Return when ``/readyz`` says yes, and what else it says is as wanted."""

        def ready() -> bool:
            state = _readiness(self.announced["metrics"])
            return state is not None and and_so(state)

        _until(ready, self.popen, self.log, f"{self.name} is not ready")

    def wait_ranks_with(self, model: str, version: str) -> None:
        """Of a recommender: return when this version of the model is the champion that ranks."""
        line = f'millrace_recommender_model_version{{model="{model}",version="{version}"}} 1'
        _until(lambda: line in self.metrics(), self.popen, self.log, f"{self.name} does not rank with {version}")

    def metrics(self) -> str:
        """The text of ``/metrics``."""
        with urlopen(f"http://{self.announced['metrics']}/metrics", timeout=ASK_TIMEOUT_S) as answer:
            return str(answer.read().decode())


@contextmanager
def process(module: str, at: Servers, **variables: str) -> Iterator[Process]:
    """``python -m MODULE`` against the servers, once it has announced its addresses; it ends with the block."""
    name = module.rpartition(".")[2]
    # One module may run several times.
    log = at.home / f"{name}-{len(list(at.home.glob('*.log')))}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=os.environ | at.environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        file = at.home / "run" / f"{name}-{popen.pid}.json"
        _until(file.exists, popen, log, f"{name} does not start")
        announced: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        yield Process(name, popen, log, announced)
    finally:
        stop(popen)


def _until(condition: Callable[[], bool], popen: subprocess.Popen[bytes], log: Path, problem: str) -> None:
    give_up = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if popen.poll() is not None or time.monotonic() > give_up:
            raise MillraceError(f"{problem}; the end of its log:\n{log_tail(log)}")
        # What another process does can only be asked for.
        time.sleep(0.05)


def _readiness(metrics: str) -> dict[str, Any] | None:
    """What ``/readyz`` says; None while it is not ready."""
    try:
        with urlopen(f"http://{metrics}/readyz", timeout=ASK_TIMEOUT_S) as answer:
            return dict(json.load(answer))
    except OSError:
        return None
