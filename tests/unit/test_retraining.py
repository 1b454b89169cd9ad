"""When a version is trained, how far that is, and that whoever is killed on the way changes nothing of it."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from millrace.errors import InvalidField
from millrace.experiments.life import obey, target
from millrace.registry.asking import cancel_retrain, retrain
from millrace.registry.controller import Controller
from millrace.registry.gates import GATES_TAG, PASSED
from millrace.registry.ledger import Ledger, fold
from millrace.registry.reconcile import decide
from millrace.registry.retraining import PROMOTED, REJECTED, SHADOWS, Retraining, State
from millrace.registry.retraining_as_json import status_as_dict
from millrace.registry.steps import RetrainingStep, event_of
from millrace.registry.triggers import look, may_train, next_by_schedule_ms
from millrace.registry.view import RegisteredVersion, RegistryView
from millrace.settings import HOUR_MS, MINUTE_MS, RetrainSettings
from millrace.v1.command_pb2 import Command
from millrace.v1.common_pb2 import Position
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from millrace.v1.experiment_pb2 import DecisionKind, Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from tests.processes import PATIENCE_S
from tests.registry_support import MODEL, Effects, MemoryJournal, MemoryRegistry
from workers.retrain_orchestrator.contest import Surroundings
from workers.retrain_orchestrator.retrainer import Retrainer

NOW = 1_800_000_000_000
SETTINGS = RetrainSettings()
# A job is a process: on a busy machine the interpreter alone takes a second to begin.
DEADLINE_S = 60.0


def event(kind: str, number: int, **fields: object) -> ModelEvent:
    made = ModelEvent(event_id=f"{kind} {number}", model_name=MODEL, at_ms=NOW, **fields)  # type: ignore[arg-type]
    made.type = ModelEventType.Value(f"MODEL_EVENT_TYPE_{kind}")
    return made


def champion() -> Ledger:
    """Version 1 serves."""
    return fold(MODEL, [event("REGISTERED", 1, model_version="1"), event("PROMOTED", 1, model_version="1")])


def drift(channel: str = "PERFORMANCE", held_ms: int = HOUR_MS, version: str = "1", weight: float = 0.0) -> DriftSignal:
    return DriftSignal(
        signal_id=f"{channel} signal",
        model_name=MODEL,
        model_version=version,
        channel=DriftChannel.Value(f"DRIFT_CHANNEL_{channel}"),
        first_at_ms=NOW - held_ms,
        at_ms=NOW,
        holds=True,
        evidence=[DriftEvidence(name="item_age", model_weight=weight)],
    )


def started(ledger: Ledger, number: int, signal_id: str = "") -> str:
    """A retraining begins; its id."""
    begun = event("RETRAINING_STARTED", number, signal_id=signal_id)
    begun.retraining_id = begun.event_id
    ledger.apply(begun)
    return begun.event_id


def ended(ledger: Ledger, number: int, retraining_id: str) -> None:
    ledger.apply(event("RETRAINING_ENDED", number, retraining_id=retraining_id))


def test_labels_that_drift_start_one_after_a_while() -> None:
    ledger = champion()
    early = look(ledger, [drift(held_ms=MINUTE_MS)], SETTINGS, NOW)
    assert early.event is None
    assert early.waits[0] == "drift (performance: item_age): it has to hold for 10 min, and has for 1 min"
    found = look(ledger, [drift()], SETTINGS, NOW).event
    assert found is not None
    assert (found.signal_id, found.reason) == ("PERFORMANCE signal", "drift: performance: item_age")
    ledger.apply(found)
    present = ledger.retrainings.under_way
    assert present is not None
    assert (present.state, present.retraining_id) == (State.COLLECTING, found.event_id)
    # The changed world is to be learned: it is waited for, and not if somebody asks.
    assert not may_train(present, SETTINGS, NOW + SETTINGS.collect_ms - 1)
    assert may_train(present, SETTINGS, NOW + SETTINGS.collect_ms)
    assert may_train(replace(present, signal_id=""), SETTINGS, NOW)
    assert look(ledger, [drift()], SETTINGS, NOW).event is None
    assert look(champion(), [drift(version="0")], SETTINGS, NOW).event is None, "of a version that serves no more"


@pytest.mark.parametrize(
    ("channel", "weight", "why"),
    [
        ("INPUT", 0.0, "the model uses none of these features"),
        ("INPUT", 0.3, "the model uses 1 of these features; labels say whether it does harm"),
        ("PREDICTION", 0.0, "scores alone start no retraining; labels say whether it does harm"),
    ],
)
def test_inputs_and_scores_start_none_and_are_answered_once(channel: str, weight: float, why: str) -> None:
    ledger, signal = champion(), drift(channel, weight=weight)
    found = look(ledger, [signal], SETTINGS, NOW).event
    assert found is not None
    assert found.type == ModelEventType.MODEL_EVENT_TYPE_SIGNAL_DECLINED
    assert found.reason == f"{channel.lower()}: item_age: {why}"
    ledger.apply(found)
    assert look(ledger, [signal], SETTINGS, NOW).event is None
    said = status_as_dict(ledger, [signal], (), SETTINGS, NOW)
    assert (said["state"], said["count"]) == ("idle", 0)
    assert [one["reason"] for one in said["declined"]] == [found.reason]  # type: ignore[attr-defined]


def test_after_one_there_is_a_cool_down_and_after_three_in_vain_drift_starts_none() -> None:
    ledger, later = champion(), NOW + SETTINGS.cool_down_ms
    for number in range(SETTINGS.in_vain_max):
        assert look(ledger, [drift()], SETTINGS, later).event is not None
        retraining_id = started(ledger, number, "PERFORMANCE signal")
        assert "a retraining is under way already: collecting" in look(ledger, [drift()], SETTINGS, later).waits[0]
        ended(ledger, number, retraining_id)
        assert "cool-down for another 6 h" in look(ledger, [drift()], SETTINGS, NOW).waits[0]
    guarded = look(ledger, [drift()], SETTINGS, later)
    assert guarded.event is None
    assert guarded.waits[0].endswith("the next one is for the schedule, or for somebody to start")
    ended(ledger, 9, started(ledger, 9))  # somebody asked
    assert look(ledger, [drift()], SETTINGS, later).event is not None


def test_it_is_time_a_week_after_the_last_one_began() -> None:
    ledger, week = champion(), 168 * HOUR_MS
    assert next_by_schedule_ms(ledger, SETTINGS) == NOW + week
    assert look(ledger, [], SETTINGS, NOW + week - HOUR_MS).waits == ["schedule: in 60 min"]
    found = look(ledger, [], SETTINGS, NOW + week).event
    assert found is not None
    assert (found.reason, found.signal_id) == ("168 hours have gone by since the last one", "")
    ledger.apply(found)
    assert look(ledger, [], SETTINGS, NOW + 3 * week).event is None, "there is one already"
    assert look(champion(), [], RetrainSettings(interval_hours=0), NOW + 9 * week).event is None
    assert look(Ledger(MODEL), [], SETTINGS, NOW + week).event is None, "there is no version yet"


def test_one_at_a_time_and_a_command_counts_once() -> None:
    ledger, first, second = champion(), retrain(MODEL, "me", "new shop"), retrain(MODEL, "you", "")
    begun = decide(ledger, first, NOW)
    ledger.apply(begun)
    assert decide(ledger, first, NOW).event_id == begun.event_id
    assert begun.retraining_id == begun.event_id
    refused = decide(ledger, second, NOW)
    assert refused.type == ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED
    assert refused.reason == "a retraining is under way already: collecting (new shop, asked by me)"
    ledger.apply(decide(ledger, cancel_retrain(MODEL, "me", "wrong shop"), NOW))
    newest = ledger.retrainings.newest
    assert newest is not None
    assert (newest.state, newest.note) == (State.FAILED, "cancelled: wrong shop, asked by me")
    again = decide(ledger, cancel_retrain(MODEL, "me", ""), NOW)
    assert again.reason == "no retraining is under way"
    assert decide(ledger, second, NOW).type == ModelEventType.MODEL_EVENT_TYPE_RETRAINING_STARTED


JOB_SAYS = json.dumps({"version": "2"})
UNKNOWN = {"refusal": "no log yet"}
KNOWN = {"answers": 5_000, "users": 1_000, "effect_low": -0.02, "effect_high": 0.1}
WORSE = {"answers": 5_000, "users": 1_000, "effect_low": -0.2, "effect_high": -0.1}
BETTER = {"better": True, "reason": "better: saves a lot", "figures": {"low": 0.01}}


class Killed(BaseException):
    """The process is gone: nothing catches it."""


class World:
    """What outlives an orchestrator: topics, the registry, the tracker."""

    def __init__(
        self,
        folder: Path,
        wins: bool = True,
        job: str = "",
        evidence: dict[str, Any] | None = None,
        compared: dict[str, Any] | None = None,
        experiments: Literal["auto", "on", "off"] = "auto",
        tracked: bool = True,
        shadow_status: int = 0,
    ) -> None:
        # The job leaves it behind.
        self._trained = folder / uuid.uuid4().hex
        self._job = job or f"import pathlib; pathlib.Path({str(self._trained)!r}).touch(); print({JOB_SAYS!r})"
        self.effects = Effects()
        self.journal = MemoryJournal(self.effects)
        self.registry = MemoryRegistry(self.effects)
        self.records: dict[str, Experiment] = {}
        self.sent: list[Command] = []
        self.starts = 0
        self._wins, self.tracked = wins, tracked
        self.settings = RetrainSettings(experiments=experiments, tracker_wait_ms=50)
        self._evidence, self._compared = evidence or UNKNOWN, compared or BETTER
        self._shadow_status = shadow_status

    def orchestrator(self) -> tuple[Controller, Retrainer]:
        """One that has just started."""
        self.starts += 1
        records = lambda: list(self.records.values())  # noqa: E731
        controller = Controller(MODEL, self.journal, self.registry, time.time, records, retraining=SETTINGS)
        ends = [Position(topic="outcomes", topic_id="t", partition=0, offset=7)]
        evidence = {"model_version": "2", "champion_version": "1", "at_ms": now_ms(), **self._evidence}
        retrainer = Retrainer(
            self.settings,
            controller,
            Surroundings(records, self._send, lambda: ends),
            tuple,
            train=("-c", self._job),
            measure=("-c", f"print({json.dumps(evidence)!r})"),
            shadow=("-c", f"import sys; print({json.dumps(self._compared)!r}); sys.exit({self._shadow_status})"),
        )
        return controller, retrainer

    def train(self) -> None:
        """The job that has run makes its version, once."""
        present = self.journal.topic.retrainings.under_way
        if present is not None and self._trained.exists() and len(self.registry.held.versions) == 1:
            made = RegisteredVersion("2", "r", "", present.retraining_id, "00ff", {GATES_TAG: PASSED})
            self.registry.held = RegistryView((*self.registry.held.versions, made), self.registry.held.aliases)

    def track(self) -> None:
        """The tracker obeys, if there is one; then the version has won, or somebody stops the experiment."""
        if not self.tracked:
            return
        for command in self.sent:
            try:
                changed = obey(command, self.records, {MODEL: self.journal.topic}, now_ms())
            except InvalidField:
                continue
            if changed is not None:
                self.records[target(command)] = changed
        self.sent.clear()
        for record in self.records.values():
            if record.state == ExperimentState.EXPERIMENT_STATE_RUNNING and self._challenges():
                record.state, record.stopped_at_ms = ExperimentState.EXPERIMENT_STATE_STOPPED, now_ms()
                if self._wins:
                    record.decision.kind, record.decision.arm = DecisionKind.DECISION_KIND_PROMOTE, "new"

    def _challenges(self) -> bool:
        present = self.journal.topic.retrainings.under_way
        return present is not None and present.state == State.CHALLENGER

    def _send(self, key: str, command: Command) -> None:
        self.effects.take(f"sent {command.WhichOneof('action')}")
        self.sent.append(command)
        assert key.startswith("retrain-2-")
        self.effects.take("have sent")


def run(world: World, command: Command, kills: Sequence[int] = ()) -> list[str]:
    """Everything until the retraining has ended; the process is killed ahead of these effects, counted from the first.

    Returns what was done.
    """
    taken = itertools.count()

    def before(_effect: str) -> None:
        if next(taken) in kills:
            raise Killed

    controller, retrainer = world.orchestrator()
    controller.reconcile()
    world.effects.done.clear()
    world.effects.before = before
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            controller.answer(command)
            controller.reconcile()
            retrainer.step()
        except Killed:
            end(retrainer)
            controller, retrainer = world.orchestrator()
        world.train()
        world.track()
        newest = world.journal.topic.retrainings.newest
        follows = world.registry.held.aliases == {"champion": world.journal.topic.champion}
        if newest is not None and not newest.is_open and follows:
            end(retrainer)
            return world.effects.done
        time.sleep(0.002)  # a job is a process, which can only be asked for
    raise AssertionError(f"it did not end: {world.effects.done}")


def end(retrainer: Retrainer) -> None:
    """What the end of its process does to the job."""
    while not retrainer.stand_by():
        time.sleep(0.002)


TRAINED = ["RETRAINING_STARTED ", "RETRAINING_TRAINS ", "REGISTERED 2"]
TRIED = [
    *("sent define_experiment", "have sent", "sent start_experiment", "have sent"),
    *("CHALLENGER 2", "PROMOTED 2", "champion 2"),
]
PROBED = ["sent define_experiment", "have sent"]
WON = [*TRAINED, *PROBED, "RETRAINING_SHADOWS 2", *TRIED]


def newest_of(world: World) -> Retraining:
    newest = world.journal.topic.retrainings.newest
    assert newest is not None
    return newest


def test_a_version_that_is_known_gets_a_tenth_of_the_users(tmp_path: Path) -> None:
    world = World(tmp_path, evidence=KNOWN)
    assert run(world, retrain(MODEL, "me", "")) == [*TRAINED, *PROBED, *TRIED]
    [record] = world.records.values()
    assert not record.gates[0].override_reason
    assert [(arm.model_version, arm.share) for arm in record.definition.arms] == [("", 0.5), ("2", 0.5)]
    assert record.definition.traffic == 0.2
    assert (newest_of(world).state, newest_of(world).version) == (State.PROMOTED, "2")


def test_one_of_which_too_little_is_known_gets_a_hundredth_after_the_shadow(tmp_path: Path) -> None:
    """And nobody overrides the gate: it bears that much."""
    world = World(tmp_path)
    assert run(world, retrain(MODEL, "me", "")) == WON
    [record] = world.records.values()
    assert (record.gates[0].reason, record.gates[0].override_reason) == ("no log yet", "")
    assert [(arm.model_version, round(arm.share, 6)) for arm in record.definition.arms] == [("", 0.95), ("2", 0.05)]
    assert record.definition.traffic == 0.2
    assert newest_of(world).champion == "1"
    assert [(start.partition, start.offset) for start in newest_of(world).starts] == [(0, 7)]


@pytest.mark.parametrize(
    ("evidence", "compared", "steps", "note"),
    [
        (WORSE, BETTER, [], "version 2 gets no traffic: it is surely worse, by -20.0% to -10.0% of the"),
        (UNKNOWN, {**BETTER, "better": False, "reason": "not better"}, ["RETRAINING_SHADOWS 2"], "in the shadow of"),
    ],
)
@pytest.mark.parametrize("experiments", ["on", "off"])
def test_one_that_is_surely_worse_is_shown_to_nobody(
    evidence: dict[str, Any],
    compared: dict[str, Any],
    steps: list[str],
    note: str,
    experiments: Literal["on", "off"],
    tmp_path: Path,
) -> None:
    world = World(tmp_path, evidence=evidence, compared=compared, experiments=experiments)
    assert run(world, retrain(MODEL, "me", "")) == [*TRAINED, *steps, "REJECTED 2"]
    assert newest_of(world).note.startswith(note)


def test_without_experiments_the_shadow_decides(tmp_path: Path) -> None:
    world = World(tmp_path, evidence=KNOWN, experiments="off")
    assert run(world, retrain(MODEL, "me", "")) == [*TRAINED, "RETRAINING_SHADOWS 2", "PROMOTED 2", "champion 2"]
    assert newest_of(world).note == "in the shadow of version 1: better: saves a lot"
    reign = world.journal.topic.reign
    assert reign is not None
    assert (reign.previous_version, reign.run_id, reign.figures["low"]) == ("1", "r", 0.01)


def test_a_comparison_that_cannot_be_ends_it(tmp_path: Path) -> None:
    world = World(tmp_path, compared={"problem": "the log is gone"}, shadow_status=4)
    assert run(world, retrain(MODEL, "me", ""))[-1] == "REJECTED 2"
    assert newest_of(world).note == "it could not be compared: the log is gone"


def test_another_champion_is_another_comparison(tmp_path: Path) -> None:
    """What was compared with the one before says nothing of it."""
    world = World(tmp_path, experiments="off", compared={})
    controller, retrainer = world.orchestrator()
    controller.reconcile()
    controller.answer(retrain(MODEL, "me", ""))
    while newest_of(world).state != State.SHADOW:
        controller.reconcile()
        retrainer.step()
        world.train()
        time.sleep(0.002)
    ledger, present = world.journal.topic, newest_of(world)
    stale = RetrainingStep(PROMOTED, "better", champion="1")
    ledger.apply(event("REGISTERED", 9, model_version="9"))
    ledger.apply(event("PROMOTED", 9, model_version="9"))
    assert event_of(ledger, present, stale, now_ms(), 0) is None
    again = event_of(ledger, present, RetrainingStep(SHADOWS, "", champion="9"), now_ms(), 0)
    assert again is not None
    assert not ledger.took(again.event_id)
    ledger.apply(again)
    assert newest_of(world).champion == "9"
    assert event_of(ledger, present, RetrainingStep(REJECTED, ""), now_ms(), 0) is None, "of a state that was"
    end(retrainer)


def test_after_a_rollback_the_shadow_promotes_nobody_for_a_while() -> None:
    ledger = champion()
    ledger.apply(event("PROMOTED", 2, model_version="0"))
    ledger.apply(event("ROLLED_BACK", 3, model_version="1"))
    started(ledger, 4)
    ledger.apply(event("REGISTERED", 4, model_version="2", retraining_id="RETRAINING_STARTED 4"))
    present, step = ledger.retrainings.newest, RetrainingStep(PROMOTED, "better", champion="1")
    assert present is not None
    assert event_of(ledger, present, step, NOW + HOUR_MS - 1, HOUR_MS) is None
    assert event_of(ledger, present, step, NOW + HOUR_MS, HOUR_MS) is not None


def test_where_no_tracker_answers_for_a_while_the_shadow_decides(tmp_path: Path) -> None:
    world = World(tmp_path, evidence=KNOWN, tracked=False)
    done = run(world, retrain(MODEL, "me", ""))
    assert [one for one in done if "sen" not in one] == [*TRAINED, "RETRAINING_SHADOWS 2", "PROMOTED 2", "champion 2"]
    assert done[3] == "sent define_experiment"


def test_an_experiment_that_somebody_stops_leaves_the_champion(tmp_path: Path) -> None:
    world = World(tmp_path, wins=False)
    assert run(world, retrain(MODEL, "me", ""))[-4:] == [
        "CHALLENGER 2",
        "challenger 2",
        "REJECTED 2",
        "challenger none",
    ]
    newest = world.journal.topic.retrainings.newest
    assert newest is not None
    assert newest.note == f"experiment {next(iter(world.records))}: it was stopped before it decided"


@pytest.mark.parametrize(
    ("job", "note"),
    [
        ('import sys; print(\'{"problem": "nobody came"}\'); sys.exit(3)', "nobody came"),
        ("import sys; sys.exit(5)", "the job was told to end"),
        ("import os; os.kill(os.getpid(), 9)", "the job ended with status -9"),
        ("print('no JSON')", "the job ended with status 0"),
    ],
)
def test_a_job_that_makes_no_version_ends_it_with_the_reason(job: str, note: str, tmp_path: Path) -> None:
    world = World(tmp_path, job=job)
    assert run(world, retrain(MODEL, "me", ""))[-1] == "RETRAINING_ENDED "
    newest = world.journal.topic.retrainings.newest
    assert newest is not None
    assert (newest.state, newest.note) == (State.FAILED, note)


def test_cancelled_its_job_is_ended(tmp_path: Path) -> None:
    world = World(tmp_path, job="import sys; sys.stdin.read()")
    controller, retrainer = world.orchestrator()
    controller.reconcile()
    controller.answer(retrain(MODEL, "me", ""))
    retrainings = world.journal.topic.retrainings
    while retrainings.newest is None or retrainings.newest.state != State.TRAINING:
        retrainer.step()
    retrainer.step()
    controller.answer(cancel_retrain(MODEL, "me", ""))
    retrainer.step()
    end(retrainer)
    assert world.effects.done[-1] == "RETRAINING_ENDED "


def test_a_process_ends_with_its_standard_input() -> None:
    code = "import time; from workers.retrain_orchestrator.jobs import end_with_stdin; end_with_stdin(); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(PATIENCE_S) == -signal.SIGTERM


def test_killed_anywhere_every_step_is_taken_once(tmp_path: Path) -> None:
    """In every place, and in two; commands may be sent twice, and the tracker acts on them once."""
    kills = 0
    for first in range(len(WON)):
        for second in range(first, len(WON), 3):
            world = World(tmp_path)
            done = run(world, retrain(MODEL, "me", ""), (first, second + 1))
            events = [one for one in done if "sent" not in one]
            assert events == [one for one in WON if "sent" not in one]
            assert len(world.records) == 1
            kills += world.starts - 1
    assert kills >= 50


def now_ms() -> int:
    return time.time_ns() // 1_000_000
