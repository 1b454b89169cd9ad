"""The detector's changelog: what it writes, and reads back after a restart."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field

import numpy as np

from millrace.drift.counts import Counts
from millrace.drift.watch import Hour, Watch
from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import DRIFT_DETECTOR_CHANGELOG
from millrace.v1.detector_pb2 import DetectorState, WatchedHour, WatchedRest

READ_TIMEOUT_S = 60.0
REST, LOOK = "rest", "look"


@dataclass(slots=True)
class Stored:
    """What a detector goes on from. ``rest`` is None before anything was written."""

    rest: WatchedRest | None = None
    hours: dict[int, bytes] = field(default_factory=dict)


def key_of(model_name: str, part: int | str) -> str:
    """Key of an hour, of ``REST`` or of ``LOOK``."""
    return f"{model_name}/{part}"


def read_stored(kafka: KafkaSettings, stream: StreamSettings, model_name: str) -> Stored:
    """Everything that was written. Call it when no former detector can write any more. Raises InfrastructureError."""
    stored = Stored()
    give_up = time.monotonic() + READ_TIMEOUT_S
    with TopicReader(kafka, [DRIFT_DETECTOR_CHANGELOG], "beginning", stream) as reader:
        while not reader.caught_up:
            if time.monotonic() > give_up:
                raise InfrastructureError(
                    "kafka", f"{DRIFT_DETECTOR_CHANGELOG.name} could not be read within {READ_TIMEOUT_S:g} s"
                )
            for record in reader.poll(1_000):
                name, _, part = (record.key or b"").decode("utf-8", "replace").rpartition("/")
                if name != model_name:
                    continue
                if not isinstance(record.message, DetectorState):
                    stored.hours.pop(int(part), None)
                elif record.message.WhichOneof("part") == "hour":
                    stored.hours[record.message.hour.hour] = record.message.hour.counts
                elif record.message.WhichOneof("part") == "rest":
                    stored.rest = record.message.rest
    return stored


def pack(hour: int, counts: Hour) -> DetectorState:
    """An hour as its record."""
    numbers = np.concatenate([np.append(each.cells, each.missing) for each in counts]).astype("<i8")
    return DetectorState(hour=WatchedHour(hour=hour, counts=zlib.compress(numbers.tobytes(), 1)))


def unpack(watch: Watch, content: bytes) -> Hour:
    """The counts in a record's bytes, in the cells of the watch's reference. Raises ValueError if they do not fit."""
    numbers = np.frombuffer(zlib.decompress(content), dtype="<i8").astype(np.int64)
    sizes = [each.cells.size + 1 for each in watch.values]
    if sum(sizes) != len(numbers):
        raise ValueError(f"{len(numbers)} numbers, {sum(sizes)} cells")
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return [Counts(part[:-1], int(part[-1])) for part in parts]
