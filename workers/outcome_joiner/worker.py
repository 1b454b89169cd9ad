"""The outcome joiner: what came of each answer.

    impressions ──┐                ┌──► outcomes
                  ├── joined by ───┤
    interactions ─┘ partition      └──► outcome-joiner-changelog (what is open)

Everything that a batch leads to (outcomes, the state's changelog, dead letters) and the positions after it appear in
one transaction, every 100 ms, or not at all: see ``millrace.stream.transactions``. After a restart or a failure the
state of a partition is read back from the changelog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from millrace.errors import InvalidField
from millrace.outcomes import metrics
from millrace.outcomes.intake import read_impression, read_interaction
from millrace.outcomes.joiner import JoinerLimits, PartitionJoiner
from millrace.settings import Settings
from millrace.stream.codec import encode
from millrace.stream.worker import Assignment, Output, Partition, Record
from millrace.topics import IMPRESSIONS, INTERACTIONS, OUTCOME_JOINER_CHANGELOG, OUTCOMES, Topic
from millrace.v1.common_pb2 import Position
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label, Outcome
from workers.outcome_joiner.changelog import read_changelog
from workers.outcome_joiner.mirror import OrganicSource

log = structlog.stdlib.get_logger(__name__)

_LABELS = {value: name.removeprefix("LABEL_").lower() for name, value in Label.items()}
_ORIGINS = {value: name.removeprefix("IMPRESSION_ORIGIN_").lower() for name, value in ImpressionOrigin.items()}


class OutcomeJoiner:
    """Joins impressions and interactions. See ``millrace.stream.worker.Worker`` and ``TransactionalWorker``."""

    name = "outcome_joiner"
    topics: Sequence[Topic] = (IMPRESSIONS, INTERACTIONS)
    assignment = Assignment.CO_PARTITIONED
    pending_since: float | None = None

    def __init__(self, settings: Settings) -> None:
        ours = settings.joiner
        self.transaction_interval_s = ours.commit_interval_ms / 1_000
        self.transaction_timeout_s = ours.transaction_timeout_ms / 1_000
        self._kafka, self._stream = settings.kafka, settings.stream
        self._limits = JoinerLimits(ours.attribution_window_ms, ours.grace_ms, ours.dedup_window, ours.open_max)
        self._organic = OrganicSource(settings) if ours.organic_rate else None
        self._joiners: dict[int, PartitionJoiner] = {}
        # The next offset of each partition: a batch that is given again after a bug goes on where it stopped.
        self._next: dict[Partition, int] = {}
        self._topic_ids: Mapping[str, str] = {}
        self._busy: set[int] = set()
        metrics.OPEN_MAX.set(ours.open_max)

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Read the state of the partitions from the changelog. Positions are the committed ones."""
        self._topic_ids = topic_ids
        numbers = {number for _, number in partitions}
        for partition in partitions:
            self._next.pop(partition, None)
        if self._organic is not None:
            self._organic.open()
        for number, parts in read_changelog(self._kafka, self._stream, numbers).items():
            joiner = self._joiners[number] = PartitionJoiner.restored(self._limits, parts)
            log.info("restored", partition=number, open=joiner.open_count, waiting=joiner.waiting_count)
        self._show()
        return {}

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        """Take impressions and interactions, in the order in which the broker got them."""
        for record in records:
            partition = record.topic, record.partition
            if record.offset < self._next.get(partition, 0):
                continue
            joiner = self._joiners[record.partition]
            self._busy.add(record.partition)
            try:
                if record.topic == IMPRESSIONS.name:
                    self._take_impression(joiner, record)
                else:
                    event = read_interaction(record)
                    verdict = joiner.interaction(event, record.offset, record.append_time_ms)
                    metrics.INTERACTIONS.labels(verdict.value).inc()
            except InvalidField as error:
                verdicts = metrics.IMPRESSIONS if record.topic == IMPRESSIONS.name else metrics.INTERACTIONS
                verdicts.labels("refused").inc()
                output.reject(record, error)
            self._next[partition] = record.offset + 1
        for number in {record.partition for record in records}:
            self._send(number, output)

    def on_tick(self, now: float, output: Output) -> None:
        """Let time pass where nothing came, and close what it closes."""
        if self._organic is not None:
            self._organic.follow(now)
        for number, joiner in self._joiners.items():
            if number not in self._busy:
                joiner.idle(now)
                self._send(number, output)
        self._busy.clear()

    def before_commit(self, output: Output) -> None:
        """Write what the state has become."""
        for number, joiner in self._joiners.items():
            for key, state in joiner.changes():
                output.produce(OUTCOME_JOINER_CHANGELOG, key, state, number)
        self._show()

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Forget the state of partitions that went away; the changelog has it."""
        for _, number in partitions:
            self._joiners.pop(number, None)
        self._show()

    def close(self, output: Output) -> None:
        """Nothing is pending: the last transaction takes everything."""
        del output
        if self._organic is not None:
            self._organic.close()

    def _take_impression(self, joiner: PartitionJoiner, record: Record) -> None:
        impression = read_impression(record)
        position = Position(
            topic=record.topic,
            topic_id=self._topic_ids[record.topic],
            partition=record.partition,
            offset=record.offset,
        )
        opened = joiner.impression(impression, position, record.append_time_ms)
        metrics.IMPRESSIONS.labels("opened" if opened else "duplicate").inc()

    def _send(self, number: int, output: Output) -> None:
        """Send what a partition has decided."""
        joiner = self._joiners[number]
        for outcome in joiner.outcomes:
            self._produce(outcome, number, output)
        joiner.outcomes.clear()
        if joiner.organic:
            if self._organic is not None:
                examples = self._organic.examples
                sampled = [(event, offset) for event, offset in joiner.organic if examples.sampled(event)]
                for outcome in examples.outcomes(sampled) if sampled else ():
                    self._produce(outcome, number, output)
            joiner.organic.clear()
        for event, misplaced in joiner.misplaced:
            metrics.INTERACTIONS.labels("refused").inc()
            output.reject(_record(event, number, misplaced.offset), misplaced.error)
        joiner.misplaced.clear()
        if joiner.closed_early:
            metrics.CLOSED_EARLY.inc(joiner.closed_early)
            joiner.closed_early = 0

    def _produce(self, outcome: Outcome, number: int, output: Output) -> None:
        output.produce(OUTCOMES, outcome.user_id, outcome, number)
        origin = _ORIGINS[outcome.origin]
        for decided in outcome.slots:
            metrics.SLOTS.labels(_LABELS[decided.label], origin).inc()
            if decided.interaction_at_ms and origin == "served":
                metrics.CLICK_DELAY.observe((decided.interaction_at_ms - outcome.impression.served_at_ms) / 1_000)

    def _show(self) -> None:
        metrics.OPEN.set(sum(joiner.open_count for joiner in self._joiners.values()))
        metrics.WAITING.set(sum(joiner.waiting_count for joiner in self._joiners.values()))


def _record(event: Interaction, partition: int, offset: int) -> Record:
    """The record of an interaction that waited, for its dead letter."""
    value, headers = encode(event)
    return Record(INTERACTIONS.name, partition, offset, event.user_id.encode(), event, 0, headers, value)
