"""What the gateway knows of models, learning, drift and experiments: read from topics, on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from millrace.drift.status import SIGNALS_READ, DriftStatus, model_of
from millrace.experiments.asking import REFUSALS
from millrace.registry.drift_signals import SignalBoard
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.dead_letters import PREFIX
from millrace.stream.feed import Feed
from millrace.stream.reader import Newest, TopicReader
from millrace.stream.worker import Record
from millrace.topics import DRIFT_DETECTOR_CHANGELOG, DRIFT_SIGNALS, EXPERIMENTS, MODEL_EVENTS, MODEL_UPDATES
from millrace.v1.command_pb2 import Command
from millrace.v1.detector_pb2 import DetectorState
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.model_pb2 import ModelEvent, ModelUpdate, ParameterUpdate
from services.gateway import metrics

T = TypeVar("T")

# Records applied before requests get their turn: about 1 ms.
_CHUNK = 50
# Of model-updates and of refused commands each: some minutes of learning, as far back as answers are looked for.
_NEWEST = 1_000
# Answers to commands that are remembered, by kind.
_REMEMBERED = 1_000
RATE_OVER_MS = 10_000
"""Updates per second are counted over this time."""


@dataclass(slots=True)
class Learning:
    """What ``model-updates`` says of one model.

    Attributes
    ----------
    last
        The newest update.
    made_ms
        When the updates of the last ``RATE_OVER_MS`` before it were made.
    answers
        Command id -> the update that answered it.
    """

    last: ParameterUpdate
    made_ms: deque[int] = field(default_factory=deque)
    answers: dict[str, ParameterUpdate] = field(default_factory=dict)

    def take(self, update: ParameterUpdate) -> None:
        """The next update."""
        self.last = update
        self.made_ms.append(update.created_at_ms)
        while self.made_ms[0] <= update.created_at_ms - RATE_OVER_MS:
            self.made_ms.popleft()
        for command_id in update.command_ids:
            _remember(self.answers, command_id, update)

    def updates_per_s(self, now_ms: int) -> float:
        """Updates of the last ten seconds, by the second."""
        return sum(made_ms > now_ms - RATE_OVER_MS for made_ms in self.made_ms) * 1_000 / RATE_OVER_MS


class Views:
    """The read models. To be made, used and closed on one event loop.

    Attributes
    ----------
    ledgers
        What has happened to each registered model, by name.
    experiments
        The record of each experiment, by id.
    learning
        How each model learns, by name.
    drift
        What the drift detector wrote of each model, by name.
    refusals
        Command id -> why it was refused, by a worker that writes no refusals of its own.
    signals
        The drift that holds.
    """

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.experiments: dict[str, Experiment] = {}
        self.learning: dict[str, Learning] = {}
        self.drift: dict[str, DriftStatus] = {}
        self.refusals: dict[str, str] = {}
        self.signals = SignalBoard()
        self._changed = asyncio.Event()
        self._feeds = {
            name: Feed(f"view-{name}", reader, _CHUNK, self.apply)
            for name, reader in (
                ("records", lambda: TopicReader(kafka, [MODEL_EVENTS, EXPERIMENTS], "beginning", stream)),
                ("drift", lambda: TopicReader(kafka, [DRIFT_DETECTOR_CHANGELOG], "beginning", stream)),
                ("signals", lambda: TopicReader(kafka, [DRIFT_SIGNALS], Newest(SIGNALS_READ), stream)),
                ("updates", lambda: TopicReader(kafka, [MODEL_UPDATES, REFUSALS], Newest(2 * _NEWEST), stream)),
            )
        }
        for name, feed in self._feeds.items():
            metrics.VIEW_LAG_RECORDS.labels(name).set_function(partial(getattr, feed, "lag"))

    def start(self) -> None:
        """Begin to read."""
        for feed in self._feeds.values():
            feed.start()

    @property
    def missing(self) -> Sequence[str]:
        """Views that are not read yet, in words."""
        return [
            f"view of {name} is not read yet (kafka)"
            for name, feed in self._feeds.items()
            if not feed.caught_up.is_set()
        ]

    def apply(self, records: Sequence[Record]) -> None:
        """Take records of any of the topics."""
        for record in records:
            message = record.message
            if isinstance(message, ModelEvent):
                self.ledgers.setdefault(message.model_name, Ledger(message.model_name)).apply(message)
            elif isinstance(message, Experiment):
                self.experiments[message.definition.experiment_id] = message
            elif isinstance(message, ModelUpdate) and message.HasField("update"):
                update = message.update
                self.learning.setdefault(update.model_name, Learning(update)).take(update)
            elif isinstance(message, DetectorState | DriftSignal):
                name = model_of(message, record.key) or ""
                self.drift.setdefault(name, DriftStatus(name)).take(message)
                self.signals.take(record)
            elif isinstance(message, Command):
                reason = dict(record.headers).get(f"{PREFIX}reason", b"no reason given")
                _remember(self.refusals, message.command_id, reason.decode("utf-8", "replace"))
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, find: Callable[[], T | None], timeout_s: float) -> T | None:
        """What ``find`` finds in the views, looked for whenever they change; None if nothing comes in time."""
        give_up = time.monotonic() + timeout_s
        while (found := find()) is None:
            left_s = give_up - time.monotonic()
            if left_s <= 0:
                return None
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return find()
        return found

    async def close(self) -> None:
        """Stop reading."""
        await asyncio.gather(*(feed.close() for feed in self._feeds.values()))


def _remember(known: dict[str, T], key: str, value: T) -> None:
    known[key] = value
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]
