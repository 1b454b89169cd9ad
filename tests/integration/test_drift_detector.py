"""The drift detector on a real broker: what it says, what survives kill -9, and whom it does not watch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.seed import publish
from millrace.cli.drift import command as drift
from millrace.drift.correction import Dial
from millrace.drift.storing import REFERENCE_FILE
from millrace.drift.watch import Watch
from millrace.ranking.features import FEATURE_NAMES
from millrace.ranking.first import first_ranker
from millrace.registry.cache import default_directory
from millrace.settings import HOUR_MS, MINUTE_MS, KafkaSettings, StreamSettings, settings
from millrace.stream.codec import encode
from millrace.topics import DRIFT_SIGNALS, MODEL_EVENTS, OUTCOMES
from millrace.v1.drift_pb2 import DriftChannel, DriftSignal
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import Child, StartProcess
from tests.drift_support import RATE, T0, reference, served
from tests.processes import PATIENCE_S
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

    def cli(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "millrace"), "drift", *arguments]
        done = subprocess.run(
            command, env=os.environ | self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
        return str(done.stdout)

    def status(self) -> Any:
        """What `millrace drift status --json` says, read in this process: it starts in a second."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.env.items():
                patch.setenv(name, value)
            settings.cache_clear()
            done = CliRunner().invoke(drift, ["status", "--json"], catch_exceptions=False)
            settings.cache_clear()
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def signals(self) -> list[DriftSignal]:
        return [DriftSignal.FromString(message.value() or b"") for message in read_all(self.kafka, DRIFT_SIGNALS.name)]


@pytest.fixture(scope="module")
def world(topics_applied: KafkaSettings, kafka_env: Mapping[str, str], millrace_home: Path) -> World:
    return World(topics_applied, kafka_env)


def watching(child: Child) -> bool:
    return f'millrace_drift_watching{{model="{MODEL}"}} 1.0' in get(child, "drift_detector", "/metrics")[1]


def looked_at(status: Any) -> int:
    """Values in the newest look at the first feature."""
    return sum(status["look"]["findings"][0]["after"]["counts"]) if status["look"] is not None else 0


def includes(world: World, outcomes: int) -> bool:
    return world.included() == outcomes


def test_it_says_what_changed_and_goes_on_after_every_kill(world: World, process: StartProcess) -> None:
    world.promote("1", with_reference=False)
    child = process("workers.drift_detector", env=world.env)
    child.until(lambda: "the champion is not watched" in child.output())
    assert "version 1 has no reference" in child.output()
    child.until(lambda: world.status()["version"] == "1")
    assert world.status()["problem"].startswith("version 1 has no reference")
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

    # What people are told, once it has looked at all of it.
    child.until(lambda: looked_at(world.status()) == pytest.approx(5 * 600 * 24 / 26, abs=5), interval_s=0.5)
    status = world.status()
    assert (status["version"], status["watched"], status["problem"], status["hours"]) == ("2", True, None, 24)
    first, *others = status["look"]["findings"]
    assert (first["name"], first["alarm"]) == ("covisit", True)
    assert first["effect_size"] > first["effect_min"] > others[0]["effect_size"]
    assert first["model_weight"] == dict(zip(FEATURE_NAMES, first_ranker().weights.tolist(), strict=False))["covisit"]
    assert len(status["look"]["findings"]) == 2 * (len(FEATURE_NAMES) + 1)
    assert [(one["name"], one["segment"]) for one in status["measures"]][2:] == [
        ("log_loss", None),
        ("click_through", "new"),
    ]
    assert {one["channel"] for one in status["signals"] if one["holds"]} >= {"input", "performance"}
    said_to_people = world.cli("status")
    assert "version 2 of model 'watched' is watched, outcomes served up to 2023-11-" in said_to_people
    assert "features moved: covisit, since 2023-11-" in said_to_people
    assert "labels changed: click_through by -" in said_to_people
    assert f"1 of {len(status['look']['findings'])} tests alarm" in said_to_people
    assert "✗\tcovisit\tkolmogorov-smirnov\t██████████│██████████\t" in said_to_people

    # Another champion: everything begins anew, and what held of the one before is over with it.
    world.promote("3", with_reference=False)
    child.until(lambda: not watching(child))
    child.until(lambda: not world.stored().hours)
    child.until(lambda: world.status()["version"] == "3")
    status = world.status()
    assert (status["watched"], status["look"], status["measures"]) == (False, None, [])
    assert {one["holds"] for one in status["signals"]} == {False}
    nobody = world.cli("status", "--model", "nobody")
    assert "model 'nobody' is not watched: the drift detector has written nothing of this model yet" in nobody
    assert child.terminate() == 0, child.output()
