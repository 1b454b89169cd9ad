"""``bench freshness-value``: what a tiny month puts into rows and results, and that the document says what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import freshness_value
from benchmarks.freshness_value import document, results
from benchmarks.freshness_value.clock import Click, clock
from benchmarks.freshness_value.document import CLAIMED
from benchmarks.freshness_value.drawings import window_means
from benchmarks.freshness_value.figures import FIGURES, figures_of, lowest
from benchmarks.freshness_value.recovering import recovery
from benchmarks.freshness_value.results import SEED, Results
from benchmarks.freshness_value.words import ARMS, MOVED_BY
from benchmarks.report import Row
from millrace.cli.main import cli
from millrace.evaluation.month import WAYS
from millrace.simulation.days import DAY_S
from millrace.simulation.worlds import WORLDS

TINY = {
    name: replace(kind, plan=replace(kind.plan, sessions_per_day=2.0), shoppers=10, items=20)
    for name, kind in WORLDS.items()
}


@dataclass
class Measured:
    rows: Mapping[str, Row]
    said: list[str]
    file: Path
    page: Path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A tiny news month of the seed that is told in full; the shop was not measured."""
    folder, said = tmp_path_factory.mktemp("freshness"), list[str]()
    file, page = folder / "results.json", folder / "docs" / "freshness.md"
    rows = freshness_value.run(said.append, ["news"], SEED, TINY, file, page)
    return Measured({row.name: row for row in rows}, said, file, page)


def test_rows_of_a_tiny_month(measured: Measured) -> None:
    assert measured.said[-1] == "news, popularity: day 37 of 37"
    live, nightly = (measured.rows[f"freshness_value.news.click_through.{name}"] for name in ("live", "nightly"))
    above = measured.rows["freshness_value.news.click_through.nightly.live_above"]
    assert above.value == pytest.approx(live.value / nightly.value - 1, abs=1e-3)
    assert live.low is not None
    assert live.high is not None
    assert live.low < live.value < live.high
    assert live.seed == SEED
    for name in WAYS:
        took = measured.rows[f"freshness_value.news.conversion.{name}.recovered_after"]
        assert took.unit in ("days", "days, not yet")
        assert 3 <= took.value <= 13


def test_every_arm_and_day_is_kept(measured: Measured) -> None:
    (month,) = results.read(measured.file).months
    assert (month["world"], month["seed"]) == ("news", SEED)
    for what in FIGURES:
        assert set(month["figures"][what]) == set(WAYS) == set(ARMS)
        assert {len(own["by_day"]) for own in month["figures"][what].values()} == {30}


def test_a_month_replaces_that_of_its_world_and_seed_only(measured: Measured, tmp_path: Path) -> None:
    (month,) = results.read(measured.file).months
    file = tmp_path / "results.json"
    for seed, wall_s in ((8, 1.0), (SEED, 2.0), (8, 3.0)):
        results.add({**month, "seed": seed, "wall_s": wall_s}, file)
    found = results.read(file)
    assert [(one["seed"], one["wall_s"]) for one in found.months] == [(SEED, 2.0), (8, 3.0)]
    told = document.text(found)
    assert "## Other worlds of the same kinds" in told
    assert "| news | 8 | click-through |" in told


def test_the_document_is_of_the_results_and_says_what_is_missing(measured: Measured, tmp_path: Path) -> None:
    text = measured.page.read_text(encoding="utf-8")
    assert "**Not measured yet**: shop." in text
    assert "python -m benchmarks.freshness_value --globo" in text
    assert "## Other worlds of the same kinds" not in text
    for name in ARMS.values():
        assert f"| {name} | " in text
    (plot,) = re.findall(r"!\[.*\]\((.*)\)", text)
    assert "tastes shift" in (measured.page.parent / plot).read_text(encoding="utf-8")

    found = results.read(measured.file)
    found.globo = dict.fromkeys(MOVED_BY, 0.125)
    assert "| Globo.com | set by |" in document.text(found)
    page = tmp_path / "empty.md"
    document.write(Results([], {}), page)
    empty = page.read_text(encoding="utf-8")
    assert "**Not measured yet**: news and shop." in empty
    assert "![" not in empty


@pytest.mark.parametrize(
    ("above", "verdict"),
    [
        ([0.5, 0.4, 0.6], "above the claim"),
        ([0.3, 0.2, 0.4], "above, the interval reaches what is claimed"),
        ([0.2, 0.1, 0.3], "as claimed"),
        ([0.1, 0.0, 0.2], "below, the interval reaches what is claimed"),
        ([0.05, 0.01, 0.09], "below the claim"),
        ([0.01, -0.05, 0.07], "below the claim, and the interval includes 0"),
        ([-0.2, -0.3, -0.1], "live is **below** nightly"),
    ],
)
def test_what_is_measured_stands_beside_what_is_claimed(measured: Measured, above: list[float], verdict: str) -> None:
    month = changed(measured, "click_through", nightly={"live_above": {"all": above}})
    assert f"{verdict} |" in document.text(Results([month], {}))
    assert CLAIMED["click_through"] == (0.15, 0.25)


def test_the_document_says_so_where_live_is_not_better(measured: Measured) -> None:
    better, equal = {"live_above": {"all": [-0.1, -0.2, -0.05]}}, {"live_above": {"all": [0.1, -0.1, 0.3]}}
    ahead = {"live_above": {"all": [0.1, 0.05, 0.3]}}
    late = dict.fromkeys(("hourly", "nightly", "nightly_session_known", "weekly"), ahead)
    for popularity, said in (
        (better, "Live is **below** popularity."),
        (equal, "Between live and popularity the interval includes 0"),
        (ahead, "Live is above each of the others"),
    ):
        month = changed(measured, "click_through", **late, popularity=popularity)
        assert said in document.text(Results([month], {}))


@pytest.mark.parametrize(
    ("back", "said"),
    [
        ([0.98, 0.01], "in 98% of the draws of shoppers, later in 1%: earlier."),
        ([0.96, 0.01], "in 96% of the draws of shoppers, later in 1%: no difference is shown."),
        ([0.0, 0.99], "in 0% of the draws of shoppers, later in 99%: **later**."),
    ],
)
def test_recovery_is_told_as_it_is(measured: Measured, back: list[float], said: str) -> None:
    fell: dict[str, Any] = {"by_day": [0.02] * 30, "first_change": [-0.5, -0.6, -0.4]}
    stood = {**fell, "first_change": [0.0, -0.1, 0.1]}
    arms = {**dict.fromkeys(ARMS, stood), "weekly": {**fell, "live_back": back}}
    text = "\n".join(recovery(changed(measured, "click_through", **arms)))
    assert "The shift shows in the click-through of weekly:" in text
    assert f"Live is back earlier than weekly {said}" in text
    text = "\n".join(recovery(changed(measured, "click_through", **dict.fromkeys(ARMS, stood))))
    assert "**The shift does not show in click-through**" in text


def changed(measured: Measured, what: str, **arms: Mapping[str, Any]) -> dict[str, Any]:
    """The month that is told in full, with other figures."""
    month: dict[str, Any] = deepcopy(dict(results.read(measured.file).months[0]))
    for arm, figures in arms.items():
        own = month["figures"][what][arm]
        own.update({name: {**own[name], **new} if isinstance(new, dict) else new for name, new in figures.items()})
    return month


def test_a_mean_of_days_does_not_reach_across_the_shift() -> None:
    means = window_means([1.0, 2.0, 3.0, 4.0, 0.0, 3.0, 6.0, 9.0], shift=4)
    assert means.tolist() == [1.0, 1.5, 2.0, 3.0, 0.0, 1.5, 3.0, 6.0]
    # Mean 2.5; of three days at least 2.
    assert lowest([1.0, 2.0, 3.0, 4.0]) == pytest.approx(2 / 2.5 - 1)


def test_a_month_without_a_shift_is_refused() -> None:
    kind = replace(WORLDS["news"], plan=replace(WORLDS["news"].plan, shift_on=None))
    with pytest.raises(ValueError, match="no days after it"):
        figures_of({"live": np.zeros((37, 1, 7))}, kind, 1)


def test_the_clock_of_clicks() -> None:
    began = 1_000.0
    at = {day: began + day * DAY_S for day in range(12)}
    clicks: list[Click] = [
        # Two visits of two clicks, one of three; ann comes twice and clicks on x again.
        ("ann", "ann-1", "old", at[0]),
        ("ann", "ann-1", "x", at[2]),
        ("ann", "ann-2", "x", at[2] + 7_200),
        ("ann", "ann-2", "y", at[3]),
        ("bob", "bob-1", "x", at[2] + 3_600),
        ("bob", "bob-1", "x", at[2] + 4 * DAY_S),
        ("bob", "bob-1", "z", at[6]),
        ("bob", "bob-2", "late", at[11]),
    ]
    found = clock([("ann", "ann-0", "early", began - 1), *clicks], began)
    assert found["two_clicks"] == pytest.approx(2 / 3, abs=1e-4)
    # x at 0, 1 and 2 hours (not after four days), y at 0; z is first clicked on day 7.
    assert found["hours_median"] == 0.5
    assert found["visits"] == 1.5
    assert found["again"] == pytest.approx(2 / 7, abs=1e-4)
    assert found["clicks_of_item"] == pytest.approx(7 / 4, abs=0.06)
    assert set(found) == set(MOVED_BY)


def test_the_command_writes_the_document_from_results_alone(measured: Measured, tmp_path: Path) -> None:
    from benchmarks.freshness_value.__main__ import main

    page = tmp_path / "freshness.md"
    result = CliRunner().invoke(main, ["--results", str(measured.file), "--document", str(page)])
    assert result.exit_code == 0, result.output
    first = measured.page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8") == first
    assert json.loads(measured.file.read_text(encoding="utf-8"))["globo"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["freshness-value", "--redis-url", "redis://localhost"], "freshness-value needs no servers"),
        (["freshness-value", "--world", "moon"], "--world moon: expected news or shop"),
        (["recommend", "--seed", "8"], "recommend has neither"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["bench", *arguments])
    assert result.exit_code == 2
    assert said in result.output
