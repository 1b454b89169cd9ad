"""The tests of input drift against scipy and published figures, and what they do where there is little or nothing."""

from __future__ import annotations

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, chi2_contingency, f, false_discovery_control, fisher_exact, ks_2samp

from millrace.drift import correction
from millrace.drift.cells import chi_square, jensen_shannon, missing_rate, population_stability
from millrace.drift.compare import compare
from millrace.drift.correction import Dial, holm
from millrace.drift.counts import Counts, Edges
from millrace.drift.dispersion import of_cells
from millrace.drift.evidence import Method
from millrace.drift.kolmogorov_smirnov import kolmogorov_smirnov
from millrace.drift.reference import Reference
from millrace.errors import InvalidField

LEVEL = 0.001
NUMERIC: list[Method] = [kolmogorov_smirnov, jensen_shannon, population_stability, chi_square]


def rounded_up(edges: Edges, values: np.ndarray) -> np.ndarray:
    """Each value as the upper edge of its cell."""
    return np.append(edges.edges, np.inf)[np.searchsorted(edges.edges, values)]


@pytest.mark.parametrize(
    ("n", "m", "shift"), [(2_000, 500, 0.0), (300, 2_000, 0.1), (5_000, 5_000, 0.3), (10, 40, 1.0)]
)
def test_the_distance_is_scipys_of_values_rounded_up_and_its_p_value_a_bound(n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    before, now = (rng.normal(mean, size=size).astype(np.float32) for mean, size in ((0.0, n), (shift, m)))
    reference = Reference.of_numbers("x", before)
    found = kolmogorov_smirnov(reference, reference.cells.count(now), LEVEL)
    scipys = ks_2samp(rounded_up(reference.cells, before), rounded_up(reference.cells, now), method="exact")
    assert found.statistic == found.effect == pytest.approx(scipys.statistic, abs=1e-12)
    exact = ks_2samp(before, now, method="exact")
    assert found.statistic <= exact.statistic + 1e-12
    assert found.statistic >= exact.statistic - max(reference.counts.cells.max() / n, 1 / m)
    assert found.p_value >= min(scipys.pvalue, 1.0) * 0.999
    assert found.p_value <= 3 * scipys.pvalue + 1e-300 or scipys.pvalue > 0.05 or min(n, m) < 100, "and not a loose one"
    assert (found.statistic > found.threshold) == (found.p_value < LEVEL)


def test_shares_agree_with_scipys_chi_square_and_jensen_shannon() -> None:
    rng = np.random.default_rng(1)
    reference = Reference.of_names("device", rng.choice(["phone", "desk", "tv"], 900, p=[0.6, 0.3, 0.1]).tolist())
    window = reference.cells.count(rng.choice(["phone", "desk", "tv", "watch"], 400, p=[0.5, 0.3, 0.1, 0.1]).tolist())
    table = np.array([reference.counts.cells, window.cells])
    g = chi2_contingency(table, correction=False, lambda_="log-likelihood")
    found = chi_square(reference, window, LEVEL)
    assert [found.statistic, found.p_value] == pytest.approx([g.statistic, g.pvalue])
    assert found.threshold == pytest.approx(chi2.isf(LEVEL, 3))
    p, q = table[0] / 900, table[1] / 400
    assert jensen_shannon(reference, window, LEVEL).statistic == pytest.approx(jensenshannon(p, q, 2) ** 2)
    assert found.effect == pytest.approx(np.abs(p - q).sum() / 2)
    assert window.cells[-1] > 0, "a new category is a cell of its own"


def test_the_index_of_population_stability_is_its_formula() -> None:
    """Ten equal shares against .19 in one and .09 in the others: .09 log(1.9) + 9 x (-.01) log(.9) = .0672."""
    reference = Reference("x", Edges(np.arange(9, dtype=np.float32)), np.full((1, 10), 100_000), np.zeros(1, dtype=int))
    window = Counts(np.array([190_000] + [90_000] * 9))
    found = population_stability(reference, window, LEVEL)
    assert found.statistic == pytest.approx(0.09 * math.log(1.9) - 0.09 * math.log(0.9), rel=1e-4)
    assert found.threshold == pytest.approx(chi2.isf(LEVEL, 9) * (1 / 1_000_000 + 1 / 1_000_000))


def test_missing_values_are_tested_in_a_table_of_two_by_two() -> None:
    reference = Reference("x", Edges(np.empty(0, dtype=np.float32)), np.array([[15]]), np.array([5]))
    found = missing_rate(reference, Counts(np.array([7]), 13), LEVEL)
    expected = chi2_contingency([[15, 5], [7, 13]], correction=False, lambda_="log-likelihood")
    assert [found.statistic, found.p_value] == pytest.approx([expected.statistic, expected.pvalue])
    assert found.effect == pytest.approx(13 / 20 - 5 / 20)


@pytest.mark.parametrize(
    "table", [(100_000, 0, 10_000, 3), (100_000, 30, 10_000, 15), (200, 2, 200, 30), (50, 0, 10, 4)]
)
def test_few_missing_values_are_judged_about_as_exactly_as_fisher_does(table: tuple[int, int, int, int]) -> None:
    """Within a factor of six; Pearson's chi-square calls the first 17,000 times too rare."""
    present, missing, present_now, missing_now = table
    reference = Reference("x", Edges(np.empty(0, dtype=np.float32)), np.array([[present]]), np.array([missing]))
    found = missing_rate(reference, Counts(np.array([present_now]), missing_now), LEVEL)
    exact = fisher_exact([[present, missing], [present_now, missing_now]]).pvalue
    assert exact / 6 < found.p_value < 2 * exact


@pytest.mark.parametrize("blocks", [3, 10, 28])
def test_the_p_value_allows_for_the_error_of_the_design_effect(blocks: int) -> None:
    """2 exp(-2 x^2 W) averaged over W = chi-square(f) / f, by scipy's integration."""
    rng = np.random.default_rng(13)
    days = np.repeat(np.arange(blocks), 300)
    reference = Reference.of_numbers("x", rng.normal(size=blocks)[days] * 0.2 + rng.normal(size=len(days)), days)
    freedom = blocks - 1
    assert reference.dispersion.freedom == freedom
    for shift in (0.3, 0.8):
        found = kolmogorov_smirnov(reference, reference.cells.count(rng.normal(shift, size=300)), LEVEL)
        size = len(days) * 300 / (len(days) + 300) / reference.dispersion.effect
        square = found.statistic**2 * size
        averaged = chi2(freedom).expect(lambda w, square=square: 2 * np.exp(-2 * square * w / freedom))
        assert found.p_value == pytest.approx(min(averaged, 1.0), rel=1e-6)
        at = found.threshold**2 * size
        assert chi2(freedom).expect(lambda w, at=at: 2 * np.exp(-2 * at * w / freedom)) == pytest.approx(LEVEL)


def test_where_little_changed_all_tests_of_shares_say_the_same() -> None:
    """Their statistics are the same quadratic form there: so are their p-values, and what is known of one is of all."""
    rng = np.random.default_rng(14)
    reference = Reference.of_numbers("x", rng.normal(size=50_000))
    for shift in (0.0, 0.01, 0.03):
        window = reference.cells.count(rng.normal(shift, size=20_000))
        p_values = [
            method(reference, window, LEVEL).p_value for method in (chi_square, jensen_shannon, population_stability)
        ]
        assert p_values == pytest.approx([p_values[0]] * 3, rel=0.1)


def test_rare_categories_are_put_together_and_new_ones_are_not_among_them() -> None:
    """Forty names of a hundredth each: in a window of 100 values they are one cell, and what is new another."""
    rare = [f"rare-{each}" for each in range(40)]
    reference = Reference.of_names("x", ["often"] * 6_000 + rare * 100)
    now = ["often"] * 60 + ["new"] * 40
    found = chi_square(reference, reference.cells.count(now), LEVEL)
    assert found.threshold == pytest.approx(chi2.isf(LEVEL, 2))
    assert found.effect == pytest.approx(0.4), "what is new is not what was rare"
    assert chi_square(reference, reference.cells.count(["often"] * 60 + rare), LEVEL).p_value > 0.5


def test_days_that_differ_widen_every_threshold() -> None:
    """28 days of 200 values that share a level: another threshold for the same statistic."""
    rng = np.random.default_rng(2)
    days = np.repeat(np.arange(28), 200)
    values = rng.normal(size=28)[days] * 0.5 + rng.normal(size=5_600)
    clustered, plain = Reference.of_numbers("x", values, days), Reference.of_numbers("x", values)
    window = clustered.cells.count(rng.normal(0.2, 1.1, size=200))
    for method in NUMERIC:
        assert method(clustered, window, LEVEL).statistic == pytest.approx(method(plain, window, LEVEL).statistic)
        assert method(clustered, window, LEVEL).threshold > 2 * method(plain, window, LEVEL).threshold


def test_shares_that_vary_together_are_referred_to_an_f_distribution_of_few_degrees() -> None:
    """28 days of 400 values in eight categories that one level moves: about one direction, where cells have seven."""
    rng = np.random.default_rng(12)
    days = np.repeat(np.arange(28), 400)
    levels = rng.normal(size=28)[days] * 0.5 + rng.normal(size=11_200)
    names = np.digitize(levels, [-1.2, -0.7, -0.3, 0.0, 0.3, 0.7, 1.2]).astype(str)
    clustered, plain = Reference.of_names("x", names.tolist(), days), Reference.of_names("x", names.tolist())
    window = clustered.cells.count(rng.permutation(names)[:400].tolist())
    wide, narrow, found = (
        chi_square(clustered, window, LEVEL),
        chi_square(plain, window, LEVEL),
        of_cells(clustered.blocks),
    )
    assert found.directions is not None
    assert 1 < found.directions < 2
    unit = 7 * found.effect / found.directions
    assert wide.threshold == pytest.approx(unit * found.directions * f.isf(LEVEL, found.directions, 27))
    tail = f.sf(wide.statistic / unit / found.directions, found.directions, 27)
    assert wide.p_value == pytest.approx(tail)
    assert narrow.threshold == pytest.approx(chi2.isf(LEVEL, 7))
    assert narrow.statistic == pytest.approx(wide.statistic)


def test_holms_adjustment_is_that_of_the_definition() -> None:
    """By hand; and never above Bonferroni's, never below Benjamini and Hochberg's, which is scipy's."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    p = np.random.default_rng(3).random(50) ** 3
    adjusted = np.array(holm(p.tolist()))
    assert (adjusted <= np.minimum(50 * p, 1)).all()
    assert (adjusted >= false_discovery_control(p) - 1e-12).all()
    assert holm([]) == []
    assert doctest.testmod(correction).failed == 0


def test_size_and_evidence_are_both_needed() -> None:
    rng = np.random.default_rng(4)
    reference = Reference.of_numbers("x", rng.normal(size=100_000))

    def alarms(shift: float, size: int, dial: Dial) -> bool:
        window = reference.cells.count(rng.normal(shift, size=size))
        return any(finding.alarm for finding in compare([reference], {"x": window}, dial))

    loose = Dial(false_alarms_per_day=1.0)
    assert alarms(0.03, 100_000, replace(loose, least_moved=0.0)), "there is evidence"
    assert not alarms(0.03, 100_000, loose), "evidence without size"
    assert alarms(0.2, 100_000, Dial())
    assert not alarms(0.2, 200, Dial()), "size without evidence"


def test_missing_values_are_a_signal_of_their_own() -> None:
    rng = np.random.default_rng(5)
    reference = Reference.of_numbers("x", np.where(rng.random(20_000) < 0.01, np.nan, rng.normal(size=20_000)))
    values = np.where(rng.random(5_000) < 0.05, np.nan, rng.normal(size=5_000))
    found = compare([reference], {"x": reference.cells.count(values)}, Dial())
    assert [(each.evidence.method, each.alarm) for each in sorted(found, key=lambda each: each.evidence.method)] == [
        ("kolmogorov-smirnov", False),
        ("missing", True),
    ]


def test_all_missing_says_that_and_nothing_else() -> None:
    reference = Reference.of_numbers("x", np.random.default_rng(6).normal(size=1_000))
    window = reference.cells.count(np.full(500, np.nan))
    first, second = compare([reference], {"x": window}, Dial())
    assert (first.evidence.method, first.evidence.effect, first.alarm) == ("missing", 1.0, True)
    assert (second.evidence.p_value, second.alarm) == (1.0, False)
    nothing_known = Reference.of_numbers("x", np.full(10, np.nan))
    for method in (*NUMERIC, missing_rate):
        assert not math.isnan(method(nothing_known, nothing_known.cells.count([1.0, 2.0]), LEVEL).p_value)
        assert method(reference, Counts(np.zeros_like(window.cells)), LEVEL).p_value == 1.0


def test_a_constant_feature_may_stay_and_not_move_either_way() -> None:
    reference = Reference.of_numbers("x", np.full(5_000, 3.0))
    for value, moved in ((3.0, False), (3.0 - 1e-6, True), (4.0, True)):
        for method in NUMERIC:
            found = method(reference, reference.cells.count(np.full(1_000, value)), LEVEL)
            assert (found.p_value < LEVEL) == moved, (method, value)


def test_a_reference_of_ten_rows_finds_only_what_ten_rows_can_show() -> None:
    reference = Reference.of_numbers("x", np.arange(10.0))
    alike = reference.cells.count(np.random.default_rng(7).uniform(-0.5, 9.5, 10_000))
    another = reference.cells.count(np.full(10_000, 50.0))
    dial = Dial()
    assert not any(finding.alarm for finding in compare([reference], {"x": alike}, dial))
    assert any(finding.alarm for finding in compare([reference], {"x": another}, dial))
    assert kolmogorov_smirnov(reference, alike, dial.level).threshold > 0.8


def test_a_new_category_alarms_once_there_is_enough_of_it() -> None:
    reference = Reference.of_names("placement", ["home"] * 700 + ["cart"] * 300)
    same, new = ["home"] * 350 + ["cart"] * 150, ["story"] * 60
    for names, alarm in ((same, False), (same + new, True), (same + new[:1], False)):
        found = compare([reference], {"placement": reference.cells.count(names)}, Dial())
        assert any(finding.alarm for finding in found) == alarm


def test_windows_that_do_not_fit_are_refused() -> None:
    reference = Reference.of_numbers("x", [1.0, 2.0, 3.0])
    with pytest.raises(InvalidField, match=r"windows\[x\]: not there"):
        compare([reference], {}, Dial())
    with pytest.raises(InvalidField, match="cells"):
        compare([reference], {"x": Counts(np.zeros(2, dtype=int))}, Dial())
    with pytest.raises(InvalidField, match="one for each of 3 values"):
        Reference.of_numbers("x", [1.0, 2.0, 3.0], [1, 2])


def test_the_dial_is_divided_among_the_looks_and_tests_of_a_day() -> None:
    """One false alarm a day of a feature that is looked at 24 times, with two tests each."""
    assert Dial(false_alarms_per_day=1.0).level == pytest.approx(1 / 48)


@pytest.mark.parametrize(
    "wrong", [{"false_alarms_per_day": 0}, {"false_alarms_per_day": 30}, {"looks_per_day": 0}, {"least_moved": 2}]
)
def test_a_dial_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidField):
        Dial(**wrong)


def test_no_model_without_drift_is_compared_with_nothing() -> None:
    assert compare([], {}, Dial()) == []
