"""The experiment tracker as a process, on a real broker: commands, figures to the digit through kill -9, refusals."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from benchmarks.answers import outcome
from benchmarks.seed import publish
from millrace.experiments.asking import recount
from millrace.experiments.life import RUNNING, STOPPED
from millrace.experiments.periods import period_differences
from millrace.experiments.record import differences, verdict
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.codec import encode
from millrace.topics import COMMANDS, EXPERIMENTS, INTERACTIONS, MODEL_EVENTS, OUTCOMES
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import AllocationPolicy, DecisionKind, Experiment, ExperimentDefinition
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import Outcome
from tests.conftest import Child, StartProcess
from tests.experiment_support import answer, define, definition, ledgers, model_events, start, stop, traffic
from tests.outcome_support import T0, act
from tests.stream_support import get, headers_of, read_all, ready, send

NAME = "experiment_tracker"


@pytest.fixture(scope="module")
def kafka(topics_applied: KafkaSettings) -> KafkaSettings:
    """A broker whose model "ranker" has the champion 1 and the version 2."""
    publish(topics_applied, MODEL_EVENTS, (("ranker", event) for event in model_events()))
    return topics_applied


def command(kafka: KafkaSettings, *commands: Command) -> None:
    send(kafka, COMMANDS, [("test", *encode(one)) for one in commands])


def put(kafka: KafkaSettings, outcomes: Sequence[Outcome]) -> None:
    send(kafka, OUTCOMES, [(one.user_id, *encode(one)) for one in outcomes])


def record(kafka: KafkaSettings, name: str) -> Experiment | None:
    """The newest record of an experiment."""
    found = [one.value() or b"" for one in read_all(kafka, EXPERIMENTS.name) if one.key() == name.encode()]
    return Experiment.FromString(found[-1]) if found else None


def wait_state(child: Child, kafka: KafkaSettings, name: str, state: int) -> Experiment:
    def there() -> bool:
        found = record(kafka, name)
        return found is not None and found.state == state

    child.until(there, interval_s=0.2)
    found = record(kafka, name)
    assert found is not None
    return found


def counted(kafka: KafkaSettings, given: ExperimentDefinition) -> Experiment:
    """What the log says: each partition from its beginning to its end."""
    tracker = Tracker(TrackerLimits(0.0, 100_000, 10_000, 10**12))
    tracker.restore({}, {}, {})
    tracker.command(define(given), ledgers(), T0)
    tracker.command(start(given.experiment_id), ledgers(), T0)
    for topic in (INTERACTIONS, OUTCOMES):
        for message in read_all(kafka, topic.name):
            partition, value = message.partition(), message.value() or b""
            assert partition is not None
            if topic is INTERACTIONS:
                tracker.interaction(Interaction.FromString(value), partition, T0)
            elif (one := Outcome.FromString(value)).impression.experiment_id == given.experiment_id:
                tracker.outcome(one, partition, T0 + 10**9)
    tracker.decide(T0)
    return tracker.experiments[given.experiment_id]


def test_figures_are_those_of_the_log_whatever_is_killed(
    kafka: KafkaSettings, kafka_env: Mapping[str, str], process: StartProcess
) -> None:
    given = definition("killed", layer="killed", versions=("", "2", "1"), minimum_users=10**6)
    given.guardrails.coverage_margin, given.guardrails.click_floor, given.earlier_activity = 0.2, 0.01, True
    tracker = process("workers.experiment_tracker", env=kafka_env)
    command(kafka, define(given), start("killed"), start("killed"))
    wait_state(tracker, kafka, "killed", RUNNING)
    made = list(traffic(given, 1_200, {"a": 0.2, "b": 0.3, "c": 0.1}, variety={"a": 40, "b": 30, "c": 10}))
    buying = random.Random(3)
    purchases = [act(f"user 1.{buying.randrange(1_500)}", "i0", "purchase", T0 + 5_000) for _ in range(200)]
    for part in range(4):
        put(kafka, made[part * len(made) // 4 : (part + 1) * len(made) // 4])
        send(kafka, INTERACTIONS, [(one.user_id, *encode(one)) for one in purchases[part::4]])
        answers = sum(one.final for one in made[: (part + 1) * len(made) // 4])
        if part % 2:
            # Killed wherever it is, half-way through what was just sent.
            tracker.kill()
            tracker = process("workers.experiment_tracker", env=kafka_env)
        else:
            tracker.until(lambda seen=answers: _answers(kafka, "killed") >= seen, interval_s=0.2)  # type: ignore[misc]
    expected = counted(kafka, given)
    bought = sum(one.conversions for one in expected.figures)
    assert 100 < bought < 200
    tracker.until(lambda: _answers(kafka, "killed") == 1_200, interval_s=0.2)
    # Purchases come from another topic, and not all that counts is a conversion.
    tracker.until(lambda: (record(kafka, "killed") or Experiment()).figures == expected.figures, interval_s=0.2)
    found = record(kafka, "killed")
    assert found is not None
    assert sum(one.statistics["shown.slots"] for one in found.figures) == 5 * 1_200
    assert found.figures[0].statistics["earlier.units"] == sum(one.slots for one in found.figures)
    assert found.figures[1].statistics["floor.slots"] == found.figures[1].slots
    assert differences(found.decision, verdict(found, found.decision.at_ms)) == []
    included = {one.partition: one.offset for one in found.included if one.topic == OUTCOMES.name}
    assert sum(offset + 1 for offset in included.values()) >= len(made)
    tracker.until(lambda: ready(tracker, NAME))
    assert 'millrace_tracker_outcomes_total{result="counted"}' in get(tracker, NAME, "/metrics")[1]
    assert tracker.terminate() == 0, tracker.output()


def test_shares_move_whatever_is_killed_and_the_log_says_the_same(
    kafka: KafkaSettings, kafka_env: Mapping[str, str], process: StartProcess
) -> None:
    given = definition("moving", layer="moving", versions=("", "2", "1"), minimum_users=10**6)
    given.policy, given.period_ms, given.floor = AllocationPolicy.ALLOCATION_POLICY_THOMPSON, 1_000, 0.1
    tracker = process("workers.experiment_tracker", env=kafka_env)
    command(kafka, define(given), start("moving"))
    began = wait_state(tracker, kafka, "moving", RUNNING)
    answers, periods = 0, list(began.periods)
    for part in range(4):
        rates = {"a": 0.1, "b": 0.4, "c": 0.2}
        put(kafka, list(traffic(given, 200, rates, seed=20 + part, periods=periods)))
        answers += 200
        if part % 2:
            tracker.kill()
            tracker = process("workers.experiment_tracker", env=kafka_env)
        begun = len(periods)
        tracker.until(lambda least=answers: _answers(kafka, "moving") >= least, interval_s=0.2)  # type: ignore[misc]
        tracker.until(lambda known=begun: _periods(kafka, "moving") > known, interval_s=0.2)  # type: ignore[misc]
        found = record(kafka, "moving")
        assert found is not None
        periods = list(found.periods)
    command(kafka, stop("moving"))
    found = wait_state(tracker, kafka, "moving", STOPPED)
    assert sum(one.impressions for one in found.figures) == answers
    assert [sum(period.users) for period in found.periods if sum(period.users)] == [200] * 4
    assert found.periods[-1].shares[1] > 0.7
    assert [one.weight for one in found.figures] == list(found.periods[-1].shares)
    assert period_differences(found) == []
    counted = recount(kafka, StreamSettings(), found, 30)
    assert counted.figures == found.figures
    assert counted.periods == found.periods


def _periods(kafka: KafkaSettings, name: str) -> int:
    found = record(kafka, name)
    return len(found.periods) if found else 0


def _answers(kafka: KafkaSettings, name: str) -> int:
    found = record(kafka, name)
    return sum(one.impressions for one in found.figures) if found else 0


def test_it_decides_by_itself_and_refuses_with_a_reason(
    kafka: KafkaSettings, kafka_env: Mapping[str, str], process: StartProcess
) -> None:
    given = definition("decided", layer="decided", expected_rate=0.2, expected_lift=1.0)
    tracker = process("workers.experiment_tracker", env=kafka_env)
    stand_by = process("workers.experiment_tracker", env=kafka_env)
    unknown = definition("unknown", versions=("", "77"))
    command(kafka, define(given), start("decided"), define(unknown), start("unheard of"))
    wait_state(tracker, kafka, "decided", RUNNING)
    stranger = outcome(answer(definition("nobody"), "zoe", "r-z"), [])
    put(kafka, [stranger, *traffic(given, 3_000, {"a": 0.1, "b": 0.4}, seed=5)])
    found = wait_state(tracker, kafka, "decided", STOPPED)
    assert (found.decision.kind, found.decision.arm) == (DecisionKind.DECISION_KIND_PROMOTE, "b")
    assert found.decision.code_version
    assert differences(found.decision, verdict(found, found.decision.at_ms)) == []

    def refused() -> set[str]:
        return {headers_of(dead)["dlq.field"].decode() for dead in read_all(kafka, COMMANDS.dlq)}

    tracker.until(lambda: refused() == {"arms[b].model_version", "experiment_id"}, interval_s=0.2)
    tracker.until(lambda: read_all(kafka, OUTCOMES.dlq))
    assert [headers_of(dead)["dlq.field"] for dead in read_all(kafka, OUTCOMES.dlq)] == [b"impression.experiment_id"]
    # The other one takes over, and obeys.
    second = definition("second", layer="second")
    tracker.kill()
    command(kafka, define(second), start("second"))
    wait_state(stand_by, kafka, "second", RUNNING)
    command(kafka, stop("second"))
    wait_state(stand_by, kafka, "second", STOPPED)
