"""Every topic, declared in one place. ``millrace topics apply`` makes them; nothing else does.

Sources of the retention times: a user's features may be rebuilt from ``interactions`` for as long as these are
kept, so feature TTLs must exceed that (checked when the feature updater starts); ``outcomes`` is kept for the
training window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from google.protobuf.message import Message

from millrace.settings import DAY_MS, HOUR_MS, KafkaSettings
from millrace.v1.command_pb2 import Command
from millrace.v1.detector_pb2 import DetectorState
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item, ItemState
from millrace.v1.joiner_pb2 import JoinerState
from millrace.v1.model_pb2 import ModelEvent, ModelUpdate
from millrace.v1.outcome_pb2 import Outcome
from millrace.v1.tracker_pb2 import TrackerState

DLQ_SUFFIX = ".dlq"

# A dead letter carries the original (up to any size that the source topic took) and headers that say why.
DLQ_MAX_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be.

    Attributes
    ----------
    name
        Name on the broker.
    message
        Type of the values; the ``schema`` header of a record names it.
    key
        What the key holds, for people.
    spread
        Whether it has ``kafka.partitions`` partitions, else one. All topics keyed by user are spread: with the
        same count and the same partitioner, a user's records meet in one partition number.
    cleanup
        ``delete`` (by time) or ``compact`` (newest of each key).
    retention_ms
        How long records are kept; -1 for ever.
    dead_letters
        Whether a ``.dlq`` topic stands beside it.
    config
        Further settings of the broker for this topic.
    """

    name: str
    message: type[Message]
    key: str
    spread: bool = False
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = -1
    dead_letters: bool = False
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def dlq(self) -> str:
        """Name of the dead-letter topic beside it."""
        return self.name + DLQ_SUFFIX

    def partitions(self, kafka: KafkaSettings) -> int:
        """Number of partitions when the topic is made."""
        return kafka.partitions if self.spread else 1


INTERACTIONS = Topic("interactions", Interaction, "user_id", spread=True, retention_ms=7 * DAY_MS, dead_letters=True)
ITEMS = Topic("items", Item, "item_id", spread=True, cleanup="compact", dead_letters=True)
IMPRESSIONS = Topic("impressions", Impression, "user_id", spread=True, retention_ms=7 * DAY_MS, dead_letters=True)
OUTCOMES = Topic("outcomes", Outcome, "user_id", spread=True, retention_ms=28 * DAY_MS, dead_letters=True)
ITEM_STATE = Topic("item-state", ItemState, "item_id", spread=True, cleanup="compact")
MODEL_UPDATES = Topic("model-updates", ModelUpdate, "model name", retention_ms=6 * HOUR_MS)
MODEL_EVENTS = Topic("model-events", ModelEvent, "model name")
DRIFT_SIGNALS = Topic("drift-signals", DriftSignal, "model name", retention_ms=28 * DAY_MS)
OUTCOME_JOINER_CHANGELOG = Topic(
    "outcome-joiner-changelog",
    JoinerState,
    "part of the joiner's state",
    spread=True,
    cleanup="compact",
    # Written all the time and read at each restart: cleaned soon, so that a restart reads what is open and little more.
    config={
        "segment.bytes": str(64 * 1024 * 1024),
        "min.cleanable.dirty.ratio": "0.2",
        "delete.retention.ms": "600000",
    },
)
COMMANDS = Topic("commands", Command, "target", retention_ms=7 * DAY_MS, dead_letters=True)
# The record of a running experiment is written every second: cleaned soon, so that a restart reads little.
EXPERIMENTS = Topic(
    "experiments",
    Experiment,
    "experiment_id",
    cleanup="compact",
    config={"segment.bytes": str(16 * 1024 * 1024), "min.cleanable.dirty.ratio": "0.2"},
)
EXPERIMENT_TRACKER_CHANGELOG = Topic(
    "experiment-tracker-changelog",
    TrackerState,
    "part of the tracker's state",
    cleanup="compact",
    # As the joiner's.
    config={
        "segment.bytes": str(64 * 1024 * 1024),
        "min.cleanable.dirty.ratio": "0.2",
        "delete.retention.ms": "600000",
    },
)
DRIFT_DETECTOR_CHANGELOG = Topic(
    "drift-detector-changelog",
    DetectorState,
    "part of the detector's state",
    cleanup="compact",
    # As the records of experiments: written every few seconds.
    config={"segment.bytes": str(16 * 1024 * 1024), "min.cleanable.dirty.ratio": "0.2"},
)

ALL: tuple[Topic, ...] = (
    INTERACTIONS,
    ITEMS,
    IMPRESSIONS,
    OUTCOMES,
    ITEM_STATE,
    MODEL_UPDATES,
    MODEL_EVENTS,
    DRIFT_SIGNALS,
    OUTCOME_JOINER_CHANGELOG,
    COMMANDS,
    EXPERIMENTS,
    EXPERIMENT_TRACKER_CHANGELOG,
    DRIFT_DETECTOR_CHANGELOG,
)
BY_NAME: Mapping[str, Topic] = {topic.name: topic for topic in ALL}
