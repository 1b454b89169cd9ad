"""A gateway with everything behind it that it stands on, and what tests do with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from benchmarks.seed import promote_first_ranker
from millrace.events.build import now_ms
from millrace.settings import KafkaSettings
from millrace.stream.codec import encode
from millrace.topics import COMMANDS, INTERACTIONS, MODEL_EVENTS
from millrace.v1.command_pb2 import Command
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.conftest import Child, StartProcess
from tests.gateway_support import Answer, Gateway
from tests.processes import in_time
from tests.recommending import recommender, wait_for
from tests.stream_support import read_all, ready, send

# A machine may be so busy that nothing is answered in the usual times; a test waits for what has to come.
PATIENT = {
    "MILLRACE_GATEWAY_DELIVERY_TIMEOUT_MS": "60000",
    "MILLRACE_GATEWAY_RECOMMEND_TIMEOUT_MS": "60000",
    "REDIS_TIMEOUT_MS": "60000",
}
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Running:
    """A gateway with everything behind it."""

    gateway: Gateway
    updater: Child
    kafka: KafkaSettings
    env: Mapping[str, str]

    def settled(self, path: str, key: str, body: object = None) -> Answer:
        """What came of a command, asked for by its id until it is settled."""
        found: list[Answer] = []

        def settled() -> bool:
            found.append(self.gateway.ask("POST", path, body, Idempotency_Key=key))
            return found[-1].status != 202

        in_time(settled)
        return found[-1]

    def interactions(self, user_id: str) -> list[Interaction]:
        found = [Interaction.FromString(one.value() or b"") for one in read_all(self.kafka, INTERACTIONS.name)]
        return [one for one in found if one.user_id == user_id]

    def commands(self) -> list[Command]:
        return [Command.FromString(one.value() or b"") for one in read_all(self.kafka, COMMANDS.name)]

    def tell(
        self, kind: str, version: str, command_id: str = "", reason: str = "", model: str = "other", **more: Any
    ) -> None:
        """Write an event of the life of a model, as an orchestrator would."""
        event = ModelEvent(
            event_id=f"{model} {kind} {version} {command_id}",
            model_name=model,
            model_version=version,
            type=ModelEventType.Value(f"MODEL_EVENT_TYPE_{kind}"),
            at_ms=now_ms(),
            command_id=command_id,
            reason=reason,
            **more,
        )
        send(self.kafka, MODEL_EVENTS, [(model, *encode(event))])


class StartStack(Protocol):
    """Starts a stack on the module's broker and Redis (the fixture ``gateway_stack``); it ends with the block.

    Parameters
    ----------
    env
        Environment of every process.
    learner
        The learner's own.
    more
        Names of further workers.
    """

    def __call__(
        self, env: Mapping[str, str] = ..., learner: Mapping[str, str] = ..., more: Sequence[str] = ...
    ) -> AbstractContextManager[Running]: ...


@contextmanager
def started(
    kafka: KafkaSettings,
    servers: Mapping[str, str],
    home: Path,
    log: Path,
    start: StartProcess,
    env: Mapping[str, str] = NOTHING,
    learner: Mapping[str, str] = NOTHING,
    more: Sequence[str] = (),
) -> Iterator[Running]:
    """A feature updater, learner, tracker, recommender and gateway, all ready.

    Parameters
    ----------
    servers
        Where Kafka and Redis are, as environment variables.
    log
        File for what the recommender prints.
    env, learner, more
        See :class:`StartStack`.
    """
    promote_first_ranker(kafka)
    env = {**servers, **env, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"} | PATIENT
    own = {"online_learner": learner}
    names = ("online_learner", "experiment_tracker", "feature_updater", *more)
    workers = {name: start(f"workers.{name}", env={**env, **own.get(name, {})}) for name in names}
    with recommender(home, log, env) as service:
        env |= {"MILLRACE_RECOMMENDER_TARGET": service.target, "MILLRACE_GATEWAY_PORT": "0"}
        gateway = Gateway(start("services.gateway", env=env))
        gateway.child.until(gateway.ready)
        for name, child in workers.items():
            child.until(lambda child=child, name=name: ready(child, name))  # type: ignore[misc]
        wait_for(service.ready, "the recommender")
        yield Running(gateway, workers["feature_updater"], kafka, env)
        # They may be killed at any moment; asked to end, a learner waits for an MLflow that is not there.
        for child in workers.values():
            child.kill()
