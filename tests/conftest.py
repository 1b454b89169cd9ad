"""Real servers for tests: Kafka, Redis and MLflow of the embedded stack, and child processes that never survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import settings as hypothesis_settings

from deploy.embedded.classes import keep_classes
from deploy.embedded.jars import classpath
from deploy.embedded.member import clean_environment, log_tail, running, stop
from deploy.embedded.mlflow import Mlflow
from deploy.embedded.ports import free_port
from millrace.settings import KafkaSettings, StackSettings, settings
from tests.brokers import broker, formatted
from tests.processes import PATIENCE_S, a_redis, belonging_to

if TYPE_CHECKING:
    from tests.gateway_stack import StartStack

# How long an example takes is no property: what is compiled takes seconds the first time.
hypothesis_settings.register_profile("millrace", deadline=None)
hypothesis_settings.load_profile("millrace")

ROOT = Path(__file__).resolve().parent.parent
# Tests must see the defaults and their own values, whatever the developer's shell holds, but for choices of who
# runs them: a broker for tests, which redis-server to run, where the data sets are.
OUR_PREFIXES = ("KAFKA_", "REDIS_", "MLFLOW_", "MILLRACE_", "ONLINE_LEARNING_", "DRIFT_", "OTEL_")
GIVEN_BROKER = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
KEPT = frozenset({"MILLRACE_STACK_REDIS", "MILLRACE_DATA"})
# Most of a run is waiting: for servers to start, for the sessions of the killed to end. Four at once keep two cores
# busy, and take less than 10 GB.
MODULES_AT_ONCE = 4


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes of a run with ``-n auto``: one where tests were chosen, or have one broker between them."""
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.keyword or config.option.lf
    return 0 if chosen or GIVEN_BROKER else MODULES_AT_ONCE


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End what is left of a run in several processes: Ctrl-C gives these ten seconds, and their fixtures need more."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        folder: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        for pid in belonging_to(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session", autouse=True)
def _clean_settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OUR_PREFIXES) and name not in KEPT]:
            patch.delenv(name)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


@pytest.fixture(scope="module", autouse=True)
def millrace_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """MILLRACE_HOME of this module's tests and of the processes that they start: a fresh folder."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLRACE_HOME", str(folder))
        settings.cache_clear()
        yield folder
    settings.cache_clear()


@pytest.fixture(scope="session")
def kafka_jars() -> tuple[Path, ...]:
    """Class path of the broker; the first time in a checkout the jars are fetched, and what they hold is kept ready."""
    jars = classpath(StackSettings().kafka_version)
    keep_classes(jars)
    return jars


@pytest.fixture(scope="session")
def kafka_storage(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Path:
    """Formatted storage that brokers start from, each on a copy: formatting takes a JVM of its own."""
    return formatted(tmp_path_factory.mktemp("storage"), kafka_jars)


@pytest.fixture(scope="module")
def kafka_settings(
    tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...], kafka_storage: Path
) -> Iterator[KafkaSettings]:
    """A fresh broker without topics; topics made with these settings get three partitions."""
    with broker(GIVEN_BROKER, tmp_path_factory.mktemp("kafka"), kafka_jars, kafka_storage) as address:
        yield KafkaSettings(bootstrap_servers=address, partitions=3)


@pytest.fixture(scope="module")
def kafka_env(kafka_settings: KafkaSettings) -> Mapping[str, str]:
    """Environment variables that point a child process at the broker."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
        "KAFKA_PARTITIONS": str(kafka_settings.partitions),
    }


@pytest.fixture(scope="module")
def topics_applied(kafka_settings: KafkaSettings) -> KafkaSettings:
    """The broker with every topic made."""
    from millrace.stream.admin import apply_topics

    apply_topics(kafka_settings)
    return kafka_settings


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fresh, empty Redis that keeps an append-only file."""
    member = a_redis(tmp_path_factory.mktemp("redis"))
    with running(member):
        yield member.address


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One MLflow server for all tests of this process (it takes 8-17 s to start): use a model name of your own."""
    member = Mlflow(tmp_path_factory.mktemp("mlflow"), free_port())
    with running(member):
        yield member.address


@dataclass(slots=True)
class Child:
    """A process that a test started."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        """Everything that it has printed so far (standard output and error)."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(PATIENCE_S)

    def terminate(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM; the exit status. Fails the test when the process does not end in time."""
        self.popen.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit status. Fails the test when the process does not end in time."""
        try:
            return self.popen.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {timeout_s} s; the end of its output:\n{log_tail(self.log)}")

    def until(self, condition: Callable[[], object], timeout_s: float = PATIENCE_S, interval_s: float = 0.05) -> None:
        """Wait for a condition; fails the test with the process's output when it ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.alive:
                pytest.fail(f"ended with {self.popen.returncode}; the end of its output:\n{log_tail(self.log)}")
            if time.monotonic() > deadline:
                pytest.fail(f"nothing came in {timeout_s} s; the end of its output:\n{log_tail(self.log)}")
            time.sleep(interval_s)


class StartProcess(Protocol):
    def __call__(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> Child: ...


@contextmanager
def starting(folder: Path) -> Iterator[StartProcess]:
    """Starts ``python -m MODULE ARGUMENTS`` in the checkout, with its output in the folder; all end with the block."""
    with ExitStack() as children:

        def start(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> Child:
            number = len(list(folder.glob("process-*.log")))
            log = folder / f"process-{number}-{module}.log"
            with log.open("wb") as output:
                popen = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    cwd=ROOT,
                    env=clean_environment() | {"PYTHONUNBUFFERED": "1"} | dict(env or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            children.callback(stop, popen)
            return Child(popen, log)

        yield start


@pytest.fixture
def process(tmp_path: Path) -> Iterator[StartProcess]:
    """Starts processes of a test; whatever it does, they end with it."""
    with starting(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def module_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProcess]:
    """Starts processes that all tests of a module share."""
    with starting(tmp_path_factory.mktemp("processes")) as start:
        yield start


@pytest.fixture(scope="module")
def gateway_stack(
    topics_applied: KafkaSettings,
    kafka_env: Mapping[str, str],
    redis_url: str,
    millrace_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    module_process: StartProcess,
) -> StartStack:
    """Starts a gateway and what it stands on, but for the orchestrator, whose part a test plays, and MLflow."""
    from tests.gateway_stack import started

    servers = {**kafka_env, "REDIS_URL": redis_url}
    log = tmp_path_factory.mktemp("recommender") / "log"
    return partial(started, topics_applied, servers, millrace_home, log, module_process)
