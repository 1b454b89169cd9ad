"""EventProducer on a real broker: what is sent arrives as it is, what is not delivered is said."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from deploy.embedded.jars import classpath
from deploy.embedded.kafka import Kafka
from deploy.embedded.member import running, stop
from deploy.embedded.ports import free_port
from millrace.client import AsyncEventProducer, DeliveryFailed, EventProducer, InvalidField
from millrace.errors import MillraceError
from millrace.events import build
from millrace.settings import KafkaSettings, StackSettings, StreamSettings
from millrace.stream.admin import apply_topics
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import INTERACTIONS, ITEMS, Topic
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import Item


def read(kafka: KafkaSettings, topic: Topic) -> list[Record]:
    records: list[Record] = []
    with TopicReader(kafka, [topic], "beginning", StreamSettings()) as reader:
        while not reader.caught_up:
            records += reader.poll()
    return records


def interactions(kafka: KafkaSettings, prefix: str) -> list[Interaction]:
    messages = (record.message for record in read(kafka, INTERACTIONS))
    return [m for m in messages if isinstance(m, Interaction) and m.user_id.startswith(prefix)]


def test_everything_arrives_as_it_was_sent(topics_applied: KafkaSettings) -> None:
    with EventProducer(topics_applied) as events:
        ids = [events.interaction(f"sync-{n % 7}", f"item-{n}", context={"device": "tv"}) for n in range(100)]
        forgotten = events.forget("sync-0")
        events.item("shoe", title="Shoe", tags=["red"], price=5)
        events.item("hat")
        events.remove_item("hat")
    arrived = interactions(topics_applied, "sync-")
    assert sorted(event.event_id for event in arrived) == sorted([*ids, forgotten])
    of_one = [event.event_id for event in arrived if event.user_id == "sync-3"]
    assert of_one == [event_id for n, event_id in enumerate(ids) if n % 7 == 3]
    items = read(topics_applied, ITEMS)
    assert [record.message for record in items if record.key == b"hat"] == [Item(item_id="hat"), None]
    assert [record.message for record in items if record.key == b"shoe"] == [
        Item(item_id="shoe", title="Shoe", tags=["red"], price=5)
    ]


async def test_asyncio_form_with_a_short_queue(topics_applied: KafkaSettings) -> None:
    """A full queue holds the caller back and not the event loop; nothing is lost."""
    async with AsyncEventProducer(topics_applied, queue_max=50) as events:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        task = asyncio.create_task(others())
        ids = [await events.interaction("async-1", f"item-{n}") for n in range(1000)]
        await events.item("sock")
        await events.remove_item("sock")
        await events.flush()
        task.cancel()
    assert [event.event_id for event in interactions(topics_applied, "async-1")] == ids
    assert turns > 1


def test_a_full_queue_holds_the_caller_back(topics_applied: KafkaSettings) -> None:
    with EventProducer(topics_applied, queue_max=20) as events:
        for n in range(500):
            events.interaction("full-1", f"item-{n}")
    assert len(interactions(topics_applied, "full-1")) == 500


def test_what_is_invalid_is_not_sent(topics_applied: KafkaSettings) -> None:
    with EventProducer(topics_applied) as events:
        for bad in (
            lambda: events.interaction("invalid-1", ""),
            lambda: events.interaction("invalid-1", "i", "rating"),
            lambda: events.interaction("invalid-1", "i", occurred_at=1_700_000_000),
            lambda: events.interaction("invalid-1", "i", occurred_at=9_000_000_000_000),
            lambda: events.item("invalid-1", price=float("nan")),
            lambda: events.remove_item(""),
        ):
            with pytest.raises(InvalidField):
                bad()
    assert interactions(topics_applied, "invalid-1") == []
    with pytest.raises(MillraceError, match="closed"):
        events.interaction("invalid-1", "i")


def test_the_broker_answers_for_each_event(topics_applied: KafkaSettings) -> None:
    """In both forms, also for more than the queue holds: what it does not have is told, and why."""
    good = [build.interaction("told-1", f"item-{n}") for n in range(50)]
    wrong = build.interaction("told-1", "", event_id="wrong")
    early = build.interaction("told-1", "item", occurred_at=9_000_000_000_000)

    async def asynchronously() -> dict[int, MillraceError]:
        async with AsyncEventProducer(topics_applied, queue_max=20) as events:
            assert await events.deliver([]) == {}
            return await events.deliver([*good, wrong, build.item("told", price=1), early])

    with EventProducer(topics_applied, queue_max=20) as events:
        assert events.deliver([]) == {}
        problems = events.deliver([*good, wrong, build.item("told", price=1), early])
        # They stand on the log before anything is flushed.
        assert [one.item_id for one in interactions(topics_applied, "told-1")] == [one.item_id for one in good]
    for found in (problems, asyncio.run(asynchronously())):
        assert {place: type(problem) for place, problem in found.items()} == {50: InvalidField, 52: InvalidField}
    assert len(interactions(topics_applied, "told-1")) == 100


async def test_an_absent_broker_is_told_of_each_event() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    async with AsyncEventProducer(nowhere, delivery_timeout_s=0.3) as events:
        problems = await events.deliver([build.interaction("ann", "shoe"), build.interaction("ann", "hat")])
        assert [type(problems[place]) for place in (0, 1)] == [DeliveryFailed, DeliveryFailed]
        # A failure that was told is not raised again.
        await events.flush()


def test_an_absent_broker_surfaces(topics_applied: KafkaSettings) -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(DeliveryFailed, match=r"1 events did not reach the broker at 127\.0\.0\.1:1") as caught:  # noqa: SIM117
        with EventProducer(nowhere, delivery_timeout_s=0.5) as events:
            events.interaction("ann", "shoe", event_id="e")
    (lost,) = caught.value.undelivered
    assert isinstance(lost.event, Interaction)
    assert (lost.event.event_id, lost.key) == ("e", "ann")


def test_the_first_error_is_the_one_that_is_raised() -> None:
    """An error inside the block is not hidden by what could not be delivered; the latter is noted on it."""
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1")

    def fail() -> None:
        with EventProducer(nowhere, delivery_timeout_s=0.5) as events:
            events.interaction("ann", "shoe")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert any("did not reach the broker" in note for note in caught.value.__notes__)


def test_delivery_failures_of_a_stopped_broker_surface_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Each event is on the broker or named as undelivered, when the broker goes away in the middle."""
    stack = StackSettings()
    port = free_port()
    member = Kafka(
        folder=tmp_path,
        port=port,
        controller_port=free_port(taken=frozenset({port})),
        jars=classpath(stack.kafka_version),
        heap_mb=stack.kafka_heap_mb,
    )
    kafka = KafkaSettings(bootstrap_servers=member.address, partitions=3)
    # Short enough to wait for.
    events = EventProducer(kafka, delivery_timeout_s=5.0)
    with running(member) as process:
        apply_topics(kafka)
        # A new topic may take longer on a busy machine: it takes records before the one whose time is short sends some.
        with EventProducer(kafka) as first:
            first.interaction("nobody", "first")
            first.flush()
        sent = {events.interaction("u", f"before-{n}") for n in range(50)}
        events.flush()
        stop(process)
        late = {events.interaction("u", f"after-{n}") for n in range(50)}
        with pytest.raises(DeliveryFailed) as caught:
            events.flush()
    failed = {lost.event.event_id for lost in caught.value.undelivered if isinstance(lost.event, Interaction)}
    assert failed == late
    with running(member):
        assert Counter(event.event_id for event in interactions(kafka, "u")) == Counter(sent)
        _send_until_delivered(events, "again")
        events.close()
        assert "again" in {event.event_id for event in interactions(kafka, "u")}


def _send_until_delivered(events: EventProducer, event_id: str) -> None:
    """As a shop would do it: the same id again. The producer looks for its broker every five seconds or sooner."""
    for _ in range(20):
        try:
            events.interaction("u", "back", event_id=event_id)
            events.flush()
        except DeliveryFailed:
            continue
        return
    pytest.fail("the producer did not find the broker again")
