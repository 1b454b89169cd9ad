"""The one consumer loop: poll, decode, hand to the worker, commit what is safe.

    gained ──► waiting ──restore, seek, resume──► active ──on_batch, on_tick──► safe ──► committed
                  ▲                                  │
                  └── pause, rewind, back off ◄──────┘ a system is away

A failure of Kafka, Redis or MLflow never commits and never drops: everything since the last safe position is
delivered again when the worker is restored. A record that breaks the worker's code is a dead letter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.admin import topic_ids
from millrace.stream.assignment import make_consumer, membership, raise_if_fatal
from millrace.stream.backoff import Backoff
from millrace.stream.commits import Commits
from millrace.stream.decoding import Batch, read_batch
from millrace.stream.handling import handle
from millrace.stream.http import Readiness
from millrace.stream.merge import Merge
from millrace.stream.output import KafkaOutput
from millrace.stream.progress import Progress
from millrace.stream.status import Snapshot, Status, Watch
from millrace.stream.telemetry import Telemetry
from millrace.stream.tracing import TRACES
from millrace.stream.transactions import TransactionalOutput, TransactionalWorker
from millrace.stream.worker import Assignment, Partition, Worker

log = structlog.stdlib.get_logger(__name__)

# on_tick is promised every 50 ms while there is nothing to do; half of it leaves room for what else the loop does.
_POLL_S = 0.025
# A restart repeats at most what the durability margin and this interval hold.
_COMMIT_EVERY_S = 0.5
_STATUS_EVERY_S = 0.5
# When partitions are handed over, the new owner waits for this flush; what it does not reach is done again there.
_HAND_OVER_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as functions so that tests can give their own: monotonic and Unix seconds."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Runtime:
    """Runs a worker in the calling thread until :meth:`stop`."""

    def __init__(
        self, worker: Worker, kafka: KafkaSettings, stream: StreamSettings, clock: Clock | None = None
    ) -> None:
        self._worker = worker
        self._name = worker.name.encode()
        self._kafka = kafka
        self._stream = stream
        self._clock = clock or Clock()
        self._topics = {topic.name: topic for topic in worker.topics}
        self._progress = Progress(stream.durability_margin_ms / 1_000)
        self._telemetry = Telemetry(worker.name, self._topics, stream, self._clock.wall)
        self._status = Status(stream.stalled_after_ms / 1_000, self._clock.monotonic)
        self._backoff = Backoff(stream.backoff_max_ms / 1_000)
        self._output = self._make_output()
        self._consumer = make_consumer(
            kafka, stream, worker.name, worker.assignment, self._on_commit, self._telemetry.consumer_stats
        )
        self._commits = Commits(self._consumer, self._telemetry)
        self._watch = Watch(self._consumer, self._commits.confirmed, self._telemetry, self._clock.monotonic)
        self._membership = membership(self._consumer, kafka, worker.name, worker.topics, worker.assignment, self)
        self._merge = (
            None
            if worker.assignment is Assignment.SHARED
            else Merge(list(self._topics), worker.assignment, stream.batch_size)
        )
        self._active: set[Partition] = set()
        self._waiting: set[Partition] = set()
        self._failure: InfrastructureError | None = None
        self._refusal = ""
        self._kafka_up: bool | None = None
        self._ticked_at = self._try_at = self._commit_at = self._status_at = 0.0
        self._stopping = self._crashed = False

    def run(self) -> None:
        """Run until :meth:`stop`, then drain.

        Raises
        ------
        MillraceError
            The process cannot go on and says why.
        """
        self._membership.start()
        try:
            while not self._stopping:
                self._step()
            self._drain()
        except BaseException:
            self._crashed = True
            raise
        finally:
            self._membership.close()

    def stop(self) -> None:
        """Ask the loop to drain and end. Safe in signal handlers and from other threads."""
        self._stopping = True

    def readiness(self) -> Readiness:
        """What ``/readyz`` says. Safe from other threads."""
        return self._status.readiness()

    def _make_output(self) -> KafkaOutput:
        worker, topics, telemetry = self._worker, self._topics, self._telemetry
        parts = self._kafka, self._stream, worker.name, topics, self._progress.sent, telemetry.producer_stats
        if isinstance(worker, TransactionalWorker):
            return TransactionalOutput(*parts, worker.transaction_timeout_s)
        return KafkaOutput(*parts)

    # The loop.

    def _step(self) -> None:
        self._membership.poll()
        batch = read_batch(self._poll(), self._topics, self._active, self._stream.max_value_bytes, self._name)
        for error in batch.problems:
            self._note(error)
        if self._merge is not None:
            batch = self._in_order(self._merge, batch)
        self._output.serve()
        if self._failure is None and self._active:
            try:
                if batch.positions:
                    self._take(batch)
                ticked_at = self._clock.monotonic()
                self._worker.on_tick(ticked_at, self._output)
                self._output.settle()
            except InfrastructureError as error:
                self._fail(error)
            else:
                self._ticked_at = ticked_at
                self._advance()
        now = self._clock.monotonic()
        # After the batch in hand: it is from before the seek.
        if self._waiting and now >= self._try_at:
            self._begin()
        if now >= self._commit_at:
            self._commit(now)
        if now >= self._status_at:
            self._status_at = now + _STATUS_EVERY_S
            self._publish_status()

    def _poll(self) -> list[KafkaMessage]:
        """What came in. Waits for the first message only: ``consume`` alone would wait for a whole batch."""
        first = self._consumer.poll(_POLL_S)
        if first is None:
            return []
        return [first, *self._consumer.consume(self._stream.batch_size - 1, 0)]

    def _take(self, batch: Batch) -> None:
        """Hand the batch to the worker."""
        began = self._clock.monotonic()
        self._status.in_hand(batch.positions.keys())
        refused = [undecodable.record for undecodable in batch.refused]
        with TRACES.taking(self._worker.name, batch.records + refused if refused else batch.records):
            if batch.records:
                handle(self._worker, batch.records, self._output)
                self._backoff.reset()
            for undecodable in batch.refused:
                self._output.reject(undecodable.record, undecodable.reason)
        self._status.in_hand(())
        done = self._clock.monotonic()
        if batch.counts:
            self._telemetry.batch(batch.counts, done - began, batch.newest_ms)
        self._progress.batch(batch.positions, done)
        self._refusal = ""

    def _in_order(self, merge: Merge, polled: Batch) -> Batch:
        """What may be handled now of everything polled so far, in the order of append times."""
        merge.add(polled)
        batch = merge.take(self._at_end)
        pause, resume = merge.flow()
        if pause:
            self._consumer.pause([TopicPartition(*partition) for partition in pause])
        if resume:
            self._consumer.resume([TopicPartition(*partition) for partition in resume])
        return batch

    def _at_end(self, partition: Partition, offset: int) -> bool:
        _low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return 0 <= high <= offset

    def _advance(self) -> None:
        """Find out what is safe, as of the last tick: the worker's store was there then, and may not be now."""
        if not isinstance(self._output, TransactionalOutput):
            self._progress.advance(self._clock.monotonic(), self._worker.pending_since, self._ticked_at)

    def _commit(self, now: float) -> None:
        """Commit what is safe, or the transaction."""
        if not isinstance(self._worker, TransactionalWorker):
            self._commit_at = now + _COMMIT_EVERY_S
            self._commits.send(self._progress.safe)
            return
        self._commit_at = now + self._worker.transaction_interval_s
        if self._failure is None and self._active:
            try:
                self._commit_transaction()
            except InfrastructureError as error:
                self._fail(error)

    def _commit_transaction(self) -> None:
        """One atomic write of what was sent, what the worker's state became, and the positions after it."""
        assert isinstance(self._worker, TransactionalWorker)
        assert isinstance(self._output, TransactionalOutput)
        if not (self._output.open or self._progress.handled != self._progress.safe):
            return
        self._worker.before_commit(self._output)
        self._output.settle()
        self._output.commit(self._progress.handled, self._consumer)
        self._progress.committed()
        self._commits.transacted(self._progress.safe)
        self._backoff.reset()

    def _note(self, error: KafkaError) -> None:
        """A problem of the consumer that librdkafka goes on with, for example a topic that is not made yet."""
        raise_if_fatal(error)
        if error.str() != self._refusal:
            self._refusal = error.str()
            log.warning("kafka", problem=self._refusal)

    # Waiting, beginning, failing.

    def _begin(self) -> None:
        """Restore the worker for the partitions that wait, seek to where it goes on, and let them run."""
        waiting = sorted(self._waiting)
        try:
            if self._telemetry.kafka_up is False:
                raise InfrastructureError("kafka", f"no broker of {self._kafka.bootstrap_servers} is connected")
            self._output.recover()
            self._seek(self._positions(waiting))
        except InfrastructureError as error:
            self._fail(error)
            return
        self._consumer.resume([TopicPartition(*partition) for partition in waiting])
        self._waiting.clear()
        self._active.update(waiting)
        if self._failure is not None:
            self._failure = None
            log.info("goes on")
        self._telemetry.recovered()
        self._status_at = 0.0

    def _positions(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Where to go on: what the worker says, else what is known to be safe, else what is committed."""
        if isinstance(self._output, TransactionalOutput):
            # Asked first: the answer waits for a transaction of the former owner, whose state is read next.
            committed = self._commits.find(partitions)
            return {**committed, **self._worker.restore(partitions, topic_ids(self._kafka, self._topics))}
        restored = self._worker.restore(partitions, topic_ids(self._kafka, self._topics))
        safe = self._progress.safe
        unknown = [partition for partition in partitions if partition not in restored and partition not in safe]
        return {
            **self._commits.find(unknown),
            **{partition: safe[partition] for partition in partitions if partition in safe},
            **{partition: restored[partition] for partition in partitions if partition in restored},
        }

    def _seek(self, positions: Mapping[Partition, int]) -> None:
        try:
            for partition, offset in positions.items():
                self._consumer.seek(TopicPartition(*partition, offset))
        except KafkaException as error:
            # A partition just gained whose leader is not known yet.
            raise InfrastructureError("kafka", f"seek: {error.args[0].str()}") from error
        self._progress.start(positions)
        if self._merge is not None:
            for partition, offset in positions.items():
                self._merge.start(partition, offset)
        shown = {f"{name}/{number}": "start" if at < 0 else at for (name, number), at in sorted(positions.items())}
        log.info("reads from", **shown)

    def _fail(self, error: InfrastructureError) -> None:
        """A system is away: nothing since the last safe position counts; try again later."""
        self._progress.rewind()
        self._output.rewind()
        self._consumer.pause([TopicPartition(*partition) for partition in self._active])
        self._waiting |= self._active
        self._active.clear()
        pause = self._backoff.next()
        self._try_at = self._clock.monotonic() + pause
        self._failure = error
        self._telemetry.failed(error.system)
        self._status_at = 0.0
        log.warning("waits", problem=str(error), attempt=self._backoff.attempts, next_try_s=round(pause, 2))

    # Owner: called from inside the membership's and the consumer's polls.

    def gained(self, partitions: Sequence[Partition]) -> None:
        """Begin with them as soon as possible."""
        self._waiting.update(partitions)
        self._status_at = 0.0

    def released(self, partitions: Sequence[Partition]) -> None:
        """Commit what is safe by now, and let go."""
        if not self._crashed:
            if isinstance(self._output, TransactionalOutput):
                self._commit(self._clock.monotonic())
            else:
                self._hand_over()
        self.lost(partitions)

    def _hand_over(self) -> None:
        if self._failure is None:
            self._output.flush(_HAND_OVER_FLUSH_S)
            self._advance()
        if self._telemetry.kafka_up is not False:
            self._commits.send_and_wait(self._progress.safe)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Let go at once."""
        gone = set(partitions)
        if self._active & gone and isinstance(self._output, TransactionalOutput) and self._output.open:
            # What was sent for them must not appear, and cannot be told from what was sent for the others.
            self._fail(InfrastructureError("kafka", "partitions were lost in the middle of a transaction"))
        if self._merge is not None:
            self._merge.forget(gone)
        self._active -= gone
        self._waiting -= gone
        self._progress.release(gone)
        self._commits.release(gone)
        self._telemetry.released(gone)
        if not self._waiting:
            self._failure = None
            self._telemetry.recovered()
        self._status_at = 0.0
        if gone and not self._crashed:
            self._worker.revoke(list(partitions))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._commits.answered(error, partitions)

    # The end, and what is told about it all.

    def _drain(self) -> None:
        """Send what is pending and commit what is safe, for as long as is allowed."""
        deadline = self._clock.monotonic() + self._stream.drain_timeout_ms / 1_000
        try:
            self._worker.close(self._output)
            self._output.settle()
            if isinstance(self._output, TransactionalOutput) and self._failure is None and self._active:
                self._commit_transaction()
        except InfrastructureError as error:
            log.warning("could not send what is pending; it will be done again", problem=str(error))
        if not self._output.flush(deadline - self._clock.monotonic() - _HAND_OVER_FLUSH_S):
            log.warning("not everything that was sent came to the broker; it will be sent again")
        log.info("drained", pending=self._output.pending)
        self._status.publish(self._snapshot("draining"))

    def _publish_status(self) -> None:
        self._telemetry.owns(len(self._active) + len(self._waiting), self._progress.unsafe_batches)
        self._status.publish(self._snapshot(self._reason()))
        if self._telemetry.kafka_up is not self._kafka_up:
            self._kafka_up = self._telemetry.kafka_up
            say = log.info if self._kafka_up else log.warning
            say("kafka is there" if self._kafka_up else "kafka is away", brokers=self._kafka.bootstrap_servers)

    def _reason(self) -> str:
        """Why the worker cannot work; empty if it can."""
        if self._failure is not None:
            return str(self._failure)
        if self._telemetry.kafka_up is False:
            return f"kafka: no broker of {self._kafka.bootstrap_servers} is connected"
        if self._refusal and not self._active:
            return f"kafka: {self._refusal}"
        return "restoring" if self._waiting else ""

    def _snapshot(self, problem: str) -> Snapshot:
        member = self._membership
        return Snapshot(
            self._clock.monotonic(), member.role, member.standing_by, problem, self._watch.look(self._progress.handled)
        )
