"""The gate on real parts: answers in random order over gRPC, clicked from the top, joined, read back and judged."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.gated import EXAMINATION
from benchmarks.seed import item_states, now_ms, promote_first_ranker, publish, publish_items, write_users
from millrace.cli.experiments import command
from millrace.client import EventProducer
from millrace.experiments.asking import read_experiments
from millrace.experiments.measuring import read_shuffled
from millrace.ranking.first import first_ranker
from millrace.settings import KafkaSettings, StreamSettings, settings
from millrace.topics import EXPERIMENTS, IMPRESSIONS, MODEL_EVENTS
from millrace.v1.experiment_pb2 import GateVerdict
from millrace.v1.impression_pb2 import Impression
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from millrace.v1.recommendation_service_pb2 import RecommendResponse
from tests.conftest import StartProcess
from tests.recommending import recommender, wait_for
from tests.stream_support import read_all

pytestmark = pytest.mark.timeout(300)

STREAM = StreamSettings()
USERS, VISITS = 200, 2
Run = Callable[..., str]


@pytest.fixture
def run(kafka_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs ``millrace experiments`` in this process; answers what it printed, or why it failed."""
    for name, value in kafka_env.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()

    def invoke(*arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(command, arguments)
        assert (result.exit_code != 0) == fails, result.output
        return f"{result.output}{result.exception or ''}"

    yield invoke
    settings.cache_clear()


def in_order(answer: RecommendResponse) -> bool:
    scores = [item.score for item in answer.items]
    return scores == sorted(scores, reverse=True)


def test_a_version_is_judged_before_anybody_sees_it(
    topics_applied: KafkaSettings,
    kafka_env: Mapping[str, str],
    redis_url: str,
    process: StartProcess,
    millrace_home: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    kafka = topics_applied
    publish_items(kafka, item_states(200))
    users = write_users(redis_url, USERS, 200)
    folder, first = promote_first_ranker(kafka), first_ranker()
    for version, model in (("2", replace(first, weights=-first.weights)), ("3", first)):
        digest = bytes.fromhex(model.save(folder.parent / version))
        kind = ModelEventType.MODEL_EVENT_TYPE_REGISTERED
        registered = ModelEvent(
            event_id=version, model_name="ranker", model_version=version, type=kind, at_ms=now_ms(), sha256=digest
        )
        publish(kafka, MODEL_EVENTS, [("ranker", registered)])
    env = {**kafka_env, "REDIS_URL": redis_url, "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": "2000"}
    process("workers.outcome_joiner", env=env)
    tracker = process("workers.experiment_tracker", env=env)

    assert "model 'ranker' has no version '9'; there are: 1, 2, 3" in run("evaluate", "9", fails=True)
    assert "version 2 is refused at the gate: 0 answers in random order to 0 users are known" in run("evaluate", "2")
    run("create", "turned", "--arm", "a=champion", "--arm", "b=version:2", "--traffic", "1")
    refused = run("start", "turned", fails=True)
    assert "evidence: version 2 is refused at the gate: 0 answers" in refused
    assert "others with a reason (--override)" in refused

    shuffled, others = set[str](), set[str]()
    with (
        recommender(millrace_home, tmp_path / "log", env | {"MILLRACE_RECOMMENDER_SHUFFLED_SHARE": "1"}) as service,
        EventProducer(kafka=kafka) as events,
    ):
        wait_for(lambda: service.ready() and service.readiness()[1]["model_version"] == "1", "the recommender")
        # Nobody looks at an answer of a replay, and of a stranger the model knows nothing.
        for answer in (service.ask(users[0], as_of_ms=now_ms()), service.ask("stranger")):
            assert in_order(answer)
            others.add(answer.request_id)
        chance = random.Random(1)
        for user in users * VISITS:
            answer = service.ask(user)
            shuffled.add(answer.request_id)
            best = sorted(answer.items, key=lambda item: -item.score)[:3]
            for place, item in enumerate(answer.items):
                if chance.random() < EXAMINATION[place] * (0.5 if item in best else 0.1):
                    events.interaction(user, item.item_id, "click", request_id=answer.request_id)
        events.flush()
        assert "millrace_recommender_shuffled_answers_total 400.0" in service.figures()

        def known() -> int:
            return len(read_shuffled(kafka, STREAM, "ranker", "1", 0, 10)[0].answers)

        wait_for(lambda: known() == USERS * VISITS, "the end of all windows")
        found = {one.request_id: one.shuffled for one in logged(kafka)}
        assert {name for name, one in found.items() if one} == shuffled
        assert {name for name, one in found.items() if not one} >= others

        assert "version 2 failed at the gate: it is surely worse, by -" in run("start", "turned", fails=True)
        shown = run("evaluate", "3", "--hours", "1")
        assert "version 3 passes the gate: it differs by -" in shown
        assert "on 400 answers of version 1 in random order to 200 users since " in shown
        judged: dict[str, Any] = json.loads(run("evaluate", "2", "--json"))
        assert judged["verdict"] == "GATE_VERDICT_FAILED"
        assert judged["evidence"]["effect_high"] < 0
        assert [one["estimator"] for one in judged["evidence"]["version"]] == ["ipw", "snips", "dr"]

        started = run("create", "same", "--arm", "a=champion", "--arm", "b=version:3", "--traffic", "1", "--start")
        assert "same is started" in started
        assert "version 3 passes the gate" in started
        wait_for(lambda: service.readiness()[1]["experiments"] == ["same"], "the experiment")
        assert all(in_order(service.ask(user)) for user in users[:20]), "an arm is what its model shows"
        run("stop", "same")
        run("start", "turned", "--override", "to see how bad it is")
    records = read_experiments(kafka, STREAM, 10)
    (passed,), (failed,) = records["same"].gates, records["turned"].gates
    assert (passed.verdict, passed.override_reason) == (GateVerdict.GATE_VERDICT_PASSED, "")
    assert passed.evidence.effect == 0, "scores and features went with their items"
    assert failed.verdict == GateVerdict.GATE_VERDICT_FAILED
    assert failed.evidence.clicks == int(judged["evidence"]["clicks"])
    assert {at.topic for at in failed.evidence.included} == {"outcomes"}
    assert "all the same by " in run("show", "turned")
    assert json.loads(run("show", "turned", "--json"))["gates"][0]["override_reason"] == "to see how bad it is"
    assert json.loads(run("audit", "turned", "--json"))["same"] is True
    # The tracker would write its own record again.
    assert tracker.terminate() == 0, tracker.output()
    spoiled = records["turned"]
    spoiled.gates[0].verdict = GateVerdict.GATE_VERDICT_PASSED
    publish(kafka, EXPERIMENTS, [("turned", spoiled)])
    assert CliRunner().invoke(command, ["audit", "turned"]).output.startswith("gate of version 2: passed (it is surely")


def logged(kafka: KafkaSettings) -> list[Impression]:
    return [Impression.FromString(message.value() or b"") for message in read_all(kafka, IMPRESSIONS.name)]
