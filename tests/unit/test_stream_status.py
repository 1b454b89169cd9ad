"""What /readyz says, and that commits are repeated until the broker has them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import cast

import pytest
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import MillraceError
from millrace.settings import ObservabilitySettings, StreamSettings
from millrace.stream import logs
from millrace.stream.commits import Commits
from millrace.stream.http import Readiness, run_file, serve_health
from millrace.stream.status import Snapshot, Status, Watch
from millrace.stream.telemetry import Telemetry
from millrace.stream.worker import Partition

AT: Partition = ("interactions", 1)
STALLED_AFTER_S = 30.0


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class BrokerState:
    """What the consumer would answer, without a broker: ends of partitions and the fate of commits."""

    def __init__(self) -> None:
        self.end = 10
        self.refuse: KafkaError | None = None
        self.asked: list[tuple[int, bool]] = []

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int]:
        return 4, self.end

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        self.asked += [(at.offset, asynchronous) for at in offsets]
        if self.refuse is not None:
            raise KafkaException(self.refuse)
        return offsets


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def broker() -> BrokerState:
    return BrokerState()


@pytest.fixture
def telemetry(time: Time) -> Telemetry:
    return Telemetry("status-test", ["interactions"], StreamSettings(), time)


@pytest.fixture
def watch(broker: BrokerState, telemetry: Telemetry, time: Time) -> Watch:
    return Watch(cast("Consumer", broker), {AT: 5}, telemetry, time)


def snapshot(watch: Watch, time: Time, position: int, problem: str = "") -> Snapshot:
    return Snapshot(time.now, "member", False, problem, watch.look({AT: position}))


def test_ready_with_partitions_and_without_a_problem(watch: Watch, time: Time) -> None:
    status = Status(STALLED_AFTER_S, time)
    assert status.readiness() == Readiness(False, ["starting"], {"role": "starting", "partitions": {}})
    status.publish(snapshot(watch, time, 7))
    time.now += 1
    progress = {"position": 7, "committed": 5, "lag": 3, "unmoved_s": 1.0}
    assert status.readiness() == Readiness(True, [], {"role": "member", "partitions": {"interactions/1": progress}})


def test_a_position_at_the_beginning_lags_by_what_is_still_there(watch: Watch, time: Time) -> None:
    assert watch.look({AT: -2})[AT].lag == 10 - 4


def test_a_partition_with_lag_that_does_not_move_is_named(watch: Watch, time: Time, broker: BrokerState) -> None:
    status = Status(STALLED_AFTER_S, time)
    for _ in range(4):
        status.publish(snapshot(watch, time, 7))
        time.now += 10
    status.publish(snapshot(watch, time, 7))
    found = status.readiness()
    assert not found.ready
    assert found.missing == ["no progress for more than 30 s in interactions/1 (40 s)"]
    status.publish(snapshot(watch, time, 8))
    assert status.readiness().ready


def test_an_idle_partition_may_stand_still(watch: Watch, time: Time, broker: BrokerState) -> None:
    status = Status(STALLED_AFTER_S, time)
    for _ in range(10):
        status.publish(snapshot(watch, time, 10))
        time.now += 10
    status.publish(snapshot(watch, time, 10))
    assert status.readiness().ready
    # Lag that comes now has all the time that any lag has.
    broker.end = 11
    status.publish(snapshot(watch, time, 10))
    assert status.readiness().ready


def test_a_loop_that_hangs_is_not_ready(watch: Watch, time: Time) -> None:
    status = Status(STALLED_AFTER_S, time)
    status.publish(snapshot(watch, time, 7))
    time.now += STALLED_AFTER_S + 1
    assert status.readiness().missing == ["one turn takes longer than 30 s (31 s so far)"]
    status.in_hand([AT])
    assert status.readiness().missing == ["one batch of interactions/1 takes longer than 30 s (31 s so far)"]


def test_a_stand_by_is_ready_without_partitions_and_a_member_is_not(time: Time) -> None:
    status = Status(STALLED_AFTER_S, time)
    status.publish(Snapshot(time.now, "stand-by", True, "", {}))
    assert status.readiness().ready
    status.publish(Snapshot(time.now, "member", False, "", {}))
    assert status.readiness().missing == ["no partitions assigned"]


def test_a_commit_is_sent_once_and_again_after_a_refusal(broker: BrokerState, telemetry: Telemetry) -> None:
    commits = Commits(cast("Consumer", broker), telemetry)
    commits.send({AT: -2})
    assert broker.asked == [], "Kafka's logical offsets cannot be committed"
    commits.send({AT: 5})
    commits.send({AT: 5})
    assert broker.asked == [(5, True)]
    commits.answered(KafkaError(KafkaError.STALE_MEMBER_EPOCH), None)
    assert commits.confirmed == {}
    commits.send({AT: 5})
    assert broker.asked == [(5, True)] * 2
    commits.answered(None, [TopicPartition(*AT, 5)])
    commits.send({AT: 5})
    commits.send_and_wait({AT: 5})
    assert broker.asked == [(5, True)] * 2
    assert commits.confirmed == {AT: 5}
    commits.send({AT: 6})
    # Not answered yet: whoever waits for it asks again.
    commits.send_and_wait({AT: 6})
    assert broker.asked[2:] == [(6, True), (6, False)]
    assert commits.confirmed == {AT: 6}


def test_a_commit_that_fails_at_once_is_repeated(broker: BrokerState, telemetry: Telemetry) -> None:
    commits = Commits(cast("Consumer", broker), telemetry)
    broker.refuse = KafkaError(KafkaError._TRANSPORT)
    commits.send({AT: 5})
    commits.send_and_wait({AT: 5})
    assert commits.confirmed == {}
    broker.refuse = None
    commits.send_and_wait({AT: 5})
    assert commits.confirmed == {AT: 5}


def test_released_partitions_are_committed_by_others(broker: BrokerState, telemetry: Telemetry) -> None:
    commits = Commits(cast("Consumer", broker), telemetry)
    commits.send_and_wait({AT: 5})
    commits.release([AT])
    assert commits.confirmed == {}
    commits.send({AT: 5})
    assert len(broker.asked) == 2


def test_the_health_server_says_where_it_listens_and_takes_that_back() -> None:
    observability = ObservabilitySettings()
    with serve_health(observability, "probe", lambda: Readiness(True), grpc="127.0.0.1:1") as server:
        announced = json.loads(run_file("probe").read_text())
        assert announced["metrics"] == server.address
        assert (announced["process"], announced["grpc"]) == ("probe", "127.0.0.1:1")
        taken = ObservabilitySettings(metrics_port=int(server.address.rpartition(":")[2]))
        with pytest.raises(MillraceError, match="MILLRACE_METRICS_PORT"):
            serve_health(taken, "other", lambda: Readiness(True))
    assert not run_file("probe").exists()


@pytest.fixture
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("_restore_logging")
def test_our_lines_and_those_of_libraries_have_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(ObservabilitySettings(log_format="json", log_level="INFO"), "probe")
    structlog.stdlib.get_logger("ours").info("batch", records=3)
    logs.kafka_logger().warning("%s [%s] %s", "FAIL", "rdkafka#consumer-1", "connection refused")
    structlog.stdlib.get_logger("ours").debug("too fine")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["batch", "FAIL [rdkafka#consumer-1] connection refused"]
    for line in lines:
        assert line["process"] == "probe"
        assert {"timestamp", "level"} <= line.keys()
    assert lines[0]["records"] == 3
    assert lines[1]["logger"] == "librdkafka"
