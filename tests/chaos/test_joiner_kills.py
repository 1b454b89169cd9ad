"""The joiner killed with -9 again and again: every slot is decided once, as a ledger of everything sent says."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Producer

from benchmarks.reliability_document import JOINER_DIES
from millrace.settings import HOUR_MS, KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.topics import IMPRESSIONS, INTERACTIONS, OUTCOMES
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.outcome_pb2 import Outcome
from tests.chaos.answers import AnswerLedger, values
from tests.chaos.fault_points import JOINER, NTH, POINT
from tests.chaos.forking import Forking
from tests.chaos.impatient import impatient_kafka
from tests.chaos.results import report, times
from tests.contracts import by_any_release
from tests.outcome_support import T0
from tests.stream_support import committed, read_all, send

SEED = 20_261_124
# So many kills at random moments, and some at each fault point.
KILLS, OF_EACH_POINT = 14 * times(), 2 * times()
ANSWERS_PER_LIFE = 150
# A worker is killed at some moment of this time after it has its partitions: it commits ten times a second.
LIFE_S = 0.6
# Where it dies at a point, there are several transactions to a lot; a stall may cost some lots.
LOTS_MAX = 100
OFTEN = {"MILLRACE_JOINER_COMMIT_INTERVAL_MS": "10"}
ENV = {
    "MILLRACE_JOINER_TRANSACTION_TIMEOUT_MS": "1500",
    "MILLRACE_JOINER_ORGANIC_RATE": "0",
    # The ledger does not know in which order the two topics are read; so nothing may depend on it.
    "MILLRACE_JOINER_GRACE_MS": str(HOUR_MS),
}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[KafkaSettings]:
    with impatient_kafka(tmp_path_factory.mktemp("kafka"), kafka_jars) as kafka:
        yield kafka


def produce(producer: Producer, records: list[tuple[Impression | Interaction, str]], chance: random.Random) -> None:
    """Send records in small pieces, so that they come during the life of a worker; who sends is of several releases."""
    for start in range(0, len(records), 20):
        for message, topic in records[start : start + 20]:
            value, (_, headers) = by_any_release(message, chance), encode(message)
            producer.produce(topic, value, message.user_id.encode(), headers=headers)  # type: ignore[arg-type]
        assert producer.flush(20) == 0


def test_killed_again_and_again_every_slot_is_decided_once(kafka: KafkaSettings, tmp_path: Path) -> None:
    chance, ledger = random.Random(SEED), AnswerLedger(SEED)
    env: Mapping[str, str] = ENV | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_PARTITIONS": str(kafka.partitions),
    }
    with Forking(tmp_path, "tests.chaos.fault_points:outcome_joiner", env) as forking:
        kill(kafka, forking, ledger, chance)
        check(kafka, forking, ledger)


def kill(kafka: KafkaSettings, forking: Forking, ledger: AnswerLedger, chance: random.Random) -> None:
    """Joiners live and die, while users are answered and act."""
    producer = Producer(producer_config(kafka), logger=logs.kafka_logger())
    commits_seen, numbers = 0, count()
    lives = [*OF_EACH_POINT * list(JOINER), *[""] * KILLS]
    chance.shuffle(lives)

    def users_act() -> None:
        number = next(numbers)
        produce(producer, ledger.lot(number, ANSWERS_PER_LIFE), random.Random(number))

    for life, point in enumerate(lives):
        before = committed(kafka, "outcome_joiner", INTERACTIONS)
        worker = forking.start(OFTEN | {POINT: point, NTH: str(chance.randint(1, 3))} if point else {})
        worker.until(lambda worker=worker: "reads from" in worker.output())  # type: ignore[misc]
        if point:
            for _ in range(LOTS_MAX):
                if not worker.alive:
                    break
                users_act()
            else:
                pytest.fail(f"{point}: not reached")
        else:
            producing = threading.Thread(target=users_act)
            producing.start()
            if life % 4:
                # Three of four die some time after a commit, the others perhaps before their first one.
                worker.until(
                    lambda before=before: committed(kafka, "outcome_joiner", INTERACTIONS) != before  # type: ignore[misc]
                )
            time.sleep(chance.uniform(0, LIFE_S))
            worker.kill()
            producing.join()
        commits_seen += committed(kafka, "outcome_joiner", INTERACTIONS) != before
    assert commits_seen >= len(lives) // 2


def check(kafka: KafkaSettings, forking: Forking, ledger: AnswerLedger) -> None:
    """A last joiner decides what is left: what stands on the topics is what the ledger says."""
    # Hours later something happens in every partition: all windows close.
    for partition in range(kafka.partitions):
        last = Interaction(
            event_id=f"last {partition}",
            user_id="last",
            item_id="item",
            type=InteractionType.INTERACTION_TYPE_CLICK,
            occurred_at_ms=T0 + 2 * HOUR_MS,
        )
        send(kafka, INTERACTIONS, [("last", *encode(last))], partition)
    expected = ledger.expected()
    worker = forking.start({})

    def outcomes() -> list[Outcome]:
        return [one for one in values(kafka, OUTCOMES.name, Outcome) if isinstance(one, Outcome)]

    worker.until(lambda: sum(len(outcome.slots) for outcome in outcomes()) >= len(expected), interval_s=0.5)
    worker.terminate()

    written = outcomes()
    events = sum(len(read_all(kafka, topic.name)) for topic in (IMPRESSIONS, INTERACTIONS))
    report(JOINER_DIES, KILLS + OF_EACH_POINT * len(JOINER), ledger.found(events, written))
    ledger.assert_equals(kafka, written)
