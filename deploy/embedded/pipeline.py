"""The whole pipeline on this machine: the stack, every process, and simulated shoppers."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded import scrape
from deploy.embedded.jars import Say, silent
from deploy.embedded.ports import preferred_or_free
from deploy.embedded.stack import Addresses, Stack, persistent
from deploy.embedded.supervision import Program, Supervisor
from millrace.errors import MillraceError
from millrace.settings import KafkaSettings, Settings, home
from millrace.stream.admin import apply_topics

# Name of a process (as it calls itself in its metrics) -> its module. Simulated shoppers are added last, and so are
# stopped first.
PROCESSES: Mapping[str, str] = {
    "feature_updater": "workers.feature_updater",
    "outcome_joiner": "workers.outcome_joiner",
    "online_learner": "workers.online_learner",
    "experiment_tracker": "workers.experiment_tracker",
    "drift_detector": "workers.drift_detector",
    "retrain_orchestrator": "workers.retrain_orchestrator",
    "recommender": "services.recommender",
    "gateway": "services.gateway",
}
SIMULATE = "simulate"
ATTRIBUTION_WINDOW_MS = 20_000
"""What the joiner waits for a click of simulated shoppers: they click within seconds, and what nobody clicked is to be
learned while one watches. (Of people, half an hour: ``JoinerSettings``.)"""
CHECKPOINT_INTERVAL_MS = 60_000
"""One who watches wants to roll back to a checkpoint within minutes."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A running pipeline.

    Attributes
    ----------
    kafka
        Settings that lead to its broker.
    recommender
        gRPC address of the recommender.
    gateway
        HTTP address of the gateway.
    supervisor
        Of the processes, not of the stack.
    """

    addresses: Addresses
    kafka: KafkaSettings
    recommender: str
    gateway: str
    supervisor: Supervisor
    stack: Stack

    def log(self, name: str) -> Path:
        """What the process prints."""
        return self.supervisor.folder / f"{name}.log"


@contextmanager
def pipeline(settings: Settings, rate: float, say: Say = silent) -> Iterator[Pipeline]:
    """The pipeline for the length of a ``with`` block; it ends with this process, however that ends.

    A stack that was up before stays up.

    Parameters
    ----------
    rate
        Pages per second that simulated shoppers look at; 0: no shoppers.

    Raises
    ------
    MillraceError
        It already runs in this folder, or a part does not come up.
    """
    folder = home() / "pipeline"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        running.enter_context(_alone(folder))
        stack = persistent(settings.stack)
        was_up = stack.running
        addresses = stack.up(say, attached=not was_up)
        if not was_up:
            running.callback(stack.down)
        # The settings were read before the stack chose its ports.
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": addresses.kafka})
        say("applying topics")
        apply_topics(kafka)
        port = preferred_or_free(settings.recommender.port)
        target = f"127.0.0.1:{port}"
        rest_port = preferred_or_free(settings.gateway.port, frozenset({port}))
        stack.announce(addresses.environment() | {"MILLRACE_RECOMMENDER_TARGET": target})
        if was_up:
            running.callback(stack.announce, addresses.environment())
        environment = addresses.environment() | {
            "MILLRACE_HOME": str(home()),
            "MILLRACE_RECOMMENDER_PORT": str(port),
            "MILLRACE_RECOMMENDER_TARGET": target,
            "MILLRACE_GATEWAY_PORT": str(rest_port),
            # A port of their own for each; they say which in home()/run.
            "MILLRACE_METRICS_PORT": "0",
        }
        if rate and "attribution_window_ms" not in settings.joiner.model_fields_set:
            environment["MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS"] = str(ATTRIBUTION_WINDOW_MS)
        if rate and "checkpoint_interval_ms" not in settings.learner.model_fields_set:
            environment["ONLINE_LEARNING_CHECKPOINT_INTERVAL_MS"] = str(CHECKPOINT_INTERVAL_MS)
        supervisor = Supervisor(folder)
        # A run that was killed together with its supervisor may have left processes.
        supervisor.stop()
        scrape.forget_dead(home() / "run")
        running.callback(supervisor.stop)
        say("starting the processes")
        supervisor.start(_programs(folder, rate, environment), attached=True)
        yield Pipeline(addresses, kafka, target, f"127.0.0.1:{rest_port}", supervisor, stack)


def _programs(folder: Path, rate: float, environment: Mapping[str, str]) -> list[Program]:
    modules = {name: [module] for name, module in PROCESSES.items()}
    if rate:
        modules[SIMULATE] = ["millrace", "simulate", "--headless", "--rate", f"{rate:g}"]
    return [
        # The folder that `millrace run` was called in, so that relative paths in .env mean the same to all.
        Program(name, [sys.executable, "-m", *command], Path.cwd(), folder / f"{name}.log", environment)
        for name, command in modules.items()
    ]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MillraceError(
                f"a pipeline already runs in {folder.parent}; end it, or set MILLRACE_HOME to another folder"
            ) from error
        yield
