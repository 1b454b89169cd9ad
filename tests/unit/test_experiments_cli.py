"""``millrace experiments`` without a server: arms as typed, plans, what is drawn and said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import NormalDist

import pytest
from click.testing import CliRunner, Result

from millrace.cli import experiments
from millrace.cli._experiment_arms import read_arms
from millrace.cli._experiments_view import as_dict, drawn, in_truth, of_what_else, what
from millrace.cli.experiments import command
from millrace.errors import InvalidField
from millrace.experiments.life import DRAFT
from millrace.experiments.outlook import duration, in_words, inflation_of, remaining_ms, slots_until_known
from millrace.experiments.record import boundary, put_sums, sums_of
from millrace.experiments.tracker import Tracker, TrackerLimits
from millrace.simulation.truth import Truth
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import Experiment
from tests.experiment_support import define, definition, ledgers, start, traffic
from tests.outcome_support import T0


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def seen(users: int, rates: dict[str, float], minimum_duration_ms: int = 0) -> Experiment:
    """A record after so many users; time goes on by a millisecond with each."""
    given = definition(expected_rate=0.1, expected_lift=0.5, minimum_duration_ms=minimum_duration_ms)
    tracker = Tracker(TrackerLimits(0.0, 100_000, 10_000, 10**9))
    tracker.command(define(given), ledgers(), T0)
    tracker.command(start(), ledgers(), T0)
    for one in traffic(given, users, rates):
        tracker.outcome(one, 0, one.decided_at_ms)
    tracker.decide(T0 + users)
    return tracker.experiments["test"]


def test_arms_as_people_type_them() -> None:
    given = ("live=champion", "new=version:3,fresh_items=0", "old=frozen:1", "then=checkpoint:latest", "pop=popular")
    arms = read_arms(given, ())
    assert [arm.name for arm in arms if arm.control] == ["live"]
    assert [what(arm) for arm in arms] == [
        "champion",
        "version 3, fresh_items=0",
        "frozen 1",
        "checkpoint latest",
        "popular",
    ]
    assert sum(arm.share for arm in arms) == pytest.approx(1)
    assert [arm.share for arm in read_arms(given[:2], ("live=0.9", "new=0.1"))] == [0.9, 0.1]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--arm", "a=what", "--arm", "b=popular"), "none of champion"),
        (("--arm", "a", "--arm", "b=popular"), "'a' is not NAME=WHAT"),
        (("--arm", "a=champion", "--arm", "b=popular", "--share", "c=0.5"), "no arm is called c"),
        (("--arm", "a=champion", "--arm", "b=popular", "--share", "a=0.5"), "none for b"),
        (("--arm", "a=champion", "--arm", "b=popular", "--share", "a=x", "--share", "b=1"), "'x' is no number"),
    ],
)
def test_arms_that_cannot_be_read(arguments: tuple[str, ...], problem: str) -> None:
    result = run("create", "e", *arguments)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("arms", "shares", "traffic"),
    [
        (("a=champion", "b=popular"), (), 0.2),
        (("a=champion", "b=popular", "c=frozen:1"), (), 0.15),
        (("a=champion", "b=popular"), ("a=0.75", "b=0.25"), 0.4),
        (("a=champion", "b=popular"), ("a=0.95", "b=0.05"), 1.0),
    ],
)
def test_a_tenth_of_all_users_get_a_challenger_by_default(
    arms: tuple[str, ...], shares: tuple[str, ...], traffic: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Command] = []

    def ask(request: Command, timeout_s: float) -> Experiment:
        del timeout_s
        sent.append(request)
        return Experiment()

    monkeypatch.setattr(experiments, "_ask", ask)
    options = [*(f"--arm={arm}" for arm in arms), *(f"--share={share}" for share in shares)]
    for given, expected in (((), traffic), (("--traffic", "0.3"), 0.3)):
        assert run("create", "e", *options, *given).exit_code == 0
        assert sent[-1].define_experiment.definition.traffic == expected


def test_a_definition_is_checked_before_it_is_sent() -> None:
    result = run("create", "e", "--arm", "a=champion", "--arm", "b=popular", "--share", "a=0.5", "--share", "b=0.6")
    assert isinstance(result.exception, InvalidField)
    assert result.exception.field == "arms"


@pytest.mark.parametrize(
    "wrong",
    [
        ("--alpha", "0"),
        ("--rate", "0"),
        ("--lift", "0"),
        ("--minimum-users", "0"),
        ("--minimum-users", str(2**70)),
        ("--minimum-hours", "nan"),
        ("--minimum-hours", "inf"),
        ("--window-hours", "1e300"),
        ("--slow-ms", "-1"),
        ("--slow-ms", "1e12"),
        ("--period-minutes", "nan"),
        ("--hours", "nan"),
        ("--hours", "1e9"),
    ],
)
def test_numbers_that_nobody_can_mean(wrong: tuple[str, str]) -> None:
    result = run("create", "e", "--arm", "a=champion", "--arm", "b=popular", *wrong)
    assert result.exit_code == 2
    assert f"Invalid value for '{wrong[0]}'" in " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("expected_rate", ("--rate", "nan")),
        ("expected_lift", ("--lift", "inf")),
        ("alpha", ("--alpha", "nan")),
        ("traffic", ("--traffic", "nan")),
        ("worthwhile", ("--worthwhile", "nan")),
        ("guardrails.fallback_margin", ("--fallback-margin", "nan")),
        ("guardrails.click_floor", ("--click-floor", "0.05")),
        ("arms[a].share", ("--share", "a=nan", "--share", "b=1")),
        ("floor", ("--thompson", "value", "--floor", "nan")),
        ("period_ms", ("--thompson", "clicks", "--period-minutes", "0.01")),
        ("period_ms", ("--period-minutes", "60")),
    ],
)
def test_what_is_refused_before_it_is_sent(field: str, wrong: tuple[str, ...]) -> None:
    result = run("create", "e", "--arm", "a=champion", "--arm", "b=popular", *wrong)
    assert isinstance(result.exception, InvalidField)
    assert result.exception.field == field


def test_plans() -> None:
    slots = json.loads(run("plan", "--rate", "0.05", "--lift", "0.2", "--json").output)["slots"]
    assert slots == 38_727
    said = run("plan", "--rate", "0.05", "--lift", "0.2", "--slots-a-day", "100000").output
    assert "1.9 days at 100,000 slots a day of which 20% take part" in said
    both = run("plan", "--rate", "0.05", "--lift", "0.2", "--like", "earlier", "--inflation", "2")
    assert "one of the two" in both.output
    for wrong in (("--rate", "5"), ("--inflation", "inf"), ("--slots-a-day", "0"), ("--slots-a-day", "nan")):
        result = run("plan", "--rate", "0.05", "--lift", "0.2", *wrong)
        assert isinstance(result.exception, InvalidField), wrong


def test_a_plan_like_an_earlier_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = seen(3_000, {"a": 0.1, "b": 0.1})
    found = inflation_of(earlier)
    assert found is not None
    assert found == pytest.approx(1, abs=0.1), "slots were independent"
    # The same users, five times each: what one does, one does five times.
    sums = sums_of(earlier.figures[1], "clicks")
    alike = replace(sums, square=5 * sums.square, product=5 * sums.product, size=5 * sums.size, assigned=0.0)
    put_sums(earlier.figures[1], "clicks", alike)
    assert inflation_of(earlier) == pytest.approx(5 * found, rel=0.1)
    monkeypatch.setattr(experiments, "_read", lambda: {"earlier": earlier, "new": Experiment(definition=definition())})
    asked = ("plan", "--rate", "0.05", "--lift", "0.2", "--like")
    planned = json.loads(run(*asked, "earlier", "--json").output)
    assert planned["slots"] == pytest.approx(38_727 * planned["inflation"], rel=0.001)
    assert planned["inflation"] == inflation_of(earlier)
    assert "as in earlier, where the variance was " in run(*asked, "earlier").output
    assert "nobody has clicked in new yet" in run(*asked, "new").output


def test_what_is_said() -> None:
    unknown = seen(300, {"a": 0.1, "b": 0.1})
    (said,) = in_words(unknown)
    assert said.startswith("b: not known yet; at today's traffic in about ")
    (said,) = in_words(seen(6_000, {"a": 0.1, "b": 0.1}))
    assert said == (
        "b: not known yet; a difference of 50 % would be found by now in 90 % of cases, a smaller one takes longer"
    )
    better = seen(6_000, {"a": 0.1, "b": 0.2})
    (said,) = in_words(better)
    assert said.startswith("b is better by ")
    assert said.endswith(" %; you may stop")
    (said,) = in_words(seen(6_000, {"a": 0.1, "b": 0.2}, minimum_duration_ms=90_000_000))
    assert said.endswith("; it runs for 1 day more, as defined")
    (said,) = in_words(seen(6_000, {"a": 0.2, "b": 0.1}))
    assert said.startswith("b is worse by ")
    assert said.endswith("; stop it")
    assert in_words(Experiment(definition=definition(), state=DRAFT)) == ["not started yet"]


def test_how_long_it_takes_is_until_what_is_looked_for_is_found() -> None:
    record = seen(300, {"a": 0.1, "b": 0.1})
    sums, at = sums_of(record.figures[1], "clicks"), boundary(record)
    wanted = 0.5 * sums.control_rate
    slots = slots_until_known(sums, at, wanted)
    variance = sums.variance / sums.slots * slots
    beyond = (wanted * slots - at.two_sided(variance)) / math.sqrt(variance)
    assert NormalDist().cdf(beyond) == pytest.approx(0.9)
    lasted_ms = record.decision.at_ms - record.started_at_ms
    assert remaining_ms(record, "b") <= (slots / sums.slots - 1) * lasted_ms + 1
    assert slots_until_known(sums, at, 10.0) == sums.slots
    assert [duration(ms) for ms in (10, 60_000, 5_400_001, 2.6 * 86_400_000)] == [
        "a minute",
        "1 minute",
        "2 hours",
        "3 days",
    ]


def test_intervals_are_drawn_around_zero() -> None:
    line, scale = drawn(seen(6_000, {"a": 0.1, "b": 0.2}), {})
    assert line.index("│") == scale.index("0", 8) == len("b ") + 20
    assert line.index("│") < line.index("├") < line.index("●") < line.index("┤")
    assert list(drawn(seen(0, {}), {})) == []


def test_what_guardrails_say_is_shown() -> None:
    given = definition(expected_rate=0.1)
    given.guardrails.coverage_margin, given.guardrails.click_floor = 0.2, 0.09
    tracker = Tracker(TrackerLimits(0.0, 100_000, 10_000, 10**9))
    tracker.command(define(given), ledgers(), T0)
    assert list(of_what_else(tracker.experiments["test"])) == []
    tracker.command(start(), ledgers(), T0)
    assert list(of_what_else(tracker.experiments["test"])) == []
    for one in traffic(given, 2_000, {"a": 0.2, "b": 0.05}, variety={"a": 10, "b": 30}):
        tracker.outcome(one, 0, one.decided_at_ms)
    tracker.decide(T0)
    record = tracker.experiments["test"]
    coverage, floor, items = of_what_else(record)
    assert coverage.startswith("b, coverage of the catalogue: not worse; 0.01")
    assert floor.startswith("b, click-through against its floor: worse by 0.04")
    assert ", surely by 0.0" in floor
    assert items.startswith("as varied as so many items shown alike: a 10.")
    content = as_dict(record, {})
    assert content["guardrails"]["b"]["click-through against its floor"]["surely"] > 0  # type: ignore[index]
    assert content["items_shown"] == {"a": pytest.approx(10, rel=0.05), "b": pytest.approx(30, rel=0.05)}


def test_the_truth_stands_beside_what_is_estimated() -> None:
    record = seen(6_000, {"a": 0.1, "b": 0.2})
    truths = {"a": Truth(9, 1_000.0, 100.0), "b": Truth(9, 1_000.0, 205.0)}
    line, _ = drawn(record, {"b": 1.05})
    assert line.index("├") < line.index("◆") < line.index("┤")
    assert list(in_truth(record, truths)) == [
        "in truth b +105.0%: 20.50% of slots, and 10.00% of a's, on average over the simulated shoppers' chances"
    ]
    assert as_dict(record, truths)["truth"] == {
        "a": {"pages": 9, "rate": 0.1, "effect": None},
        "b": {"pages": 9, "rate": 0.205, "effect": pytest.approx(1.05)},
    }
    assert list(in_truth(record, {})) == []
    assert as_dict(record, {})["truth"] == {}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else object())
    result = run("plan", "--rate", "0.05", "--lift", "0.2")
    assert str(result.exception) == "experiments need scipy: pip install 'millrace[experiment-tracker]'"
