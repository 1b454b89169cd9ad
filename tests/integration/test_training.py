"""The training job on a real broker and a real MLflow: what it makes, what it leaves behind, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from millrace.cli.models import command as models
from millrace.drift.measures import CALIBRATION, CLICK_THROUGH, LOG_LOSS, SCORE, of_segment
from millrace.drift.storing import REFERENCE_FILE, ModelReference
from millrace.errors import InfrastructureError, MillraceError
from millrace.events.build import now_ms
from millrace.features.store import FeatureStore
from millrace.features.user_state import STATE, user_key
from millrace.learning.state import STATE_FILE
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.model import RankingModel
from millrace.registry.asking import promote
from millrace.registry.cache import ModelCache
from millrace.registry.controller import Controller
from millrace.registry.gates import GATES_TAG
from millrace.registry.journal import Journal
from millrace.registry.registry import SINCE_TAG
from millrace.registry.training_runs import NOTE_TAG, PROBLEM_TAG
from millrace.registry.versions import first_state
from millrace.registry.view import RegisteredVersion
from millrace.settings import (
    DAY_MS,
    KafkaSettings,
    MlflowSettings,
    RedisSettings,
    Settings,
    StreamSettings,
    TrainingSettings,
    settings,
)
from millrace.stream.codec import encode
from millrace.stream.window import Window, WindowReader, find_window
from millrace.topics import OUTCOMES
from millrace.training.intake import NotEnough, UnusableData
from millrace.v1.outcome_pb2 import Label, Outcome
from tests.conftest import Child, StartProcess
from tests.integration.orchestration import Model
from tests.learning_support import outcomes
from tests.stream_support import Raw, send
from workers.retrain_orchestrator.jobs import NOT_ENOUGH
from workers.retrain_orchestrator.signals import Cancellation
from workers.retrain_orchestrator.train import main
from workers.retrain_orchestrator.training import Asked, train

COUNT = 1_500
SLOTS = 5
DAYS = 3
# Refusals are to be told apart from a server whose neighbours keep it waiting.
MLFLOW_TIMEOUT_MS = 60_000
FAILED = ("few", "forgotten", "kept too long", "foreign", "nan", "large")
GATES = ["enough_data", "loads", "golden", "better", "segments"]
SMALL = {"outcomes_min": 500, "examples_min": 5_000, "segment_examples_min": 200}


def spread(made: Sequence[Outcome]) -> Sequence[Outcome]:
    """The outcomes over three days of two segments; one slot in five was not seen."""
    for number, outcome in enumerate(made):
        outcome.impression.served_at_ms = 1_700_000_000_000 + number * DAYS * DAY_MS // len(made)
        outcome.impression.segment = ("new", "casual")[number % 2]
        outcome.slots[number % SLOTS].label = Label.LABEL_UNSEEN
    return made


def records(made: Sequence[Outcome]) -> Sequence[Raw]:
    return [(outcome.user_id, *encode(outcome)) for outcome in made]


class World:
    """Outcomes on the topic, and the settings of a job."""

    def __init__(self, kafka: KafkaSettings, mlflow: MlflowSettings, redis: RedisSettings) -> None:
        self.kafka, self.mlflow, self.redis = kafka, mlflow, redis
        made = spread(list(outcomes(COUNT, seed=5)))
        # Day by day: what is sent at once is appended at once, in no order among partitions.
        for start in range(0, COUNT, COUNT // DAYS):
            send(kafka, OUTCOMES, records(made[start : start + COUNT // DAYS]))
        self.window = find_window(kafka, OUTCOMES, 0)

    def model(self, name: str) -> tuple[Model, Controller]:
        """A registered model, whose first version becomes the champion now: it has learned nothing of the window."""
        model = Model(name, self.kafka, self.mlflow)
        controller = Controller(name, Journal(self.kafka, StreamSettings(), name), model.registry)
        controller.reconcile()
        return model, controller

    def settings(self, **training: Any) -> Settings:
        values = Settings()
        values.kafka, values.mlflow, values.redis = self.kafka, self.mlflow, self.redis
        values.training = TrainingSettings(**{**SMALL, **training})
        return values

    def train(self, model: str, step: str, window: Window | None = None, **training: Any) -> RegisteredVersion:
        with Cancellation() as cancellation:
            asked = Asked(model, step, f"test {step}", window=window or self.window)
            return train(self.settings(**training), asked, cancellation)

    def since(self, before: Window) -> Window:
        """What was appended after a window."""
        after = find_window(self.kafka, OUTCOMES, 0)
        return Window(after.topic_id, {at: (before.bounds[at][1], end) for at, (_, end) in after.bounds.items()})


@pytest.fixture(scope="module")
def world(topics_applied: KafkaSettings, mlflow_uri: str, redis_url: str) -> World:
    mlflow = MlflowSettings(tracking_uri=mlflow_uri, timeout_ms=MLFLOW_TIMEOUT_MS)
    return World(topics_applied, mlflow, RedisSettings(url=redis_url))


def runs(model: Model) -> Sequence[Any]:
    client = model.registry.client
    found: Sequence[Any] = client.search_runs([client.get_experiment_by_name(model.name).experiment_id])
    return [run for run in found if run.data.tags.get("millrace.kind") == "training"]


class Cli:
    """``millrace models`` in this process."""

    def __init__(self, world: World, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._model = model
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", world.kafka.bootstrap_servers)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", world.mlflow.tracking_uri)
        monkeypatch.setenv("MLFLOW_TIMEOUT_MS", str(MLFLOW_TIMEOUT_MS))

    def __call__(self, *arguments: str) -> str:
        settings.cache_clear()
        try:
            done = CliRunner().invoke(models, [*arguments, "--model", self._model], catch_exceptions=False)
        finally:
            settings.cache_clear()
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


def test_the_same_offsets_make_the_same_version_and_its_run_tells_the_story(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, controller = world.model("trained")
    made = world.train(model.name, "one")
    assert made.tags[GATES_TAG] == "passed", made.tags
    assert world.train(model.name, "one") == made
    run = model.registry.client.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params["feature_schema"], run.data.params["champion"]) == (FEATURE_SCHEMA, "1")
    assert run.data.params["code_version"].startswith("0.")
    told = run.data.tags[NOTE_TAG]
    assert told.startswith("**May serve**. Trained because: test one. Champion at the time: version 1.")
    assert f"| this version | {run.data.metrics['log_loss_new']:.5f} |" in told
    metrics = run.data.metrics
    assert (metrics["outcomes"], metrics["examples"]) == (COUNT, COUNT * (SLOTS - 1))
    assert metrics["log_loss_new"] < min(metrics["log_loss_champion"], metrics["log_loss_popularity"])
    assert metrics["gain_over_champion_low"] == pytest.approx(float(made.tags["millrace.gate.better.low"]), rel=1e-4)

    # More outcomes come; what was read the first time is read again, and nothing else.
    send(world.kafka, OUTCOMES, records(list(outcomes(50, seed=6))))
    model.registry.client.download_artifacts(made.run_id, "input.json", str(tmp_path))
    window = Window.from_words(json.loads((tmp_path / "input.json").read_text()))
    failed = world.train(model.name, "two", window, clicks_min=1_000_000)
    assert (failed.version, failed.sha256) == ("3", made.sha256)
    assert len(runs(model)) == 2

    folder = tmp_path / "version"
    folder.mkdir()
    model.registry.download(model.name, made.version, folder)
    assert RankingModel.load(folder).observations > COUNT
    assert (first_state(folder, "2", "reign").squared_gradients[: len(FEATURE_NAMES)] > 0).all()
    reference = ModelReference.from_bytes((folder / REFERENCE_FILE).read_bytes())
    assert [each.name for each in reference.values] == [*FEATURE_NAMES, SCORE]
    assert [each.counts.present for each in reference.values] == [COUNT * SLOTS] * (len(FEATURE_NAMES) + 1)
    assert {len(each.blocks) for each in reference.values} <= {3, 4}
    asked = {
        CLICK_THROUGH,
        of_segment(CLICK_THROUGH, "new"),
        of_segment(CLICK_THROUGH, "casual"),
        CALIBRATION,
        LOG_LOSS,
    }
    assert set(reference.labels) == asked
    assert reference.labels[CALIBRATION].baseline.ratio == pytest.approx(1, abs=0.2)
    files = model.registry.client.list_artifacts(made.run_id, "plots")
    assert [Path(file.path).name for file in files] == ["calibration.png", "feature-drift.png", "lift-by-segment.png"]
    assert (folder / STATE_FILE).exists()

    # A version that fails a gate is there to be looked at, and never serves.
    assert failed.tags[GATES_TAG].startswith("failed: enough_data (6,000 examples")
    assert failed.tags["millrace.gate.enough_data.clicks_min"] == "1e+06"
    assert failed.tags["millrace.gate.better"].startswith("passed: gains")
    with pytest.raises(MillraceError, match="version 3 of model 'trained' must not serve: gates failed: enough_data"):
        model.registry.set_alias(model.name, "challenger", failed.version)
    with pytest.raises(InfrastructureError, match="must not serve"):
        ModelCache(tmp_path / model.name, world.mlflow).ensure(failed.version)

    # The orchestrator tells everybody else.
    controller.reconcile()
    assert model.events() == [("REGISTERED", "1"), ("PROMOTED", "1"), ("REGISTERED", "2"), ("REJECTED", "3")]
    for version in ("3", "2"):
        controller.answer(promote(model.name, version, "test", ""))
    controller.reconcile()
    assert model.events()[4:] == [("COMMAND_REFUSED", "3"), ("PROMOTED", "2")]
    assert model.champion() == "2"

    # What people are told of them.
    cli = Cli(world, model.name, monkeypatch)
    sheet = cli.json("show", "2")
    assert (sheet["state"], sheet["aliases"], sheet["problem"]) == ("champion", ["champion"], None)
    assert [event["what"] for event in sheet["events"]] == ["registered", "promoted"]
    assert [gate["name"] for gate in sheet["gates"]["gates"] if gate["passed"]] == GATES
    assert sheet["gates"]["gates"][3]["figures"]["low"] == pytest.approx(metrics["gain_over_champion_low"], rel=1e-4)
    assert (sheet["window"]["outcomes"], sheet["window"]["topic_id"]) == (COUNT, world.window.topic_id)
    assert sheet["window"]["offsets"] == {str(at): list(both) for at, both in world.window.bounds.items()}
    assert 0 < sheet["window"]["from_ms"] <= sheet["window"]["to_ms"]
    assert (sheet["lineage"]["trained_beside"], sheet["lineage"]["replaced"]) == ("1", ["1"])
    assert sheet["lineage"]["sha256"] == made.sha256
    assert sheet["run"]["plots"] == [f"plots/{Path(file.path).name}" for file in files]
    assert list(sheet["weights"].values()) == sorted(sheet["weights"].values(), key=abs, reverse=True)
    assert sheet["weights"]["covisit"] == RankingModel.load(folder).weights[0]
    assert cli.json("show", "1")["gates"] is None
    compared = cli.json("compare", "1", "2")
    assert compared["gain"]["gain"] == pytest.approx(metrics["gain_over_champion"], rel=1e-4)
    assert cli.json("compare", "2", "3")["gain"] is None

    shown = cli("show", "3")
    assert f"version 3 of model {model.name!r}: failed a gate, registered " in shown
    assert "gates: failed: it never serves" in shown
    assert "✗\tenough_data\t6,000 examples" in shown
    assert "├" in shown.partition("log loss saved")[2]
    assert "plot: plots/calibration.png of run " in shown
    side_by_side = cli("compare", "1", "2")
    assert "version 2 was surely better than version 1 on" in side_by_side
    assert "▸" in side_by_side.partition("weights that differ most")[2]
    assert "none: all weights are the same" in cli("compare", "2", "3")
    with pytest.raises(MillraceError, match="has no version '9'"):
        cli("show", "9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    away = cli.json("show", "2")
    assert away["problem"].startswith("mlflow: cannot list versions")
    assert (away["state"], away["gates"], away["run"]) == ("champion", None, None)


@pytest.fixture
def env(world: World, kafka_env: Mapping[str, str]) -> Mapping[str, str]:
    return {
        **kafka_env,
        "REDIS_URL": world.redis.url,
        "MLFLOW_TRACKING_URI": world.mlflow.tracking_uri,
        "MLFLOW_TIMEOUT_MS": str(MLFLOW_TIMEOUT_MS),
        "MILLRACE_TRAINING_OUTCOMES_MIN": "500",
        # So that there is time to stop it.
        "MILLRACE_TRAINING_PASSES_MAX": "10",
    }


def said(child: Child, what: str) -> bool:
    return what in child.output()


def test_a_job_that_is_stopped_half_way_leaves_no_version(
    world: World, process: StartProcess, env: Mapping[str, str], millrace_home: Path
) -> None:
    model, _ = world.model("stopped")
    arguments = ("--model", model.name, "--job", "j")
    for moment, stop in (("reading outcomes", "kill"), ("searching", "terminate")):
        child = process("workers.retrain_orchestrator.train", *arguments, env=env)
        child.until(partial(said, child, moment))
        if stop == "kill":
            child.kill()
        else:
            assert child.terminate() == 5, child.output()
    assert "cancelled: no version was made" in child.output()
    assert [run.info.status for run in runs(model)] == ["KILLED", "KILLED"]
    assert [version.version for version in model.registry.view(model.name).versions] == ["1"]
    # Also what the one that was ended by -9 left behind is gone.
    assert list(millrace_home.glob("training-*")) == []


@pytest.fixture
def as_configured(env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_a_job_that_is_told_of_a_change_learns_and_is_judged_by_what_came_since(
    world: World, as_configured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_TRAINING_EXAMPLES_MIN", "1500")
    settings.cache_clear()
    model, _ = world.model("changed")
    # The newest of the three days: a third of the slots, one in five of which nobody saw.
    since_ms = 1_700_000_000_000 + 2 * DAY_MS
    given = tmp_path / "window.json"
    given.write_text(json.dumps(world.window.words()))

    def made(job: str, *arguments: str) -> RegisteredVersion:
        done = CliRunner().invoke(main, ["--model", model.name, "--job", job, *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return model.registry.view(model.name).versions[-1]

    first = made("told", "--input", str(given), "--since", str(since_ms))
    assert first.tags[SINCE_TAG] == str(since_ms)
    since = COUNT // DAYS * (SLOTS - 1)
    assert float(first.tags["millrace.gate.enough_data.examples"]) == pytest.approx(since, rel=0.02)
    assert "examples since the change (at least 1,500)" in first.tags["millrace.gate.enough_data"]
    assert float(first.tags["millrace.gate.better.slots"]) < since / 2

    # Its own input says of the change too.
    model.registry.client.download_artifacts(first.run_id, "input.json", str(tmp_path))
    again = made("again", "--input", str(tmp_path / "input.json"))
    assert (again.version, again.sha256, again.tags[SINCE_TAG]) == ("3", first.sha256, str(since_ms))


def test_what_cannot_be_learned_from_is_refused_with_the_reason(
    world: World, as_configured: None, tmp_path: Path
) -> None:
    model, _ = world.model("refused")
    nothing = Window(world.window.topic_id, {0: (1, 1)})
    with pytest.raises(NotEnough, match="nothing to learn from"):
        world.train(model.name, "empty", nothing)
    (tmp_path / "input.json").write_text(json.dumps(nothing.words()))
    code = CliRunner().invoke(main, ["--model", model.name, "--input", str(tmp_path / "input.json")]).exit_code
    assert code == NOT_ENOUGH
    with pytest.raises(NotEnough, match=r"1,500 outcomes, and 2,000 are needed \(MILLRACE_TRAINING_OUTCOMES_MIN\)"):
        world.train(model.name, "few", outcomes_min=2_000)

    # What a person did before asking to be forgotten is not learned; tests of the gateway have the asking.
    theirs = sum(outcome.user_id == "user 1" for outcome in outcomes(COUNT, seed=5))
    assert theirs > 0
    store = FeatureStore(world.redis)
    store.connect()
    store.ask("HSET", user_key("user 1"), "state", STATE.pack(0, 0, 0, now_ms(), now_ms(), 0, 0))
    with pytest.raises(NotEnough, match=f"{COUNT - theirs:,} outcomes, and 2,000 are needed"):
        world.train(model.name, "forgotten", outcomes_min=2_000)
    with pytest.raises(MillraceError, match=r"USER_TTL_MS=2592000000 \(30 days\) must not be below .* \(31 days\)"):
        world.train(model.name, "kept too long", window_ms=31 * DAY_MS)
    store.ask("DEL", user_key("user 1"))
    store.close()

    before = find_window(world.kafka, OUTCOMES, 0)
    foreign, bad = list(outcomes(40, seed=7)), list(outcomes(40, seed=8))
    for outcome in foreign:
        outcome.impression.feature_schema = "of yesterday"
    for outcome in bad[:4]:
        outcome.slots[2].slot.features[1] = float("nan")
    send(world.kafka, OUTCOMES, records(foreign))
    with pytest.raises(UnusableData, match="40 have those of 'of yesterday'"):
        world.train(model.name, "foreign", world.since(before))
    before = find_window(world.kafka, OUTCOMES, 0)
    send(world.kafka, OUTCOMES, records(bad))
    with pytest.raises(UnusableData, match=r"4 of 40 outcomes break a rule, more than 1.0%.*slots\[N\].slot.features"):
        world.train(model.name, "nan", world.since(before))
    with pytest.raises(UnusableData, match="more than 100 slots in the window"):
        world.train(model.name, "large", slots_max=100)
    statuses = {run.info.run_name: (run.info.status, PROBLEM_TAG in run.data.tags) for run in runs(model)}
    assert statuses == {f"test {name}": ("FAILED", True) for name in FAILED}
    with pytest.raises(MillraceError, match="was made anew"):
        world.train(model.name, "gone", Window("another", world.window.bounds))
    with pytest.raises(MillraceError, match="are not on the broker"):
        world.train(model.name, "gone", Window(world.window.topic_id, {0: (0, 10**9)}))


def test_a_window_is_read_to_its_end_and_no_further(world: World) -> None:
    reader = WindowReader(world.kafka, OUTCOMES, world.window)
    read = [record for batch in reader.batches() for record in batch.records]
    assert len(read) == COUNT
    assert all(record.offset < world.window.bounds[record.partition][1] for record in read)
    assert reader.done == world.window.offsets
    newest_ms = max(record.append_time_ms for record in read)
    assert find_window(world.kafka, OUTCOMES, newest_ms + DAY_MS).offsets == 0
    assert find_window(world.kafka, OUTCOMES, newest_ms).offsets > 0
