"""The joiner killed with -9 again and again: every slot is decided once, as a ledger of everything sent says."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Producer
from google.protobuf.message import Message

from benchmarks.reliability_document import JOINER_DIES
from millrace.settings import HOUR_MS, MINUTE_MS, KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.codec import encode
from millrace.topics import IMPRESSIONS, INTERACTIONS, OUTCOMES
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.outcome_pb2 import Outcome
from tests.chaos.fault_points import JOINER, NTH, POINT
from tests.chaos.forking import Forking
from tests.chaos.impatient import impatient_kafka
from tests.chaos.results import Found, report, times
from tests.contracts import by_any_release
from tests.outcome_support import T0, act, check_frames, impression, labels
from tests.stream_support import committed, headers_of, read_all, send

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


@dataclass
class Shown:
    """What the ledger knows of an answer."""

    items: list[str]
    viewport: int
    clicked: set[str] = field(default_factory=set)
    disliked: set[str] = field(default_factory=set)
    viewed: set[str] = field(default_factory=set)

    def label(self, item: str) -> str:
        if item in self.clicked:
            return "positive"
        if item in self.disliked:
            return "negative"
        place = self.items.index(item)
        lowest = max((self.items.index(clicked) for clicked in self.clicked), default=-1)
        read = bool(self.viewed or self.clicked)
        seen = item in self.viewed or place < lowest if read else place < self.viewport
        return "negative" if seen else "unseen"


class Ledger:
    """Makes answers and what users do with them, and knows what has to come of it."""

    def __init__(self, seed: int) -> None:
        self.shown: dict[str, Shown] = {}
        self.misplaced: set[str] = set()
        self._chance = random.Random(seed)

    def lot(self, number: int) -> list[tuple[Impression | Interaction, str]]:
        """Records of one life with their topics, some of them twice, a click now and then before its answer."""
        chance, records = self._chance, list[tuple[Impression | Interaction, str]]()
        for place in range(ANSWERS_PER_LIFE):
            request_id, user = f"r{number}-{place}", f"user {chance.randrange(40)}"
            items = [f"item-{item}" for item in chance.sample(range(100), 8)]
            at_ms = T0 + chance.randrange(10 * MINUTE_MS)
            shown = self.shown[request_id] = Shown(items, viewport=3)
            made = impression(request_id, user, items, at_ms, viewport=3)
            own: list[tuple[Impression | Interaction, str]] = [(made, IMPRESSIONS.name)]
            for kind, item in zip(chance.choices(("view", "click", "dislike"), (6, 3, 1), k=4), items, strict=False):
                # A slot is either clicked or disliked: which came first is a matter of the order.
                {"view": shown.viewed, "click": shown.clicked, "dislike": shown.disliked}[kind].add(item)
                event = act(user, item, kind, at_ms + 1, request_id, f"{request_id} {item}")  # type: ignore[arg-type]
                own.append((event, INTERACTIONS.name))
            if chance.random() < 0.1:
                wrong = act(user, "never shown", "click", at_ms + 1, request_id, f"{request_id} wrong")
                self.misplaced.add(wrong.event_id)
                own.append((wrong, INTERACTIONS.name))
            elif chance.random() < 0.1:
                own.append(chance.choice(own))
            if chance.random() < 0.1:
                chance.shuffle(own)
            records += own
        return records

    def expected(self) -> dict[tuple[str, str], str]:
        """Label of each slot."""
        return {
            (request_id, item): shown.label(item) for request_id, shown in self.shown.items() for item in shown.items
        }


def produce(producer: Producer, records: list[tuple[Impression | Interaction, str]], chance: random.Random) -> None:
    """Send records in small pieces, so that they come during the life of a worker; who sends is of several releases."""
    for start in range(0, len(records), 20):
        for message, topic in records[start : start + 20]:
            value, (_, headers) = by_any_release(message, chance), encode(message)
            producer.produce(topic, value, message.user_id.encode(), headers=headers)  # type: ignore[arg-type]
        assert producer.flush(20) == 0


def values(kafka: KafkaSettings, topic: str, kind: type[Message]) -> list[Message]:
    """Every committed message of a topic."""
    found = []
    for message in read_all(kafka, topic):
        value = message.value()
        assert isinstance(value, bytes)
        found.append(kind.FromString(value))
    return found


def test_killed_again_and_again_every_slot_is_decided_once(kafka: KafkaSettings, tmp_path: Path) -> None:
    chance, ledger = random.Random(SEED), Ledger(SEED)
    env: Mapping[str, str] = ENV | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_PARTITIONS": str(kafka.partitions),
    }
    with Forking(tmp_path, "tests.chaos.fault_points:outcome_joiner", env) as forking:
        kill(kafka, forking, ledger, chance)
        check(kafka, forking, ledger)


def kill(kafka: KafkaSettings, forking: Forking, ledger: Ledger, chance: random.Random) -> None:
    """Joiners live and die, while users are answered and act."""
    producer = Producer(producer_config(kafka), logger=logs.kafka_logger())
    commits_seen, numbers = 0, count()
    lives = [*OF_EACH_POINT * list(JOINER), *[""] * KILLS]
    chance.shuffle(lives)

    def users_act() -> None:
        number = next(numbers)
        produce(producer, ledger.lot(number), random.Random(number))

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


def check(kafka: KafkaSettings, forking: Forking, ledger: Ledger) -> None:
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
    times_decided = Counter((outcome.request_id, one.slot.item_id) for outcome in written for one in outcome.slots)
    found = Found(events=sum(len(read_all(kafka, topic.name)) for topic in (IMPRESSIONS, INTERACTIONS)))
    for slot in expected.keys() | times_decided.keys():
        found.compare(slot in expected, times_decided[slot])
    report(JOINER_DIES, KILLS + OF_EACH_POINT * len(JOINER), found)
    check_frames(written)
    assert labels(written) == expected
    dead = [
        (one.event_id, headers_of(message).get("dlq.field"))
        for message, one in zip(
            read_all(kafka, INTERACTIONS.dlq), values(kafka, INTERACTIONS.dlq, Interaction), strict=True
        )
        if isinstance(one, Interaction)
    ]
    assert sorted(dead) == sorted((event_id, b"item_id") for event_id in ledger.misplaced)
    assert not read_all(kafka, IMPRESSIONS.dlq)
