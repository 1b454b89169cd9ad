"""Learning: records a second of one joiner, slots a second of one learner, and how soon an outcome moves the answers.

The joiner reads answers of ten items and what shoppers do with them: four of the items come into view, half of the
answers are clicked. The learner reads outcomes of five slots. The limit of both is the bare consumer that reads the
same records. For the last figure outcomes come one by one while somebody asks all the time: from the broker's append
of an outcome to the first answer ranked with parameters that include it, both read from the topics afterwards.
"""

from __future__ import annotations

import bisect
import re
import time
from collections.abc import Iterator
from threading import Event, Thread

import grpc
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage
from google.protobuf.message import Message

from benchmarks import seed
from benchmarks.environment import ASK_TIMEOUT_S, START_TIMEOUT_S, Process, Say, Servers, process, servers
from benchmarks.report import Row, latency_row, rate_row
from benchmarks.workers import consume_rate, worker_rate
from deploy.embedded import scrape
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import consumer_config, producer_config
from millrace.stream.codec import encode
from millrace.topics import IMPRESSIONS, INTERACTIONS, MODEL_UPDATES, OUTCOMES, Topic
from millrace.v1.impression_pb2 import Impression, Slot
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome
from millrace.v1.recommendation_service_pb2 import RecommendRequest
from millrace.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

ANSWERS, SHOWN, VIEWED, CLICKED = 20_000, 10, 4, 0.5
# Between two answers of the whole shop: windows of half an hour close while the joiner is at work.
STEP_MS = 150
OUTCOMES_MADE, DECIDED = 20_000, 5
USERS, ITEMS = 5_000, 2_000
PROBING_S, PAUSE_MAX_S, ASK_S = 15.0, 0.05, 0.002
WARM_UP = "warm-up"
_LEARNED = re.compile(r"^millrace_learner_slots_total\{", re.MULTILINE)
_VIEW, _CLICK = InteractionType.INTERACTION_TYPE_VIEW, InteractionType.INTERACTION_TYPE_CLICK


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The rows of the joiner, of the learner, and from an outcome to an answer.

    Three sets of servers, one after the other: what the one leaves behind is not the other's work.
    """
    rows: list[Row] = []
    for part in (_joiner, _learner, _to_serving):
        with servers(say, bootstrap_servers, redis_url) as at:
            seed.promote_first_ranker(at.kafka)
            rows += part(say, at)
    return rows


def _joiner(say: Say, at: Servers) -> list[Row]:
    say(f"writing {ANSWERS:,} answers and what came of them")
    log = list(shop(ANSWERS))
    seed.publish_mixed(at.kafka, log)
    say("the limit: a bare consumer")
    limit = consume_rate(at.kafka, [IMPRESSIONS, INTERACTIONS], len(log))
    say("one outcome joiner")
    with process("workers.outcome_joiner", at) as joiner:
        rate = worker_rate(joiner, len(log))
    return [rate_row("outcome_joiner.records_per_s", rate, "records/s", limit, len(log))]


def _learner(say: Say, at: Servers) -> list[Row]:
    say(f"writing {OUTCOMES_MADE:,} outcomes")
    made = outcomes(OUTCOMES_MADE)
    seed.publish(at.kafka, OUTCOMES, ((outcome.user_id, outcome) for outcome in made))
    say("the limit: a bare consumer")
    limit = consume_rate(at.kafka, [OUTCOMES], OUTCOMES_MADE) * DECIDED
    say("one online learner")
    with process("workers.online_learner", at) as learner:
        rate = worker_rate(learner, OUTCOMES_MADE) * DECIDED
        seconds = scrape.buckets(scrape.samples(learner.announced["metrics"]), "millrace_learner_update_seconds")
    p50, p90, p99 = (1_000 * (scrape.quantile(share, seconds, {}) or 0.0) for share in (0.5, 0.9, 0.99))
    return [
        rate_row("online_learner.slots_per_s", rate, "slots/s", limit, OUTCOMES_MADE * DECIDED),
        Row(
            "online_learner.full_buffer_ms", p50, "ms", p50=p50, p90=p90, p99=p99, samples=round(seconds[float("inf")])
        ),
    ]


def _to_serving(say: Say, at: Servers) -> list[Row]:
    seed.publish_items(at.kafka, seed.item_states(ITEMS))
    say("starting learner and recommender")
    with process("workers.online_learner", at) as learner, process("services.recommender", at) as recommender:
        recommender.wait_ready()
        _warm_up(at.kafka, learner)
        stop = Event()
        asking = Thread(target=ask_on, args=(recommender.announced["grpc"], stop))
        asking.start()
        try:
            say("outcomes one by one")
            _send_outcomes(at.kafka)
            delays_ms = _all_delays_ms(at.kafka)
        finally:
            stop.set()
            asking.join()
    return [latency_row("learning.outcome_to_serving_ms", delays_ms)]


def _warm_up(kafka: KafkaSettings, learner: Process) -> None:
    """Return when the learner was elected and has learned a first outcome: that takes seconds, once."""
    first = next(outcomes(1, seed=7))
    first.user_id = WARM_UP
    seed.publish(kafka, OUTCOMES, [(first.user_id, first)])
    give_up = time.monotonic() + START_TIMEOUT_S
    while not _LEARNED.search(learner.metrics()):
        if time.monotonic() > give_up:
            raise RuntimeError(f"the learner took nothing in {START_TIMEOUT_S:g} s")
        # Its counters can only be asked for.
        time.sleep(0.1)


def ask_on(target: str, stop: Event) -> None:
    """Ask a recommender all the time."""
    with grpc.insecure_channel(target) as channel:
        stub = RecommendationServiceStub(channel)
        while not stop.wait(ASK_S):
            stub.Recommend(RecommendRequest(user_id="probe", k=1), timeout=ASK_TIMEOUT_S)


def _send_outcomes(kafka: KafkaSettings) -> None:
    random, producer = np.random.default_rng(5), Producer(producer_config(kafka), logger=logs.kafka_logger())
    until = time.monotonic() + PROBING_S
    for outcome in outcomes(1_000_000, seed=6):
        if time.monotonic() > until:
            break
        value, headers = encode(outcome)
        producer.produce(OUTCOMES.name, value, outcome.user_id.encode(), headers=[*headers])
        producer.flush(10)
        time.sleep(random.uniform(0, PAUSE_MAX_S))


class _NotYet(Exception):
    """An outcome is on its way to the answers."""


def _all_delays_ms(kafka: KafkaSettings) -> list[float]:
    """``_delays_ms``, once the last outcomes are learned and asked for too."""
    give_up = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return _delays_ms(kafka)
        except _NotYet as missing:
            if time.monotonic() > give_up:
                raise RuntimeError(f"{missing} within {START_TIMEOUT_S:g} s") from missing
            # The topics tell, and can only be asked.
            time.sleep(0.5)


def _delays_ms(kafka: KafkaSettings) -> list[float]:
    """From the append of each outcome to the first answer that includes it.

    Raises
    ------
    _NotYet
        There is no such answer of one of them.
    """
    learned: list[tuple[tuple[int, int], dict[int, int]]] = []
    for message in read(kafka, MODEL_UPDATES):
        record = ModelUpdate.FromString(message.value() or b"")
        if record.HasField("update"):
            update = record.update
            newest = {position.partition: position.offset for position in update.learned}
            learned.append(((update.epoch, update.sequence), newest))
    answers = sorted(
        (one.learner_epoch, one.learner_sequence, one.served_at_ms)
        for one in (Impression.FromString(message.value() or b"") for message in read(kafka, IMPRESSIONS))
    )
    delays = []
    for message in read(kafka, OUTCOMES):
        if message.key() == WARM_UP.encode():
            continue
        partition, offset = message.partition(), message.offset()
        line = next((line for line, newest in learned if newest.get(partition or 0, -1) >= (offset or 0)), None)
        if line is None:
            raise _NotYet("an outcome was not learned")
        place = bisect.bisect_left(answers, (*line, 0))
        if place == len(answers):
            raise _NotYet("parameters were not served")
        delays.append(float(answers[place][2] - message.timestamp()[1]))
    return delays


def read(kafka: KafkaSettings, topic: Topic) -> list[KafkaMessage]:
    """Every message that a topic has now. Others may come meanwhile: such a topic has no end that a reader reaches."""
    consumer = Consumer(consumer_config(kafka, "bench") | {"enable.partition.eof": True}, logger=logs.kafka_logger())
    partitions = [TopicPartition(topic.name, number, 0) for number in range(topic.partitions(kafka))]
    ends = {one.partition: consumer.get_watermark_offsets(one, timeout=START_TIMEOUT_S)[1] for one in partitions}
    consumer.assign(partitions)
    messages, open_ones = [], set(ends)
    while open_ones:
        for message in consumer.consume(1_000, 1.0):
            number = message.partition() or 0
            # The last offset may be a marker of a transaction: then the end is told, or a later message comes.
            if message.error() is not None or (message.offset() or 0) >= ends[number] - 1:
                open_ones.discard(number)
            if message.error() is None:
                messages.append(message)
    consumer.close()
    return messages


def shop(answers: int, seed: int = 4) -> Iterator[tuple[Topic, str, Message]]:
    """Answers up to now and what shoppers did with each: topic, key, message."""
    random = np.random.default_rng(seed)
    began_ms = int(time.time() * 1_000) - answers * STEP_MS
    features = random.normal(size=(100, SHOWN, len(FEATURE_NAMES))).astype(np.float32).tolist()
    for number in range(answers):
        user, at_ms = f"shopper-{random.integers(USERS)}", began_ms + number * STEP_MS
        items = [f"item-{item}" for item in random.choice(ITEMS, SHOWN, replace=False).tolist()]
        slots = [
            Slot(item_id=item, rank=rank, score=0.05, features=row)
            for rank, (item, row) in enumerate(zip(items, features[number % 100], strict=True))
        ]
        request_id = f"answer-{number:09d}"
        yield (
            IMPRESSIONS,
            user,
            Impression(
                request_id=request_id,
                user_id=user,
                served_at_ms=at_ms,
                model_name="ranker",
                model_version="1",
                propensity=1.0,
                feature_schema=FEATURE_SCHEMA,
                viewport=SHOWN,
                slots=slots,
            ),
        )
        done = [(_VIEW, item) for item in items[:VIEWED]]
        if random.random() < CLICKED:
            done.append((_CLICK, items[int(random.integers(VIEWED))]))
        for place, (kind, item) in enumerate(done):
            yield (
                INTERACTIONS,
                user,
                Interaction(
                    event_id=f"bench-{number:09d}-{place}",
                    user_id=user,
                    item_id=item,
                    type=kind,
                    occurred_at_ms=at_ms + 1 + place,
                    request_id=request_id,
                ),
            )


def outcomes(count: int, seed: int = 5) -> Iterator[Outcome]:
    """Outcomes of five slots with random features and labels."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(100, DECIDED, len(FEATURE_NAMES))).astype(np.float32).tolist()
    for number in range(count):
        request_id = f"outcome-{seed}-{number:09d}"
        labels = (random.random(DECIDED) < 0.1).tolist()
        yield Outcome(
            request_id=request_id,
            user_id=f"shopper-{random.integers(USERS)}",
            origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
            first=True,
            final=True,
            impression=Impression(request_id=request_id, feature_schema=FEATURE_SCHEMA, model_name="ranker"),
            slots=[
                DecidedSlot(
                    slot=Slot(item_id=f"item-{rank}", rank=rank, score=0.05, features=row),
                    label=Label.LABEL_POSITIVE if positive else Label.LABEL_NEGATIVE,
                )
                for rank, (row, positive) in enumerate(zip(features[number % 100], labels, strict=True))
            ],
        )
