"""``millrace experiments`` from definition to audit, with a tracker on a real broker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.seed import publish
from millrace.experiments.asking import read_experiments
from millrace.experiments.record import put_sums, sums_of
from millrace.settings import KafkaSettings, StreamSettings
from millrace.topics import EXPERIMENTS, MODEL_EVENTS, OUTCOMES
from millrace.v1.experiment_pb2 import Experiment
from tests.conftest import Child, StartProcess
from tests.experiment_support import model_events, traffic
from tests.stream_support import read_all

pytestmark = pytest.mark.timeout(300)


class Shell:
    """Runs commands."""

    def __init__(self, process: StartProcess, env: Mapping[str, str]) -> None:
        self._process, self._env = process, env

    def __call__(self, *arguments: str, status: int = 0) -> str:
        child = self._process("millrace", "experiments", *arguments, env=self._env)
        assert child.wait() == status, child.output()
        return child.output()

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", status=status))


@pytest.fixture
def kafka(topics_applied: KafkaSettings) -> KafkaSettings:
    publish(topics_applied, MODEL_EVENTS, (("ranker", event) for event in model_events()))
    return topics_applied


@pytest.fixture
def shell(process: StartProcess, kafka_env: Mapping[str, str]) -> Shell:
    return Shell(process, kafka_env)


@pytest.fixture
def tracker(process: StartProcess, kafka_env: Mapping[str, str]) -> Child:
    return process("workers.experiment_tracker", env=kafka_env)


def test_an_experiment_from_definition_to_audit(kafka: KafkaSettings, shell: Shell, tracker: Child) -> None:
    arms = ("--arm", "a=champion", "--arm", "b=version:2,fresh_items=0")
    looked_for = ("--rate", "0.1", "--lift", "0.5", "--traffic", "1", "--minimum-users", "100")
    shell("create", "shop", *arms, *looked_for)
    shell("start", "shop", "--override", "there is no log yet")
    refused = shell("create", "other", "--arm", "a=champion", "--arm", "b=version:9", status=1)
    assert "arms[b].model_version: '9' is unknown; allowed: 1, 2" in refused
    assert "traffic: 0.2 has no room in the layer beside 'shop'" in shell("create", "more", *arms, "--start", status=1)

    running = read_experiments(kafka, StreamSettings(), 10)["shop"].definition
    few = list(traffic(running, 60, {"a": 0.2, "b": 0.2}))
    publish(kafka, OUTCOMES, ((one.user_id, one) for one in few))
    tracker.until(lambda: users(kafka) == 60, interval_s=0.2)
    shown = shell("show", "shop")
    assert "b: not known yet; at today's traffic in about" in shown or "no telling when" in shown
    assert "version 2, fresh_items=0" in shown
    assert "●" in shown
    assert "the same to the digit as what follows from its figures and topic outcomes" in shell(
        "audit", "shop", "--log"
    )

    many = list(traffic(running, 4_000, {"a": 0.1, "b": 0.3}, seed=2))
    publish(kafka, OUTCOMES, ((one.user_id, one) for one in many))
    tracker.until(lambda: read_experiments(kafka, StreamSettings(), 10)["shop"].stopped_at_ms, interval_s=0.2)
    content = shell.json("show", "shop")
    assert content["decision"]["kind"] == "DECISION_KIND_PROMOTE"
    assert content["intervals"]["b"]["low"] > 0
    assert content["in_words"][0].startswith("b is better by ")
    assert content["in_words"][0].endswith("; you may stop")
    assert shell.json("audit", "shop", "--log")["same"] is True
    listed = shell("list").splitlines()
    assert [line.split("\t")[:2] for line in listed[1:]] == [["shop", "stopped"], ["more", "draft"]]
    # A digit that somebody changed is found, by the decision and by the log; the tracker would write its own again.
    assert tracker.terminate() == 0, tracker.output()
    record = read_experiments(kafka, StreamSettings(), 10)["shop"]
    put_sums(record.figures[1], "clicks", sums_of(record.figures[1], "clicks") + sums_of(record.figures[1], "clicks"))
    record.figures[0].clicks += 1
    publish(kafka, EXPERIMENTS, [("shop", record)])
    found = shell.json("audit", "shop", "--log", status=1)["differences"]
    assert any(line.startswith("effect_low: ") for line in found)
    assert any(line.startswith("a.clicks: ") for line in found)
    assert read_all(kafka, OUTCOMES.dlq) == []


def test_guardrails_from_the_command_line_to_the_decision(kafka: KafkaSettings, shell: Shell, tracker: Child) -> None:
    arms = ("--arm", "a=champion", "--arm", "b=popular")
    rails = ("--coverage-margin", "0.2", "--click-floor", "0.02", "--earlier-activity")
    assert "guardrails.click_floor: 0.2; allowed: 0, or below expected_rate, which is 0.05" in shell(
        "create", "rails", *arms, "--click-floor", "0.2", status=1
    )
    assert "guardrails.coverage_margin: -1; allowed: 0, or below 1" in shell(
        "create", "rails", *arms, "--coverage-margin", "-1", status=1
    )
    shell("create", "rails", *arms, *rails, "--layer", "rails", "--traffic", "1", "--minimum-users", "100", "--start")
    running = read_experiments(kafka, StreamSettings(), 10)["rails"].definition
    made = list(traffic(running, 1_500, {"a": 0.05, "b": 0.05}, variety={"a": 40, "b": 8}))
    publish(kafka, OUTCOMES, ((one.user_id, one) for one in made))
    tracker.until(lambda: read_experiments(kafka, StreamSettings(), 10)["rails"].stopped_at_ms, interval_s=0.2)
    shown = shell("show", "rails")
    assert "b, coverage of the catalogue: worse by 0.0" in shown
    assert "b, click-through against its floor: not worse; 0 would be borne" in shown
    assert "as varied as so many items shown alike: a " in shown
    assert "what users did before the start explains 0." in shown
    content = shell.json("audit", "rails", "--log")
    assert content["same"] is True
    listed = shell.json("list")["experiments"][0]
    assert listed["decision"]["kind"] == "DECISION_KIND_STOP_FOR_HARM"
    assert "coverage of the catalogue is worse by at least" in listed["decision"]["reason"]


def test_thompson_sampling_from_the_command_line(kafka: KafkaSettings, shell: Shell, tracker: Child) -> None:
    arms = ("--arm", "a=champion", "--arm", "b=popular", "--arm", "c=version:2")
    assert "floor: 0.5; allowed: above 0, at most 0.333333, one over the number of arms" in shell(
        "create", "many", *arms, "--thompson", "clicks", "--floor", "0.5", status=1
    )
    assert "floor: given; allowed: with the policy THOMPSON only" in shell(
        "create", "many", *arms, "--floor", "0.1", status=1
    )
    options = ("--layer", "many", "--traffic", "1", "--thompson", "clicks", "--period-minutes", "0.02", "--start")
    shell("create", "many", *arms, *options, "--override", "there is no log yet")
    assert shell.json("audit", "many", "--log")["same"] is True, "of nothing there is nothing to differ"

    def record() -> Experiment:
        return read_experiments(kafka, StreamSettings(), 10)["many"]

    definition, periods = record().definition, list(record().periods)
    made = list(traffic(definition, 300, {"a": 0.05, "b": 0.3, "c": 0.05}, seed=9, periods=periods))
    publish(kafka, OUTCOMES, ((one.user_id, one) for one in made))
    tracker.until(lambda: len(record().periods) > 1 and record().figures[1].slots, interval_s=0.2)
    more = list(traffic(definition, 300, {"a": 0.05, "b": 0.3, "c": 0.05}, seed=10, periods=list(record().periods)))
    publish(kafka, OUTCOMES, ((one.user_id, one) for one in more))
    tracker.until(lambda: sum(one.impressions for one in record().figures) == 600, interval_s=0.2)
    shell("stop", "many")
    shown = shell("show", "many")
    assert "Thompson sampling by clicks of a slot, periods of 0.02 min, 10% for an arm at least; period " in shown
    assert shell.json("audit", "many", "--log")["same"] is True
    assert tracker.terminate() == 0, tracker.output()
    spoiled = record()
    spoiled.periods[1].shares[0] += 1e-9
    publish(kafka, EXPERIMENTS, [("many", spoiled)])
    (found,) = shell.json("audit", "many", status=1)["differences"]
    assert found.startswith("period 1: shares [")


def users(kafka: KafkaSettings) -> int:
    return sum(one.users for one in read_experiments(kafka, StreamSettings(), 10)["shop"].figures)
