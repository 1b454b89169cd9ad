"""The online learner: every outcome moves the champion's parameters.

    outcomes ──► buffer ──full, old, or asked──► learned ──► model-updates (changed parameters; snapshots)

The state of a line of learning (parameters, optimizer, positions) stands as a snapshot on ``model-updates``, and who
starts goes on from the newest one of the present champion's reign: what was learned since is learned again, slot by
slot in the same order, to the same numbers. A new champion starts a line from its version, a rollback from the version
or checkpoint that it names.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import structlog

from millrace.errors import InvalidField
from millrace.learning import metrics
from millrace.learning.examples import read_examples
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import changed, to_vector, vector_size
from millrace.learning.state import LearnerState
from millrace.learning.updates import snapshot_records
from millrace.ranking.features import FloatMatrix
from millrace.registry.checkpoints import CheckpointCache
from millrace.settings import Settings
from millrace.stream.fenced import FencedProducer
from millrace.stream.worker import Assignment, Output, Partition, Record
from millrace.topics import MODEL_EVENTS, MODEL_UPDATES, OUTCOMES, Topic
from millrace.v1.common_pb2 import Position
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome
from millrace.warm_up import warm_up_learning
from workers.online_learner.checkpoints import Checkpointer
from workers.online_learner.following import Following
from workers.online_learner.lines import find_start, first_state

log = structlog.stdlib.get_logger(__name__)

# In a silence the state is written again this often, well before the topic drops the last one.
_SILENT_S = MODEL_UPDATES.retention_ms / 1_000 / 6

_LABELS = {True: Label.Name(Label.LABEL_POSITIVE), False: Label.Name(Label.LABEL_NEGATIVE)}
_SHOWN = {label: name.removeprefix("LABEL_").lower() for label, name in _LABELS.items()}
_ORIGINS = {value: name.removeprefix("IMPRESSION_ORIGIN_").lower() for name, value in ImpressionOrigin.items()}


class OnlineLearner:
    """Learns from outcomes. See ``millrace.stream.worker.Worker``."""

    name = "online_learner"
    topics: Sequence[Topic] = (OUTCOMES,)
    assignment = Assignment.SINGLE

    def __init__(self, settings: Settings) -> None:
        warm_up_learning()
        ours = settings.learner
        self._settings = settings
        self._model_name = ours.model_name
        self._buffer_size = ours.buffer_size
        self._interval_s = ours.interval_ms / 1_000
        self._snapshot_interval_s = ours.snapshot_interval_ms / 1_000
        self._following = Following(settings.kafka, settings.stream, self._model_name)
        self._updates = FencedProducer(settings.kafka, self.name, self._model_name)
        self._checkpoints = CheckpointCache(self._model_name, settings.mlflow)
        self._checkpointer = Checkpointer(settings, self._checkpoints)
        self._ranker: OnlineRanker | None = None
        self._state: LearnerState | None = None
        self._topic_id = ""
        self._epoch = 0
        # The next offset to learn of each partition, what is in the buffer included.
        self._read: dict[int, int] = {}
        self._rows: list[FloatMatrix] = []
        self._labels: list[bool] = []
        self._buffered_at: float | None = None
        self._snapshot_at = 0.0
        # Whether there are updates after the last snapshot.
        self._unsaved = False
        metrics.BUFFER_MAX.set(self._buffer_size)

    @property
    def pending_since(self) -> float | None:
        """Monotonic time of the oldest outcome in the buffer."""
        return self._buffered_at

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Become the one that writes, and go on from the newest state of the champion's line.

        Raises
        ------
        InfrastructureError
            There is no champion yet, or Kafka or the registry does not answer.
        """
        self._topic_id = topic_ids[OUTCOMES.name]
        self._clear_buffer()
        # First: who wrote before writes no more, so that what is read next is all there is.
        self._updates.open()
        self._following.open()
        reign = self._following.reign()
        start = find_start(self._settings, self._following.ledger, reign, self._checkpoints)
        self._epoch = start.epoch
        self._read = {}
        if start.topic_id == self._topic_id:
            self._read.update(start.learned)
        elif start.topic_id:
            log.warning("topic outcomes was made anew: all of it is learned", before=start.topic_id, now=self._topic_id)
        self._begin(start.state)
        return {(topic, number): self._read[number] for topic, number in partitions if number in self._read}

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        """Take outcomes; learn whenever the buffer is full."""
        assert self._state is not None
        schema, features = self._state.model.feature_schema, len(self._state.model.feature_names)
        for record in records:
            if record.offset < self._read.get(record.partition, 0):
                continue
            try:
                outcome = record.message
                if not isinstance(outcome, Outcome):
                    raise InvalidField("value", "empty", "an outcome")
                rows, labels = read_examples(outcome, schema, features)
            except InvalidField as error:
                output.reject(record, error)
            else:
                self._buffer(rows, labels, _ORIGINS.get(outcome.origin, "unspecified"))
            self._read[record.partition] = record.offset + 1
            if len(self._labels) >= self._buffer_size:
                self._learn([])
        metrics.BUFFER.set(len(self._labels))

    def on_tick(self, now: float, output: Output) -> None:
        """Learn what has waited long enough or was asked for; follow the champion."""
        del output
        self._following.poll(now)
        if self._following.reign().event_id != self._line.reign_id:
            # Nothing of the old line is published any more; what is in the buffer teaches the new one.
            self._begin(first_state(self._settings, self._following.reign(), self._checkpoints))
        asked = self._following.triggers()
        if asked or (self._buffered_at is not None and now - self._buffered_at >= self._interval_s):
            self._learn(asked)
        elif now >= self._snapshot_at and (self._unsaved or now >= self._snapshot_at + _SILENT_S):
            # The last updates before a silence: who missed one has to wait for this, and so has who starts.
            self._updates.write(self._snapshot(now))
        stored = self._checkpointer.follow(now, self._line, self._following.ledger, self._following.compared)
        if stored is not None:
            self._updates.write([(MODEL_EVENTS, self._model_name, stored)])

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Another process leads: it resumes from the topic."""
        del partitions
        self._checkpointer.stop()
        self._clear_buffer()
        self._updates.close()
        self._following.close()

    def close(self, output: Output) -> None:
        """Learn the rest, and leave a state behind that includes it."""
        del output
        self._checkpointer.stop()
        if self._updates.is_open:
            self._snapshot_at = 0.0
            self._learn([])
        self._updates.close()
        self._following.close()

    @property
    def _line(self) -> LearnerState:
        assert self._state is not None
        return self._state

    def _begin(self, state: LearnerState) -> None:
        """Start an epoch from a state, and say so."""
        self._epoch += 1
        ranker = OnlineRanker(replace(state, epoch=self._epoch, sequence=0, examples=0))
        self._ranker = ranker
        self._state = ranker.state(0, self._learned(), self._topic_id)
        self._updates.write(self._snapshot(time.monotonic()))
        self._checkpointer.begin(time.monotonic())
        size = vector_size(len(state.model.columns))
        metrics.PARAMETERS.labels(self._model_name).set(size)
        metrics.PARAMETERS_MAX.labels(self._model_name).set(size)
        self._show()
        log.info("learns", model=self._model_name, version=state.model_version, epoch=self._epoch, learned=self._read)

    def _buffer(self, rows: FloatMatrix, labels: Sequence[bool], origin: str) -> None:
        if self._buffered_at is None:
            self._buffered_at = time.monotonic()
        self._rows.append(rows)
        self._labels += labels
        for label in labels:
            metrics.SLOTS.labels(_SHOWN[label], origin).inc()

    def _learn(self, command_ids: Sequence[str]) -> None:
        """Learn what is in the buffer and publish the parameters that changed, with a snapshot when it is time."""
        assert self._ranker is not None
        began, before = time.monotonic(), to_vector(self._line.model)
        loss = self._ranker.learn(np.concatenate(self._rows) if self._rows else [], self._labels)
        self._checkpointer.learned(loss)
        state = self._ranker.state(self._line.sequence + 1, self._read, self._topic_id)
        update = ParameterUpdate(
            model_name=self._model_name,
            model_version=state.model_version,
            epoch=state.epoch,
            sequence=state.sequence,
            parameters=changed(before, to_vector(state.model)),
            learned=[
                Position(topic=OUTCOMES.name, topic_id=self._topic_id, partition=number, offset=offset - 1)
                for number, offset in sorted(self._read.items())
            ],
            examples=state.examples,
            created_at_ms=time.time_ns() // 1_000_000,
            reign_id=state.reign_id,
            command_ids=command_ids,
        )
        self._state, self._unsaved = state, True
        records: list[tuple[Topic, str, ModelUpdate]] = [(MODEL_UPDATES, self._model_name, ModelUpdate(update=update))]
        if began >= self._snapshot_at:
            records += self._snapshot(began)
        self._updates.write(records)
        self._clear_buffer()
        metrics.UPDATE_SECONDS.observe(time.monotonic() - began)
        metrics.UPDATES.labels(self._model_name).inc()
        metrics.LOG_LOSS.labels(self._model_name).inc(loss)
        self._show()

    def _snapshot(self, now: float) -> list[tuple[Topic, str, ModelUpdate]]:
        self._snapshot_at = now + self._snapshot_interval_s
        self._unsaved = False
        metrics.SNAPSHOTS.labels(self._model_name).inc()
        made = snapshot_records(self._model_name, self._line, time.time_ns() // 1_000_000)
        return [(MODEL_UPDATES, self._model_name, record) for record in made]

    def _learned(self) -> dict[int, int]:
        """Positions without what is in the buffer."""
        if self._labels:
            return dict(self._line.learned)
        return dict(self._read)

    def _clear_buffer(self) -> None:
        self._rows, self._labels, self._buffered_at = [], [], None
        metrics.BUFFER.set(0)

    def _show(self) -> None:
        metrics.EPOCH.labels(self._model_name).set(self._line.epoch)
        metrics.SEQUENCE.labels(self._model_name).set(self._line.sequence)
