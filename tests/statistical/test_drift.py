"""The claims of `make statistics` on drift, in short: seeds are fixed, and bounds are where chance does not reach."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom, chi2, poisson

from benchmarks import drift_claims, drift_document, statistics
from benchmarks.claims import median_row, rate_row, share_row
from benchmarks.drift_claims import BETWEEN, credulous, ours
from benchmarks.drifting_features import alike_days, looks_until_found, single_alarm, stability_alarms, watch_features
from benchmarks.drifting_labels import Always, Never, Stream, delays, false_alarms
from millrace.drift.block import Baseline, Block
from millrace.drift.cells import jensen_shannon
from millrace.drift.e_detector import EDetector
from millrace.drift.kolmogorov_smirnov import kolmogorov_smirnov
from millrace.drift.river_detectors import adwin

OUTCOMES = 10 * BETWEEN
STREAMS = 5
AT_MOST = int(poisson.ppf(0.999, OUTCOMES / BETWEEN))


@pytest.mark.parametrize(
    ("stream", "reference"),
    [
        (Stream(), 100_000),
        (Stream(), 5_000),
        (Stream(spread=0.1), 100_000),
        (Stream(swing=0.4, looked_for=True), 100_000),
    ],
    ids=["plain", "small reference", "users", "season"],
)
def test_labels_that_do_not_change_alarm_no_more_often_than_the_dial_says(stream: Stream, reference: int) -> None:
    rng = np.random.default_rng(1)
    assert false_alarms(ours, stream, reference, STREAMS, OUTCOMES // STREAMS, rng) <= AT_MOST


def test_what_is_not_allowed_for_shows() -> None:
    """Users taken as independent, and a day taken as flat: each alone gives more than twice what was promised."""
    for stream in (Stream(spread=0.1), Stream(swing=0.4)):
        rng = np.random.default_rng(2)
        assert false_alarms(credulous, stream, 100_000, STREAMS, OUTCOMES // STREAMS, rng) > 2 * AT_MOST


@pytest.mark.parametrize(("after", "bound"), [(0.07, 2_000), (0.10, 450), (0.03, 2_000)])
def test_a_change_of_the_click_through_is_found_soon(after: float, bound: int) -> None:
    assert np.median(delays(ours, Stream(), after, 60, np.random.default_rng(3))) <= bound


def test_always_and_never_are_what_they_say() -> None:
    rng = np.random.default_rng(4)
    assert false_alarms(lambda _: Always(), Stream(), 100, 1, 2_000, rng) == 100
    assert false_alarms(lambda _: Never(), Stream(), 100, 1, 2_000, rng) == 0
    assert delays(lambda _: Never(), Stream(), 0.5, 1, rng) == [40_000.0]
    assert delays(lambda _: Always(), Stream(), 0.5, 1, rng) == [20.0]


def test_a_tenth_of_the_dial_is_slower_and_alarms_less() -> None:
    """The dial is what it promises to be: between two settings, alarms are about as many times as many."""
    alarms = [
        false_alarms(
            lambda baseline, often=often: EDetector(baseline, often),  # type: ignore[misc]
            Stream(),
            200_000,
            5,
            400_000,
            np.random.default_rng(5),
        )
        for often in (2_000, 20_000)
    ]
    assert 5 < alarms[0] / alarms[1] < 20
    assert alarms[0] <= poisson.ppf(0.999, 1_000)


def test_adwin_finds_a_doubled_rate_too() -> None:
    found = delays(lambda _: adwin(), Stream(size=1), 0.10, 3, np.random.default_rng(6), warm=20_000)
    assert max(found) < 5_000


def test_a_small_shift_of_a_feature_is_none_and_a_larger_one_is_found() -> None:
    rng = np.random.default_rng(7)
    assert not any(single_alarm(0.02, rng)[0] for _ in range(20))
    assert all(single_alarm(0.2, rng)[0] for _ in range(20))
    assert any(single_alarm(0.02, rng)[1] for _ in range(20)), "evidence alone is found of what nobody cares for"


def test_the_stability_index_is_judged_by_the_number_of_values() -> None:
    for size in (100, 1_000):
        null, tenth = stability_alarms(size, 200, np.random.default_rng(8))
        assert null <= binom.ppf(0.999, 200, 0.05)
        assert (tenth > 150) == (size == 100)


def test_days_that_differ_as_they_did_are_no_drift() -> None:
    """The first-order correction alone alarms in 7 % here: its statistic has one direction, not fifteen."""
    for method in (kolmogorov_smirnov, jensen_shannon):
        found = alike_days(method, 200, np.random.default_rng(11))
        assert found.days <= binom.ppf(0.999, 200, 0.01)
        assert found.independent > 100


def test_a_season_and_levels_that_wander_are_no_drift_and_a_moved_feature_is() -> None:
    rng = np.random.default_rng(9)
    seen = watch_features(rng, naive=True, looks=300)
    assert not seen.ours
    assert seen.independent, "values taken as independent drift all the time"
    assert looks_until_found(1.0, rng) <= 48


def test_limits_are_exact_ones() -> None:
    """No alarm where three were expected: the rule of three; the median's order statistic; Garwood's of 5."""
    assert rate_row("a", "r", 0, 3.0, 1).limit == pytest.approx(-np.log(0.05) / 3.0)
    assert rate_row("a", "r", 5, 10.0, 1, bound=1.1).limit == pytest.approx(chi2.ppf(0.95, 12) / 20)
    assert rate_row("a", "r", 5, 10.0, 1, bound=1.1).ok
    assert not rate_row("a", "r", 5, 10.0, 1, bound=1.0).ok
    row = median_row("a", "r", list(range(1, 101)), bound=60)
    assert (row.value, row.limit, row.ok) == (50.5, 59.0, True)
    assert not median_row("a", "r", list(range(1, 101)), bound=55).ok
    assert share_row("a", "r", 0, 100, 0.05).ok


def test_a_part_that_is_run_again_leaves_all_other_rows(tmp_path: Path) -> None:
    file = tmp_path / "statistics.json"
    statistics.write([share_row("a", "r", 1, 10), share_row("b", "r", 1, 10)], file)
    statistics.write([share_row("b", "r", 2, 10)], file)
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [(row["name"], row["value"]) for row in rows] == [("a", 0.1), ("b", 0.2)]
    refused = CliRunner().invoke(statistics.main, ["--only", "nothing"])
    assert refused.exit_code == 2
    assert "drift.alarms" in refused.output


def test_the_document_says_what_the_rows_say_and_what_is_not_measured(tmp_path: Path) -> None:
    page = tmp_path / "drift.md"
    drift_document.write([], page)
    assert page.read_text(encoding="utf-8").count(drift_document.NOT_MEASURED) == len(drift_document.CLAIMS)
    rows = [
        rate_row("drift.null", drift_claims.OURS, 3, 10.0, 60, bound=1.0),
        median_row("drift.delay.0.05_0.07", f"{drift_claims.OURS}, 0.05 to 0.07", [3_000.0] * 9, bound=2_000),
        median_row("drift.delay.0.05_0.07", "ADWIN, delta .002", [40_000.0] * 9),
    ]
    drift_document.write(rows, page)
    text = page.read_text(encoding="utf-8")
    assert "| labels, nothing changes: alarms over what the dial promises | ≤ 1 | 0.30 (≤ 0.78) | 60 | holds |" in text
    assert "| ≤ 2,000 | 3,000 (≤ 3,000) | 9 | **does not hold** |" in text
    assert "| ADWIN | not within 40,000 |" in text
    assert text.count(drift_document.NOT_MEASURED) == len(drift_document.CLAIMS) - 2 + 3
    assert (tmp_path / "drift" / "labels.svg").exists()


def test_the_document_is_of_the_rows_that_are_kept(tmp_path: Path) -> None:
    drift_document.write(drift_document.load(), tmp_path / "drift.md")
    written = (tmp_path / "drift.md").read_text(encoding="utf-8")
    assert drift_document.DOCUMENT.read_text(encoding="utf-8") == written, "python -m benchmarks.drift_document"


def test_every_part_gives_rows_with_bounds() -> None:
    rows = list(drift_claims.cost_rows())
    assert {row.name for row in rows} == {"drift.cost.outcome", "drift.cost.check"}
    assert all(row.value > 0 for row in rows)
    assert any(row.bound for row in rows)


def test_a_reference_of_another_rate_is_found_from_the_first_outcome_on() -> None:
    for rate in (0.025, 0.1):
        baseline = Baseline.of([Block(100_000, 100_000 * rate, 100_000.0)])
        (delay,) = delays(lambda _, baseline=baseline: ours(baseline), Stream(), 0.05, 1, np.random.default_rng(10), 0)  # type: ignore[misc]
        assert delay < 3_000
