"""Change detectors: laws that each of them keeps, the e-detector against direct computation, and river's own."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from river.drift import ADWIN, PageHinkley

from millrace.drift.block import Baseline, Block
from millrace.drift.detector import Change, ChangeDetector
from millrace.drift.e_detector import EDetector
from millrace.drift.history import LIMIT, History
from millrace.drift.river_detectors import RiverDetector, adwin, page_hinkley
from millrace.drift.rolling import Rolling
from millrace.errors import InvalidField

REFERENCE = Baseline.of([Block(100_000, 5_000.0, 100_000.0)])


def e_detector() -> EDetector:
    return EDetector(REFERENCE, 200_000)


MAKERS: list[Callable[[], ChangeDetector]] = [e_detector, adwin, page_hinkley]
BLOCKS = st.lists(
    st.integers(1, 30).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count))), min_size=1, max_size=80
)


def clicks(rate: float, blocks: int, seed: int, size: int = 20) -> list[Block]:
    counts = np.random.default_rng(seed).binomial(size, rate, blocks)
    return [Block(size, float(count), float(size)) for count in counts]


def first(detector: ChangeDetector, blocks: list[Block]) -> Change | None:
    return next((change for block in blocks if (change := detector.update(block))), None)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("after", [0.2, 0.01])
def test_every_detector_sees_a_large_change_either_way(make: Callable[[], ChangeDetector], after: float) -> None:
    # Page and Hinkley's default of 50 is for values of about 1; these are shares of 20 outcomes.
    detector = make() if make is not page_hinkley else page_hinkley(threshold=2.0)
    assert first(detector, clicks(0.05, 300, seed=1)) is None
    change = first(detector, clicks(after, 1_500, seed=2))
    assert change is not None
    assert (change.after > change.before) == (after > 0.05)
    assert 0 < change.since <= change.outcomes
    assert first(detector, clicks(0.05, 50, seed=3)) is None or make is not e_detector, "it begins anew"


@pytest.mark.parametrize("make", MAKERS)
def test_a_change_that_holds_is_said_again_by_what_has_a_reference(make: Callable[[], ChangeDetector]) -> None:
    detector = make()
    changes = [change for block in clicks(0.2, 2_000, seed=4) if (change := detector.update(block))]
    assert (len(changes) > 100) == (make is e_detector), "the others compare with the stream's own past"


def test_what_is_said_of_a_change_is_near_what_it_was() -> None:
    said = []
    for seed in range(30):
        detector = e_detector()
        if first(detector, clicks(0.05, 250, seed=seed)):
            continue  # in 150,000 outcomes, .75 false alarms may be expected
        change = first(detector, clicks(0.08, 1_000, seed=1_000 + seed))
        assert change is not None
        said.append((change.effect, change.outcomes - 5_000 - change.since, change.evidence))
    effects, early, evidence = np.array(said, dtype=float).T
    assert np.median(effects) == pytest.approx(0.6, abs=0.25)
    assert abs(np.median(early)) < 400, "outcomes between the change and where it is said to have been"
    assert (evidence >= 1).all()


@given(BLOCKS)
def test_the_recursion_is_the_sum_over_all_beginnings(given_blocks: list[tuple[int, int]]) -> None:
    """The product of all likelihood ratios since a beginning, times the outcomes of its block, added up."""
    detector = EDetector(REFERENCE, 1e90)
    blocks = [Block(count, float(total), float(count)) for count, total in given_blocks]
    alarms = [detector.update(block) for block in blocks]
    assume(not any(alarms))  # hundreds of clicks in a row are more than 1e90
    for each in detector.directions:
        mean = REFERENCE.ratio * each.mean
        changed = mean * math.exp(each.slope) / (1 + mean * math.expm1(each.slope))
        ratios = [
            (changed / mean) ** block.total * ((1 - changed) / (1 - mean)) ** (block.count - block.total)
            for block in blocks
        ]
        expected = sum(block.count * math.prod(ratios[at:]) for at, block in enumerate(blocks))
        assert each.value == pytest.approx(expected, rel=1e-9)


def test_with_twice_the_dispersion_an_outcome_is_half_the_evidence() -> None:
    one, two = (EDetector(Baseline(0.05, 0.05, 1e-12, dispersion), 1e90) for dispersion in (1.0, 2.0))
    for detector in (one, two):
        detector.update(Block(20, 4.0, 20.0))
    for single, double in zip(one.directions, two.directions, strict=True):
        assert math.log(double.value / 20) == pytest.approx(math.log(single.value / 20) / 2, abs=1e-9)


@pytest.mark.parametrize("outcomes", [5_000, 100_000])
def test_the_margin_makes_up_for_what_the_reference_may_have_been(outcomes: int) -> None:
    """Over references as wrong as they may be, an excursion is worth 1 on average: by integration, at its length.

    The length is that of the climb to the limit, at the pace at which the ratio grows after such a change.
    """
    baseline = Baseline.of([Block(outcomes, outcomes * 0.05, float(outcomes))])
    deviations = np.linspace(-6, 6, 2_001)
    density = np.exp(-(deviations**2) / 2) / math.sqrt(2 * math.pi) * (deviations[1] - deviations[0])
    for each in EDetector(baseline, 200_000).directions:
        gain = math.expm1(each.slope)
        changed = baseline.rate * math.exp(each.slope) / (1 + baseline.rate * gain)
        pace = changed * each.slope - math.log1p(baseline.rate * gain)
        length = math.log(200_000 * pace / each.weight) / pace
        true = baseline.rate * (1 + deviations * baseline.error)
        growth = np.log1p(true * gain) - math.log1p(baseline.rate * each.mean * gain)
        worth = float(density @ np.exp(length * growth))
        assert (each.mean > 1) == (each.slope > 0)
        assert worth == pytest.approx(1.0, abs=0.15)
        without = float(density @ np.exp(length * (np.log1p(true * gain) - math.log1p(baseline.rate * gain))))
        assert without > 1.03 * worth


def test_what_always_happens_is_no_evidence() -> None:
    detector = EDetector(Baseline(1.0, 0.99, error=0.5), 1e90)
    detector.update(Block(10, 10.0, 10.0))
    assert all(each.value <= 10 * (1 + 1e-12) for each in detector.directions)
    detector.update(Block(10, 10.0, 30.0))
    assert all(each.value <= 20 * (1 + 1e-12) for each in detector.directions), "nor where more than 1 was expected"


def test_nothing_of_before_an_alarm_is_in_the_next_one() -> None:
    detector = e_detector()
    changes = [change for block in clicks(0.5, 100, seed=12) if (change := detector.update(block))]
    assert len(changes) > 10
    assert sum(change.outcomes for change in changes) <= 2_000
    assert all(change.since <= change.outcomes for change in changes)
    assert sum(block.count for block in detector.history.blocks) == detector.outcomes


def test_the_statistic_grows_by_one_an_outcome_while_the_mean_is_right() -> None:
    """By enumeration of all totals of a block: its expectation is what it was, and the block's outcomes."""
    exact = Baseline(0.05, 0.05, error=1e-12)
    for before in (0.0, 1_234.5):
        expected = np.zeros(6)
        for total in range(6):
            detector = EDetector(exact, 1e90)
            for each in detector.directions:
                each.value = before
            detector.update(Block(5, float(total), 5.0))
            chance = math.comb(5, total) * 0.05**total * 0.95 ** (5 - total)
            expected += chance * np.array([each.value for each in detector.directions])
        assert expected == pytest.approx(before + 5, rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_outcomes_between_0_and_1_are_never_more_evidence(values: list[float], weights: list[float]) -> None:
    """The mean of the ratio over any distribution on [0, 1] is at most 1, where its mean is the expected one."""
    size = min(len(values), len(weights))
    outcomes, chance = np.array(values[:size]), np.array(weights[:size]) + 0.01
    chance /= chance.sum()
    mean = float(chance @ outcomes)
    if not 0.001 < mean < 0.999:
        return
    ratios = np.zeros(6)
    for outcome, probability in zip(outcomes, chance, strict=True):
        detector = EDetector(Baseline(1.0, mean, error=1e-12), 1e90)
        detector.update(Block(1, min(float(outcome), 1.0), mean))
        ratios += probability * np.array([each.value for each in detector.directions])
    assert (ratios <= 1 + 1e-9).all()


def test_several_workers_blocks_are_the_blocks_of_the_whole() -> None:
    """The stream is divided by chance; merged by the time of the block, the detector is in the very same state."""
    rng = np.random.default_rng(5)
    whole, halves = Rolling[Block](1_000), [Rolling[Block](1_000), Rolling[Block](1_000)]
    for at, clicked, who in zip(range(9_000), rng.random(9_000) < 0.05, rng.random(9_000) < 0.3, strict=True):
        block = Block(1, float(clicked), 1.0)
        whole.add(at // 30, block)
        halves[int(who)].add(at // 30, block)
    halves[0].merge(halves[1])
    states = []
    for rolling in (whole, halves[0]):
        detector = e_detector()
        for _, block in rolling.in_order():
            detector.update(block)
        states.append(detector.state())
    assert states[0] == states[1]


def test_a_detector_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    blocks = clicks(0.055, 600, seed=6)
    whole, before, after = e_detector(), e_detector(), e_detector()
    for block in blocks[:400]:
        before.update(block)
    after.resume(json.loads(json.dumps(before.state())))
    assert [whole.update(block) for block in blocks][400:] == [after.update(block) for block in blocks[400:]]
    assert whole.state() == after.state()
    with pytest.raises(InvalidField, match="values"):
        after.resume({**before.state(), "values": [1.0]})


def test_adwin_is_rivers_own_for_single_outcomes() -> None:
    outcomes = (np.random.default_rng(7).random(6_000) < np.repeat([0.05, 0.15], 3_000)).astype(float)
    detector, rivers = adwin(), ADWIN(delta=0.002)
    for at, outcome in enumerate(outcomes):
        rivers.update(outcome)
        change = detector.update(Block(1, float(outcome), 1.0))
        assert (change is not None) == rivers.drift_detected
        if change is not None:
            assert change.outcomes == at + 1
            assert change.after - change.before == pytest.approx(0.1, abs=0.08)
            return
    pytest.fail("a change of .1 in 3,000 outcomes was not seen")


def test_after_an_alarm_the_past_of_the_stream_is_forgotten() -> None:
    outcomes = np.random.default_rng(15).random(9_000) < np.repeat([0.05, 0.3, 0.12], 3_000)
    blocks = [Block(1, float(outcome), 1.0) for outcome in outcomes]
    detector, at = adwin(), 0
    while not detector.update(blocks[at]):
        at += 1
    fresh = adwin()
    rest = [(detector.update(block), fresh.update(block)) for block in blocks[at + 1 :]]
    assert all(one == two for one, two in rest)
    assert any(one for one, _ in rest)


def test_an_alarm_at_the_first_block_knows_no_before() -> None:
    class Hasty(PageHinkley):
        drift_detected = True

    change = RiverDetector(Hasty(min_instances=1)).update(Block(2, 1.0, 2.0))
    assert change is not None
    assert (change.outcomes, change.since, change.after) == (2, 2, 0.5)
    assert math.isnan(change.before)


def test_history_is_bounded_and_loses_no_outcome() -> None:
    history = History()
    for at in range(5_000):
        history.append(Block(1, float(at % 20 == 0), 1.0), begins_ms=at)
        assert len(history.blocks) <= LIMIT
    assert sum(block.count for block in history.blocks) == 5_000
    assert [block.count for block in history.blocks[-64:]] == [1] * 64
    assert history.blocks[0].count == max(block.count for block in history.blocks)
    assert history.begins == [0, *itertools.accumulate(block.count for block in history.blocks[:-1])]


def test_a_change_has_the_time_of_its_first_outcome_if_blocks_have_times() -> None:
    stream = [*clicks(0.05, 300, seed=1), *clicks(0.08, 1_000, seed=2)]
    detector, silent = e_detector(), e_detector()
    change = next(found for at, block in enumerate(stream) if (found := detector.update(block, 20 * at)))
    assert change.since_ms == change.outcomes - change.since
    silently = first(silent, stream)
    assert silently == replace(change, since_ms=0)
    # A state of before there were times.
    detector.update(stream[0], 20)
    detector.resume(detector.state() | {"blocks": [block[:3] for block in detector.state()["blocks"]]})
    assert detector.history.begins == [0]


def test_baselines_know_their_own_error() -> None:
    """The binomial standard error, by its formula; ten times as many outcomes, a third of it; users alike, more."""
    assert pytest.approx(math.sqrt(0.95 / 5_000), rel=0.01) == REFERENCE.error
    few = Baseline.of([Block(10_000, 500.0, 10_000.0)])
    assert few.error == pytest.approx(REFERENCE.error * math.sqrt(10), rel=0.01)
    rates = np.random.default_rng(8).beta(0.5, 9.5, 3_000)
    users = np.random.default_rng(9).binomial(20, rates)
    alike = Baseline.of([Block(20, float(count), 20.0) for count in users])
    assert alike.dispersion == pytest.approx(1 + 19 / 11, rel=0.1)
    assert alike.error == pytest.approx(math.sqrt(alike.dispersion * (1 - alike.rate) / users.sum()), rel=0.01)


def test_a_reference_of_ten_outcomes_or_none_gives_a_detector_that_keeps_silent() -> None:
    for total, count in ((0.0, 10), (1.0, 10), (10.0, 10)):
        baseline = Baseline.of([Block(count, total, float(count))])
        assert 0 < baseline.rate < 1
        assert first(EDetector(baseline, 200_000), clicks(baseline.rate, 200, seed=10)) is None
    with pytest.raises(InvalidField, match="reference outcomes"):
        Baseline.of([])


def test_calibration_and_hours_are_watched_by_what_is_expected() -> None:
    """Scores that swing by 80 % and are right are no change; the same ones, half too high, are."""
    rng = np.random.default_rng(11)
    scores = 0.05 * (1 + 0.8 * np.sin(np.arange(100_000) / 2_000))
    labels = rng.random(100_000) < scores

    def found(expected: np.ndarray) -> Change | None:
        parts = range(0, 100_000, 50)
        blocks = [Block(50, float(labels[at : at + 50].sum()), float(expected[at : at + 50].sum())) for at in parts]
        return first(EDetector(Baseline(1.0, 0.05, error=0.01), 200_000), blocks)

    assert found(scores) is None
    change = found(1.5 * scores)
    assert change is not None
    assert change.effect < -0.2


@pytest.mark.parametrize(
    "wrong", [(1, 2.0, 1.0), (1, math.nan, 1.0), (-1, 0.0, 0.0), (1, 0.0, math.inf), (1, -0.1, 1.0)]
)
def test_blocks_that_cannot_be_are_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(InvalidField):
        Block(*wrong)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidField, match="between_false_alarms"):
        EDetector(REFERENCE, 1.0)
    with pytest.raises(InvalidField, match="dispersion"):
        Baseline(1.0, 0.5, 0.1, dispersion=0.5)
    with pytest.raises(InvalidField, match="baseline"):
        Baseline(1.0, 1.5, 0.1)


def test_empty_blocks_change_nothing_and_absurd_ones_alarm_at_once() -> None:
    for make in MAKERS:
        assert make().update(Block(0, 0.0, 0.0)) is None
    change = e_detector().update(Block(10**9, 1e9, 1e9))
    assert change is not None
    assert change.evidence is not None
    assert math.isfinite(change.evidence)
