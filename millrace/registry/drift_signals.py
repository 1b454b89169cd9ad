"""The drift signals that hold, as the orchestrator, the command line and the gateway see them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from millrace.errors import InfrastructureError
from millrace.settings import MINUTE_MS, KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import DRIFT_SIGNALS
from millrace.v1.drift_pb2 import DriftSignal

HOLDS_FOR_MS = 5 * MINUTE_MS
"""The detector says every minute what holds; of one that says nothing any more, nothing is known."""


class SignalBoard:
    """What ``drift-signals`` says, of all models."""

    def __init__(self) -> None:
        # With the time at which the broker took it.
        self._held: dict[str, tuple[int, DriftSignal]] = {}

    def take(self, record: Record) -> None:
        """The next record."""
        signal = record.message
        if isinstance(signal, DriftSignal):
            self._held.pop(signal.signal_id, None)
            if signal.holds:
                self._held[signal.signal_id] = record.append_time_ms, signal

    def holding(self, model_name: str, now_ms: int) -> Sequence[DriftSignal]:
        """What holds of a model, the oldest first; ``now_ms`` in Unix milliseconds."""
        self._held = {name: held for name, held in self._held.items() if held[0] > now_ms - HOLDS_FOR_MS}
        mine = [signal for _, signal in self._held.values() if signal.model_name == model_name]
        return sorted(mine, key=lambda one: (one.first_at_ms, one.signal_id))


class HoldingSignals:
    """Reads the topic for one model. For one thread at a time."""

    def __init__(self, kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> None:
        self._kafka, self._stream, self._model_name = kafka, stream, model_name
        self._reader: TopicReader | None = None
        self._board = SignalBoard()

    def __call__(self) -> Sequence[DriftSignal]:
        """What holds by now, the oldest first; does not wait."""
        if self._reader is None:
            self._reader = signal_reader(self._kafka, self._stream)
        for record in self._reader.poll(timeout_s=0.0):
            self._board.take(record)
        return self._board.holding(self._model_name, _now_ms())


def signal_reader(kafka: KafkaSettings, stream: StreamSettings) -> TopicReader:
    """A reader that begins early enough to meet everything that holds."""
    return TopicReader(kafka, [DRIFT_SIGNALS], _now_ms() - HOLDS_FOR_MS, stream)


def read_signals(
    kafka: KafkaSettings, stream: StreamSettings, model_name: str, timeout_s: float
) -> Sequence[DriftSignal]:
    """What holds of a model, read once.

    Raises
    ------
    InfrastructureError
        The broker did not deliver in time.
    """
    board, give_up = SignalBoard(), time.monotonic() + timeout_s
    with signal_reader(kafka, stream) as reader:
        while not reader.caught_up:
            for record in reader.poll():
                board.take(record)
            if time.monotonic() > give_up:
                raise InfrastructureError("kafka", f"{DRIFT_SIGNALS.name} could not be read within {timeout_s:g} s")
    return board.holding(model_name, _now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
