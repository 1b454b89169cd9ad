"""The drift detector on a real broker: what it says, what survives kill -9, and whom it does not watch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from benchmarks.seed import publish
from millrace.drift.correction import Dial
from millrace.drift.storing import REFERENCE_FILE
from millrace.drift.watch import Watch
from millrace.ranking.first import first_ranker
from millrace.registry.cache import default_directory
from millrace.settings import HOUR_MS, MINUTE_MS, KafkaSettings, StreamSettings
from millrace.stream.codec import encode
from millrace.topics import DRIFT_SIGNALS, MODEL_EVENTS, OUTCOMES
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import Child, StartProcess
from tests.drift_support import RATE, T0, reference, served
from tests.stream_support import get, read_all, send
from workers.drift_detector.stored import Stored, read_stored
from workers.drift_detector.taking import Taking

MODEL = "watched"
WINDOW_MS = 5 * MINUTE_MS


class World:
    """A champion on this machine's disk, and what the detector wrote."""

    def __init__(self, kafka: KafkaSettings, env: Mapping[str, str]) -> None:
        self.kafka = kafka
        self.env = {
            **env,
            "DRIFT_MODEL_NAME": MODEL,
            "DRIFT_SAMPLE": "1",
            "DRIFT_COMMIT_INTERVAL_MS": "200",
            "DRIFT_CHECK_INTERVAL_MS": "3000",
            "DRIFT_FALSE_ALARMS_PER_DAY": "0.05",
            "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": str(WINDOW_MS),
        }

    def promote(self, version: str, with_reference: bool = True) -> None:
        folder = default_directory(MODEL) / version
        first_ranker().save(folder)
        if with_reference:
            (folder / REFERENCE_FILE).write_bytes(reference().to_bytes())
        event = ModelEvent(event_id=f"promoted-{version}", model_name=MODEL, model_version=version)
        event.type = ModelEventType.MODEL_EVENT_TYPE_PROMOTED
        publish(self.kafka, MODEL_EVENTS, [(MODEL, event)])

    def send(self, outcomes: Sequence[Outcome]) -> None:
        send(self.kafka, OUTCOMES, [(outcome.user_id, *encode(outcome)) for outcome in outcomes])

    def stored(self) -> Stored:
        return read_stored(self.kafka, StreamSettings(), MODEL)

    def included(self) -> int:
        rest = self.stored().rest
        return sum(one.offset + 1 for one in rest.included) if rest is not None else 0

    def signals(self) -> list[DriftSignal]:
        return [DriftSignal.FromString(message.value() or b"") for message in read_all(self.kafka, DRIFT_SIGNALS.name)]


@pytest.fixture(scope="module")
def world(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], millrace_home: Path) -> World:
    return World(topics_applied, kafka_env)


def watching(child: Child) -> bool:
    return f'millrace_drift_watching{{model="{MODEL}"}} 1.0' in get(child, "drift_detector", "/metrics")[1]


def includes(world: World, outcomes: int) -> bool:
    return world.included() == outcomes


def test_it_says_what_changed_and_goes_on_after_every_kill(world: World, process: StartProcess) -> None:
    world.promote("1", with_reference=False)
    child = process("workers.drift_detector", env=world.env)
    child.until(lambda: "the champion is not watched" in child.output())
    assert "version 1 has no reference" in child.output()
    world.promote("2")
    child.until(lambda: watching(child))

    usual = list(served(400, T0 + 1, 26, seed=1))
    strange = list(served(5, T0, 1, seed=2, version="1"))
    broken = list(served(1, T0, 1, seed=3))
    broken[0].request_id = ""
    changed = list(served(600, T0 + 27 * HOUR_MS, 26, seed=4, rate=RATE / 4, shift=2.0))
    parts = [usual + strange, changed[:300] + broken, changed[300:]]
    sent = 0
    for part in parts:
        world.send(part)
        sent += len(part)
        child.until(partial(includes, world, sent))
        if part is not parts[-1]:
            child.kill()
            child = process("workers.drift_detector", env=world.env)

    # What it counted is what it would be without a kill.
    expected = Watch(reference(), Dial(0.05, looks_per_day=1.0), WINDOW_MS + 5 * MINUTE_MS)
    taking = Taking(expected, 1.0)
    for outcome in usual + changed:
        taking.take(outcome)
    taking.count()
    expected.settle()
    expected.forget()
    rest = world.stored().rest
    assert rest is not None
    found, wanted = json.loads(rest.labels), json.loads(json.dumps(expected.state()))
    assert found == wanted
    assert set(world.stored().hours) == set(expected.hours)
    assert sum(one.channel == DriftChannel.DRIFT_CHANNEL_PERFORMANCE for one in rest.holding) >= 1

    child.until(lambda: any(one.channel == DriftChannel.DRIFT_CHANNEL_INPUT for one in world.signals()))
    said = world.signals()
    by_channel = {channel: [one for one in said if one.channel == channel] for channel in DriftChannel.values()}
    moved = by_channel[DriftChannel.DRIFT_CHANNEL_INPUT]
    assert {one.evidence[0].name for one in moved} == {"covisit"}
    assert len({one.signal_id for one in moved}) == 1
    clicks = [
        one for one in by_channel[DriftChannel.DRIFT_CHANNEL_PERFORMANCE] if one.evidence[0].name == "click_through"
    ]
    assert min(one.first_at_ms for one in clicks) >= T0 + 27 * HOUR_MS
    assert all(one.evidence[0].effect_size < -0.3 for one in clicks)
    assert not by_channel[DriftChannel.DRIFT_CHANNEL_PREDICTION]

    # Another champion: everything begins anew, and what held of the one before is over with it.
    world.promote("3", with_reference=False)
    child.until(lambda: not watching(child))
    child.until(lambda: not world.stored().hours)
    assert child.terminate() == 0, child.output()
