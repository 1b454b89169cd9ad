"""The claims of `make statistics` on 200 runs each: seeds are fixed, and bounds are where chance does not reach.

A share of .05 exceeds ``AT_MOST`` of 200 runs with a probability of less than 1 in 1,000.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import statistics
from benchmarks.claims import Row, seed_of, share_row
from benchmarks.guarded import GUARDED, watch_guardrail
from benchmarks.ratios import alarms, tolerated
from benchmarks.regret import regrets
from benchmarks.statistics import NULLS, OURS, flat, null_rows
from benchmarks.tracked import watch_tracker
from benchmarks.watched import BLOCK, Runs, Scene, Users, watch
from millrace.experiments.comparison import Comparison
from millrace.experiments.srm import log_evidence, mismatch

RUNS = 200
AT_MOST = int(binom.ppf(0.999, RUNS, 0.05)) / RUNS


@pytest.mark.parametrize("name", NULLS)
def test_equal_arms_are_told_apart_no_more_often_than_promised(name: str) -> None:
    shares = {row.rule: row.value for row in null_rows(name, RUNS)}
    assert shares.pop(OURS) <= AT_MOST
    assert shares["z test at .05, looked at 100 times"] > 2 * AT_MOST


@pytest.mark.parametrize("users", ["independent", "sessions", "returning"])
@pytest.mark.parametrize("thompson", [False, True])
def test_the_simulated_sums_are_those_of_the_library(users: Users, thompson: bool) -> None:
    """Three blocks of one run, slot by slot through ``Comparison``: the same sums, to rounding."""
    scene = Scene(flat, users=users, spread=0.1 if users != "independent" else 0.0, share=0.3, thompson=thompson)
    run = Runs(scene, 1, np.random.default_rng(1), 0.05)
    comparison = Comparison()
    for start in range(0, 3 * BLOCK, BLOCK):
        if thompson:
            run.share = np.full((1, 1), 0.3 + start / BLOCK / 10)
        shares = (float(run.share[0, 0]), 1 - float(run.share[0, 0]))
        b, clicked = run.draw(start)
        run.look(start, b, clicked)
        users_here = start + np.arange(BLOCK) if users == "independent" else run.places(start)
        for user, arm, click in zip(users_here, b[0], clicked[0], strict=True):
            comparison.add(str(user), not arm, shares, float(click), start // BLOCK if thompson else 0)
    sums = comparison.sums
    assert run.sums[:, 0, 0][[0, 4, 5]] == pytest.approx([sums.difference, sums.clicks, sums.assigned])
    if users != "independent":
        assert run.sums[:, 0, 0][[1, 2]] == pytest.approx([sums.square, sums.product])
        assert run.size == sums.size
    else:
        assert run.sums[3, 0, 0] == pytest.approx(sums.square)


def test_a_fifth_more_is_found_and_a_fifth_less_is_stopped() -> None:
    """.9 in the long run; of 200 runs, .84 is missed with a probability of less than 1 in 100."""
    assert (watch(Scene(flat, lift=0.2), 200, 1).better > 0).mean() > 0.84
    assert (watch(Scene(flat, lift=-0.2), 200, 1).worse > 0).mean() > 0.84


def test_the_ratio_tests_counts_are_those_of_its_evidence() -> None:
    least = tolerated(2_000)
    for users in (1, 10, 101, 1_000, 2_000):
        counts = range(users // 2 + 1)
        borne = [count for count in counts if not mismatch(float(log_evidence([count, users - count], [0.5, 0.5])))]
        assert least[users - 1] == borne[0]


def test_a_right_split_is_left_alone_and_a_wrong_one_is_found() -> None:
    assert (alarms(0.5, RUNS, 1) > 0).sum() <= binom.ppf(0.999, RUNS, 0.01)
    assert (alarms(0.52, 200, 1) > 0).mean() > 0.9


def test_thompson_sampling_loses_less_than_equal_shares() -> None:
    thompson, uniform = regrets(20, 1)
    assert thompson[-1] < 0.7 * uniform[-1]
    assert (np.diff(thompson) > 0).all()


def test_the_tracker_itself_tells_equal_arms_apart_no_more_often_than_promised() -> None:
    """30 experiments, each restarted once: more than 6 false decisions happen in less than 1 of 1,000 such tests."""
    decided = watch_tracker(30, 1)
    assert decided.ours <= binom.ppf(0.999, 30, 0.05)
    assert decided.z > decided.ours
    assert watch_tracker(10, 1, lift=0.8).ours >= 8


def test_the_tracker_with_moving_shares_does_as_well() -> None:
    decided = watch_tracker(10, 2, thompson=True)
    assert decided.ours <= binom.ppf(0.999, 10, 0.05)
    assert watch_tracker(4, 2, lift=0.8, thompson=True).ours >= 3


@pytest.mark.parametrize("name", GUARDED)
def test_guardrails_of_the_tracker_stop_what_is_not_borne(name: str) -> None:
    stopped = sum(slots > 0 for slots in watch_guardrail(GUARDED[name], 5, 1))
    if name.endswith((".alike", ".at_it")):
        assert stopped <= binom.ppf(0.999, 5, 0.05)
    else:
        assert stopped >= 4


def test_earlier_activity_leaves_less_to_chance_and_the_promise_as_it_is() -> None:
    plain, explained = (watch_tracker(8, 3, earlier_activity=asked) for asked in (False, True))
    assert explained.ours <= binom.ppf(0.999, 8, 0.05)
    ratios = np.array(explained.errors) / np.array(plain.errors)
    assert 0.6 < np.median(ratios) < 0.85


def test_limits_are_clopper_and_pearsons() -> None:
    """0 of n: 1 - .05^(1/n), the rule of three; all of n: .05^(1/n) from below."""
    assert share_row("a", "r", 0, 100, 0.055).limit == pytest.approx(1 - 0.05**0.01)
    assert share_row("a", "r", 100, 100, 0.9, least=True).limit == pytest.approx(0.05**0.01)
    assert share_row("a", "r", 500, 10_000, 0.055).ok
    assert not share_row("a", "r", 520, 10_000, 0.055).ok
    assert not share_row("a", "r", 90, 100, 0.9, least=True).ok


def test_rows_are_kept_as_promised(tmp_path: Path) -> None:
    row = Row("null.flat.fixed", OURS, 0.04, 0.055, True, 10, seed_of("null.flat.fixed"))
    statistics.write([row], tmp_path / "statistics.json")
    (kept,) = json.loads((tmp_path / "statistics.json").read_text(encoding="utf-8"))["rows"]
    assert {"name", "rule", "value", "bound", "ok", "runs", "seed"} <= kept.keys()
    assert kept["seed"] == seed_of("null.flat.fixed") != seed_of("null.flat.thompson")
    assert not any(isinstance(value, float) and math.isnan(value) for value in kept.values())
