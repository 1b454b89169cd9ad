"""The drift detector: whether what the champion meets is still what it was made for.

    outcomes ──► values of the last day (of some answers) ──► compared with the reference, every hour ──┐
          └────► labels by minute of serving time ──► a change detector for each measure ──────────────┴► drift-signals

Three channels: input (features), prediction (scores), performance (labels; of all users and by segment). The reference
comes with the version (``millrace.training.reference``); a version without one is not watched. What is counted, what
holds and the positions that they include are written together with the signals, in one transaction: who starts goes on
from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence

import structlog
from google.protobuf.message import Message

from millrace.drift.hours import HOURS
from millrace.drift.storing import UnusableReference
from millrace.errors import InvalidField
from millrace.events.rules import check_id
from millrace.ranking.model import UnusableModel
from millrace.registry.cache import ModelCache, default_directory
from millrace.registry.journal import read_into, read_ledger
from millrace.registry.ledger import Ledger
from millrace.settings import MINUTE_MS, Settings
from millrace.stream.fenced import TIMEOUT_S, FencedProducer
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Assignment, Output, Partition, Record
from millrace.topics import DRIFT_DETECTOR_CHANGELOG, DRIFT_SIGNALS, MODEL_EVENTS, OUTCOMES, Topic
from millrace.v1.common_pb2 import Position
from millrace.v1.detector_pb2 import DetectorState, WatchedRest
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.model_pb2 import ModelEvent
from millrace.v1.outcome_pb2 import ImpressionOrigin, Outcome
from workers.drift_detector import metrics
from workers.drift_detector.stored import LOOK, REST, Stored, key_of, pack, read_stored
from workers.drift_detector.watched import UnusableState, Watched

log = structlog.stdlib.get_logger(__name__)

# Beside the attribution window: for answers whose records come late. One that is later still is not counted.
_SLACK_MS = 5 * MINUTE_MS
# A serving time so far after the append time is a wrong clock, as for interactions.
_FUTURE_MAX_MS = 5 * MINUTE_MS
# How often the model's events are looked at.
_LOOK_S = 0.5
# How often a signal that holds is said again: who missed it is told within a minute.
_AGAIN_S = 60.0


_CHANNELS = {
    DriftChannel.DRIFT_CHANNEL_INPUT: "input",
    DriftChannel.DRIFT_CHANNEL_PREDICTION: "prediction",
    DriftChannel.DRIFT_CHANNEL_PERFORMANCE: "performance",
}


class DriftDetector:
    """Watches the champion of one model. See ``millrace.stream.worker.Worker``."""

    name = "drift_detector"
    topics: Sequence[Topic] = (OUTCOMES,)
    assignment = Assignment.SINGLE

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model_name = settings.drift.model_name
        self._settle_ms = settings.joiner.attribution_window_ms + _SLACK_MS
        self._interval_s = settings.drift.commit_interval_ms / 1_000
        self._check_s = settings.drift.check_interval_ms / 1_000
        self._cache = ModelCache(default_directory(self._model_name), settings.mlflow)
        self._producer = FencedProducer(settings.kafka, self.name, self._model_name)
        self._events: TopicReader | None = None
        self._ledger = Ledger(self._model_name)
        self._reign: ModelEvent | None = None
        self._watched: Watched | None = None
        self._not_watched = ""
        self._topic_id = ""
        # The next offset of each partition of outcomes.
        self._read: dict[int, int] = {}
        # Hours that were counted since the last transaction, and those whose records have to go.
        self._changed: set[int] = set()
        self._dropped: set[int] = set()
        self._dirty_since: float | None = None
        self._write_at = self._look_at = self._check_at = self._again_at = 0.0
        metrics.HOURS_MAX.labels(self._model_name).set(HOURS + 1)

    @property
    def pending_since(self) -> float | None:
        """Monotonic time of the oldest outcome that is in no transaction yet."""
        return self._dirty_since

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Become the one that writes, and go on from what was written last.

        Raises
        ------
        InfrastructureError
            Kafka does not answer, or the registry that has to hand out the champion's reference.
        """
        self._topic_id = topic_ids[OUTCOMES.name]
        self._producer.open()
        self._close_events()
        kafka, stream = self._settings.kafka, self._settings.stream
        self._events = TopicReader(kafka, [MODEL_EVENTS], "beginning", stream)
        self._ledger = read_ledger(self._model_name, self._events, TIMEOUT_S)
        stored = read_stored(kafka, stream, self._model_name)
        self._dirty_since = None
        self._read = {}
        if stored.rest is not None:
            known = [one for one in stored.rest.included if one.topic_id == self._topic_id]
            self._read = {one.partition: one.offset + 1 for one in known}
        self._begin(stored)
        return {(topic, number): self._read[number] for topic, number in partitions if number in self._read}

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        """Take outcomes of the watched version."""
        for record in records:
            if record.offset < self._read.get(record.partition, 0):
                continue
            try:
                metrics.OUTCOMES.labels(self._take(record)).inc()
            except InvalidField as error:
                output.reject(record, error)
            self._read[record.partition] = record.offset + 1
        if self._watched is not None:
            changed, slots = self._watched.taking.count()
            self._changed |= changed
            metrics.ANSWERS.labels(self._model_name).inc(slots)
        if self._dirty_since is None:
            self._dirty_since = time.monotonic()

    def on_tick(self, now: float, output: Output) -> None:
        """Follow the champion, look, and write what changed."""
        del output
        if self._events is not None and now >= self._look_at:
            self._look_at = now + _LOOK_S
            read_into(self._ledger, self._events)
            if self._ledger.reign is not None and self._ledger.reign != self._reign:
                counted = self._watched.watch.hours if self._watched is not None else {}
                self._begin(Stored(hours=dict.fromkeys(counted, b"")))
        if now >= self._write_at and (self._dirty_since is not None or now >= min(self._check_at, self._again_at)):
            self._write_at = now + self._interval_s
            self._write(self._said(now))

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Another process watches: it goes on from what was written."""
        del partitions
        self._dirty_since = None
        self._producer.close()
        self._close_events()

    def close(self, output: Output) -> None:
        """Write what is pending."""
        del output
        if self._producer.is_open and self._dirty_since is not None:
            self._write(self._said(time.monotonic()))
        self._producer.close()
        self._close_events()

    def _take(self, record: Record) -> str:
        outcome = record.message
        if not isinstance(outcome, Outcome):
            raise InvalidField("value", "empty", "an outcome")
        check_id("request_id", outcome.request_id)
        served = outcome.origin == ImpressionOrigin.IMPRESSION_ORIGIN_SERVED
        if self._watched is None or self._reign is None or not served:
            return "passed"
        impression = outcome.impression
        if impression.model_name != self._model_name or impression.model_version != self._reign.model_version:
            return "other"
        if impression.served_at_ms > record.append_time_ms + _FUTURE_MAX_MS:
            return "future"
        self._watched.taking.take(outcome)
        return "watched"

    def _begin(self, stored: Stored) -> None:
        """Watch the present champion: go on with what was stored of its reign, else from nothing."""
        reign = self._ledger.reign
        if stored.rest is None or reign is None or stored.rest.reign_id != reign.event_id:
            self._dropped |= stored.hours.keys()
            stored = Stored()
        self._watched, self._not_watched = None, "no version is promoted yet"
        self._changed = set()
        if reign is not None:
            folder = self._cache.ensure(reign.model_version)
            try:
                try:
                    self._watched = Watched(self._settings.drift, self._settle_ms, reign, folder, stored)
                except UnusableState as error:
                    log.warning("what was counted before is dropped", reason=str(error))
                    self._dropped |= stored.hours.keys()
                    self._watched = Watched(self._settings.drift, self._settle_ms, reign, folder, Stored())
                log.info("watches", model=self._model_name, version=reign.model_version)
                self._not_watched = ""
            except (UnusableReference, UnusableModel) as error:
                self._not_watched = str(error)
                log.warning("the champion is not watched", version=reign.model_version, reason=str(error))
        # Only now: who was interrupted on the way begins again.
        self._reign = reign
        self._dirty_since = time.monotonic()
        metrics.WATCHING.labels(self._model_name).set(self._watched is not None)

    def _said(self, now: float) -> list[DriftSignal]:
        """Every signal to write now."""
        if self._watched is None:
            return []
        said = self._watched.labels()
        if now >= self._check_at:
            self._check_at = now + self._check_s
            said += self._watched.values()
        if now >= self._again_at:
            self._again_at = now + _AGAIN_S
            known = {signal.signal_id for signal in said}
            again = self._watched.signals.again(self._watched.watch.newest_ms)
            said += [signal for signal in again if signal.signal_id not in known]
        return said

    def _write(self, said: Sequence[DriftSignal]) -> None:
        """Signals, what they are made of, and the positions, all at once."""
        included = [
            Position(topic=OUTCOMES.name, topic_id=self._topic_id, partition=number, offset=offset - 1)
            for number, offset in sorted(self._read.items())
        ]
        self._producer.write(self._records(said, included))
        self._changed, self._dropped, self._dirty_since = set(), set(), None
        if self._watched is not None:
            self._watched.look = None
        self._show()

    def _records(
        self, said: Sequence[DriftSignal], included: Sequence[Position]
    ) -> Iterator[tuple[Topic, str, Message | None]]:
        for signal in said:
            record = DriftSignal()
            record.CopyFrom(signal)
            record.included.extend(included)
            yield DRIFT_SIGNALS, self._model_name, record
        rest = WatchedRest(
            reign_id=self._reign.event_id if self._reign else "",
            included=included,
            model_version=self._reign.model_version if self._reign else "",
            not_watched=self._not_watched,
            false_alarms_per_day=self._settings.drift.false_alarms_per_day,
        )
        if self._watched is not None:
            watch = self._watched.watch
            rest.newest_ms, rest.hours = watch.newest_ms, watch.whole_hours
            rest.measures.extend(self._watched.measures())
            if self._watched.look is not None:
                yield DRIFT_DETECTOR_CHANGELOG, key_of(self._model_name, LOOK), DetectorState(look=self._watched.look)
            self._dropped |= set(watch.forget())
            for hour in sorted(self._changed & watch.hours.keys()):
                yield DRIFT_DETECTOR_CHANGELOG, key_of(self._model_name, hour), pack(hour, watch.hours[hour])
            rest.labels = json.dumps(watch.state())
            rest.holding.extend(self._watched.signals.holding.values())
            self._dropped -= watch.hours.keys()
        for hour in sorted(self._dropped):
            yield DRIFT_DETECTOR_CHANGELOG, key_of(self._model_name, hour), None
        yield DRIFT_DETECTOR_CHANGELOG, key_of(self._model_name, REST), DetectorState(rest=rest)

    def _show(self) -> None:
        holding = [] if self._watched is None else list(self._watched.signals.holding.values())
        for channel, name in _CHANNELS.items():
            count = sum(signal.channel == channel for signal in holding)
            metrics.SIGNALS.labels(self._model_name, name).set(count)
        hours = 0 if self._watched is None else len(self._watched.watch.hours)
        metrics.HOURS.labels(self._model_name).set(hours)

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
        self._events = None
