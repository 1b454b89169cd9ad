"""The experiment tracker: what comes of each arm, and what follows by rule.

    commands ─────► obeyed or refused (commands.dlq) ─┐
    outcomes ─────► figures of each arm ──────────────┼──► experiments (records, with the decision)
    interactions ─► purchases in the window ──────────┘

Records, users and the positions that they include are written together, in one transaction: who starts goes on from
there, and what came since is taken again in the same order inside each partition, to the same digit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import structlog
from google.protobuf.message import Message

from millrace.enums import name_of
from millrace.errors import InvalidField
from millrace.events.rules import check_append_time, check_command, check_id, check_interaction
from millrace.experiments import metrics
from millrace.experiments.coverage import ITEMS_MAX
from millrace.experiments.life import RUNNING, target
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.settings import Settings
from millrace.stream.fenced import FencedProducer
from millrace.stream.worker import Assignment, Output, Partition, Record
from millrace.topics import COMMANDS, EXPERIMENT_TRACKER_CHANGELOG, EXPERIMENTS, INTERACTIONS, OUTCOMES, Topic
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import DecisionKind
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.outcome_pb2 import Outcome
from workers.experiment_tracker.following import Models
from workers.experiment_tracker.stored import read_stored

log = structlog.stdlib.get_logger(__name__)

_LOOKED_AT = (InteractionType.INTERACTION_TYPE_PURCHASE, InteractionType.INTERACTION_TYPE_FORGET)


class ExperimentTracker:
    """Tracks all experiments. See ``millrace.stream.worker.Worker``."""

    name = "experiment_tracker"
    topics: Sequence[Topic] = (OUTCOMES, INTERACTIONS, COMMANDS)
    assignment = Assignment.SINGLE

    def __init__(self, settings: Settings) -> None:
        ours = settings.experiments
        self._kafka, self._stream = settings.kafka, settings.stream
        self._commit_interval_s = ours.commit_interval_ms / 1_000
        self._figures_interval_s = ours.figures_interval_ms / 1_000
        limits = TrackerLimits(ours.holdout, ours.users_max, ours.answers_max, ours.purchase_wait_ms)
        self._tracker = Tracker(limits)
        self._models = Models(settings.kafka, settings.stream)
        self._producer = FencedProducer(settings.kafka, self.name, "all")
        self._newest_ms = 0
        # When the oldest record was taken that is in no transaction yet, and when the last one was written.
        self._dirty_since: float | None = None
        self._written_at = self._decide_at = 0.0
        metrics.USERS_MAX.set(ours.users_max)
        metrics.ANSWERS_MAX.set(ours.answers_max)
        metrics.ITEMS_MAX.set(ITEMS_MAX)

    @property
    def pending_since(self) -> float | None:
        """Monotonic time of the oldest record that is in no transaction yet."""
        return self._dirty_since

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        """Become the one that writes, and go on from what was written last. Raises InfrastructureError."""
        # First: who wrote before writes no more, so that what is read next is all there is.
        self._producer.open()
        self._models.open()
        stored = read_stored(self._kafka, self._stream)
        self._tracker.restore(stored.experiments, stored.parts, topic_ids)
        self._dirty_since = None
        self._show()
        log.info("restored", experiments=len(stored.experiments), users=self._tracker.users)
        return {at: self._tracker.positions[at] for at in partitions if at in self._tracker.positions}

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        """Take what came, in the order in which the broker got it."""
        positions = self._tracker.positions
        for record in records:
            at = record.topic, record.partition
            if record.offset < positions.get(at, 0):
                continue
            try:
                self._take(record)
            except InvalidField as error:
                output.reject(record, error)
            positions[at] = record.offset + 1
            self._newest_ms = max(self._newest_ms, record.append_time_ms)
        metrics.ANSWERS_DROPPED.inc(self._tracker.tidy(self._newest_ms))
        if self._dirty_since is None:
            self._dirty_since = time.monotonic()

    def on_tick(self, now: float, output: Output) -> None:
        """Decide, and write what changed."""
        del output
        self._models.poll(now)
        if now < self._decide_at or (self._dirty_since is None and not self._tracker.is_due(_now_ms())):
            return
        self._decide_at = now + self._commit_interval_s
        self._decide()
        if not self._tracker.figures_only or now - self._written_at >= self._figures_interval_s:
            self._write(now)

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Another process tracks: it goes on from what was written."""
        del partitions
        self._dirty_since = None
        self._producer.close()
        self._models.close()

    def close(self, output: Output) -> None:
        """Write what is pending."""
        del output
        if self._producer.is_open and self._dirty_since is not None:
            self._decide()
            self._write(time.monotonic())
        self._producer.close()
        self._models.close()

    def _take(self, record: Record) -> None:
        message = record.message
        if isinstance(message, Outcome):
            check_id("request_id", message.request_id)
            check_id("user_id", message.user_id)
            try:
                result = self._tracker.outcome(message, record.partition, record.append_time_ms)
            except InvalidField:
                metrics.OUTCOMES.labels("refused").inc()
                raise
            metrics.OUTCOMES.labels(result).inc()
        elif isinstance(message, Interaction):
            self._interaction(message, record)
        elif isinstance(message, Command) and target(message):
            self._command(message, record)

    def _interaction(self, event: Interaction, record: Record) -> None:
        if event.type not in _LOOKED_AT:
            return
        try:
            check_interaction(event)
            check_append_time(event.occurred_at_ms, record.append_time_ms)
        except InvalidField as error:
            # The feature updater makes it a dead letter; one is enough.
            log.debug("passed over", problem=str(error))
        else:
            self._tracker.interaction(event, record.partition, record.append_time_ms)

    def _command(self, command: Command, record: Record) -> None:
        self._models.poll(None)
        # It meets what is known by now.
        self._decide()
        try:
            check_command(command)
            self._tracker.command(command, self._models.ledgers, record.append_time_ms)
        except InvalidField as error:
            metrics.COMMANDS.labels("refused").inc()
            log.warning("command refused", experiment=target(command), problem=str(error))
            raise
        metrics.COMMANDS.labels("accepted").inc()

    def _decide(self) -> None:
        before = {name for name, one in self._tracker.experiments.items() if one.state == RUNNING}
        self._tracker.decide(_now_ms())
        for name in sorted(before):
            experiment = self._tracker.experiments[name]
            if experiment.state != RUNNING:
                kind = name_of(DecisionKind.DESCRIPTOR, experiment.decision.kind)
                metrics.DECISIONS.labels(kind).inc()
                log.info("decided", experiment=name, decision=kind, reason=experiment.decision.reason)

    def _write(self, now: float) -> None:
        self._producer.write(self._changes())
        self._tracker.saved()
        self._written_at, self._dirty_since = now, None
        self._show()

    def _changes(self) -> Iterator[tuple[Topic, str, Message | None]]:
        experiments, parts = self._tracker.changes()
        for experiment in experiments:
            yield EXPERIMENTS, experiment.definition.experiment_id, experiment
        for key, part in parts:
            yield EXPERIMENT_TRACKER_CHANGELOG, key, part

    def _show(self) -> None:
        running = [one for one in self._tracker.experiments.values() if one.state == RUNNING]
        metrics.RUNNING.set(len(running))
        metrics.MISMATCHED.set(
            sum(one.decision.kind == DecisionKind.DECISION_KIND_SAMPLE_RATIO_MISMATCH for one in running)
        )
        metrics.USERS.set(self._tracker.users)
        metrics.ANSWERS.set(self._tracker.answers)
        metrics.ITEMS.set(self._tracker.items)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
