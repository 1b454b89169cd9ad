"""The parts of a training job, from values: slots on disk, search, comparisons, references, gates, golden requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.drift.measures import CLICK_THROUGH, LOG_LOSS, SCORE
from millrace.drift.reference import Reference
from millrace.errors import InvalidField, MillraceError
from millrace.features.segments import SEGMENTS
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import to_vector
from millrace.learning.state import STATE_FILE, fresh
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.first import first_ranker, popularity_ranker
from millrace.ranking.model import UnusableModel
from millrace.ranking.rank import RankedItems, rank
from millrace.registry.gates import GATES_TAG, Gate, against_serving, figures, gate_tags
from millrace.registry.versions import first_state
from millrace.settings import DAY_MS, MINUTE_MS, TrainingSettings
from millrace.stream.window import Window
from millrace.training import fit, gates, golden
from millrace.training.measure import ALL, ORGANIC, Line, Measured, measure
from millrace.training.reference import count_clicks, count_values, known_from, make_reference, settled_before
from millrace.training.slots import NO_SEGMENT, SlotFile, Slots, examples, merge, read_slots, slot_type
from millrace.v1.outcome_pb2 import ImpressionOrigin, Label
from tests.learning_support import D, outcomes
from workers.retrain_orchestrator.scratch import scratch

COUNT = 4_000
DAYS = 3


def made(count: int = COUNT, seed: int = 1) -> Slots:
    """Slots of a world in which one feature says what is clicked; a day of them after the other."""
    random = np.random.default_rng(seed)
    slots = np.zeros(count, slot_type(D))
    slots["features"] = random.normal(size=(count, D))
    slots["label"] = random.random(count) < 1 / (1 + np.exp(2 - 2 * slots["features"][:, 0]))
    slots["label"][::7] = -1
    slots["segment"] = np.where(np.arange(count) % 2, SEGMENTS.index("new"), NO_SEGMENT)
    slots["served"] = slots["segment"] != NO_SEGMENT
    slots["appended_ms"] = slots["served_ms"] = np.arange(count) * DAYS * DAY_MS // count
    return slots


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SlotFile]:
    with SlotFile(tmp_path / "slots", D) as slots:
        slots.append(made())
        yield slots


def test_slots_come_back_as_they_went_in_and_the_file_goes(tmp_path: Path) -> None:
    whole = made(1_000)
    with SlotFile(tmp_path / "slots", D) as slots:
        for part in np.array_split(whole, 300):
            slots.append(part)
        assert len(slots) == 1_000
        assert (np.concatenate(list(slots.blocks(size=77))) == whole).all()
        assert (np.concatenate(list(slots.blocks(10, 900, size=100))) == whole[10:900]).all()
        with pytest.raises(ValueError, match="slots of"):
            slots.append(np.zeros(1, slot_type(D + 1)))
    assert list(tmp_path.iterdir()) == []


def test_partitions_are_merged_by_time_however_they_were_cut(tmp_path: Path) -> None:
    random, whole = np.random.default_rng(4), made(3_000)
    whole["appended_ms"] = np.sort(random.integers(0, 200, len(whole)))  # many at the same time
    whole["served_ms"] = np.arange(len(whole))
    home = random.integers(0, 3, len(whole))
    parts = []
    for number in range(3):
        parts.append(SlotFile(tmp_path / str(number), D))
        parts[-1].append(whole[home == number])
    with SlotFile(tmp_path / "all", D) as merged:
        merge(parts, merged, size=50)
        found = np.concatenate(list(merged.blocks()))
    expected = whole[np.lexsort((whole["served_ms"], home, whole["appended_ms"]))]
    assert (found["served_ms"] == expected["served_ms"]).all()
    for part in parts:
        part.close()


def test_an_outcome_becomes_slots_of_which_those_that_were_seen_teach() -> None:
    [outcome] = outcomes(1)
    outcome.slots[0].label = Label.LABEL_UNSEEN
    outcome.impression.segment, outcome.impression.served_at_ms = "buyer", 17
    read = read_slots(outcome, FEATURE_SCHEMA, D, 99)
    assert read["label"].tolist()[0] == -1
    assert len(examples(read)) == 4
    assert set(read["segment"].tolist()) == {SEGMENTS.index("buyer")}
    assert read["served"].all()
    assert read[["appended_ms", "served_ms"]].tolist() == [(99, 17)] * 5
    outcome.origin = ImpressionOrigin.IMPRESSION_ORIGIN_ORGANIC
    assert not read_slots(outcome, FEATURE_SCHEMA, D, 99)["served"].any()
    del outcome.slots[0].slot.features[3:]  # of a slot that does not even teach
    with pytest.raises(InvalidField, match=r"slots\[0\].slot.features: 3 numbers"):
        read_slots(outcome, FEATURE_SCHEMA, D, 99)


def test_the_search_takes_the_lowest_loss_and_gives_the_same_weights_again(file: SlotFile) -> None:
    parts = fit.Parts.of(len(file), 0.2)
    assert parts == fit.Parts(2_400, 3_200, 4_000)
    worked: list[float] = []
    found = fit.search(file, parts, first_ranker(), 2, worked.append)
    assert sum(worked) == fit.search_work(parts, 2)
    assert len(found.losses) == 12
    assert found.losses[found.chosen] == min(found.losses.values())
    assert found == fit.search(file, parts, first_ranker(), 2)
    one, two = (fit.fit(found.chosen, file, parts.choosing, first_ranker()) for _ in range(2))
    assert (to_vector(one.model()) == to_vector(two.model())).all()
    # A candidate's second pass is what learning twice is.
    twice = OnlineRanker(fit.Candidate("zero", 10.0, 2).begin(first_ranker()))
    for _ in range(2):
        taught = examples(made()[: parts.choosing])
        twice.learn(taught["features"], (taught["label"] == 1).tolist())
    again = fit.fit(fit.Candidate("zero", 10.0, 2), file, parts.choosing, first_ranker())
    np.testing.assert_allclose(to_vector(again.model()), to_vector(twice.model()), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_line_that_begins_with_nothing_stays_finite(seed: int) -> None:
    """Rounding of the first slot once made variances negative, for one in three values of a feature."""
    line = OnlineRanker(fit.Candidate("zero", 0.0, 1).begin(first_ranker()))
    line.learn(np.random.default_rng(seed).normal(size=(3, D)), [True, False, True])
    assert np.isfinite(to_vector(line.model())).all()


def measured(file: SlotFile) -> Measured:
    parts = fit.Parts.of(len(file), 0.5)
    learned = Line(fit.fit(fit.Candidate("zero", 0.0, 1), file, parts.choosing, first_ranker()))
    blind = Line(OnlineRanker(fit.Candidate("zero", 0.0, 1).begin(first_ranker())), [5])
    return measure({"new": learned, "blind": blind}, file, parts.choosing, parts.newest)


def test_a_model_that_knows_more_gains_and_one_that_sees_nothing_learns_nothing(file: SlotFile) -> None:
    found = measured(file)
    assert found.groups == [ALL, "new", ORGANIC]
    assert (
        found.slots[ALL].sum() == found.slots["new"].sum() + found.slots[ORGANIC].sum() == len(examples(made()[2_000:]))
    )
    gain, loss = found.gain("new", "blind"), found.gain("blind", "new")
    assert 0 < gain.low < gain.value < gain.high
    assert (loss.value, loss.high) == pytest.approx((-gain.value, -gain.low))
    assert gain.value == pytest.approx(found.loss("blind") - found.loss("new"))
    assert found.calibration["new"].error < 0.1
    assert found.calibration["new"].count.sum() == found.slots[ALL].sum()
    served = sum(block.count for block in found.hours["new"]["calibration"].values())
    assert served == found.slots["new"].sum()


def test_the_reference_counts_what_was_served(file: SlotFile) -> None:
    model, newest = first_ranker(), 3_000
    values = count_values(file, newest, model)
    served = made()[made()["served"]]
    assert [each.name for each in values] == [*FEATURE_NAMES, SCORE]
    # Counted in blocks on disk it is what it would be in memory.
    expected = Reference.of_numbers(FEATURE_NAMES[3], served["features"][:, 3], served["served_ms"] // DAY_MS)
    reference = values[3].reference()
    assert (reference.cells.edges == expected.cells.edges).all()
    assert (reference.blocks == expected.blocks).all()
    assert values[3].earlier.present + values[3].newest.present == len(served)
    assert values[3].moved() < 0.1
    made_of = make_reference(values, count_clicks(file), {})
    seen = examples(served)
    assert made_of.labels[CLICK_THROUGH].baseline.rate == pytest.approx((seen["label"] == 1).mean(), abs=1e-3)
    assert set(made_of.labels) == {CLICK_THROUGH, f"{CLICK_THROUGH}:new"}


def test_labels_count_where_they_are_settled(tmp_path: Path) -> None:
    """Clicks are known at once, the rest half an hour later: of the end of a window there are clicks alone."""
    shop, random, wait_ms = made(40_000), np.random.default_rng(2), 30 * MINUTE_MS
    shop["label"] = random.random(len(shop)) < 0.05
    shop["served"], shop["segment"] = True, NO_SEGMENT
    shop["appended_ms"] = shop["served_ms"] + np.where(shop["label"] == 1, 0, wait_ms)
    end_ms = DAYS * DAY_MS - 40 * MINUTE_MS
    shop = np.sort(shop[shop["appended_ms"] <= end_ms], order="appended_ms")
    with SlotFile(tmp_path / "slots", D) as slots:
        slots.append(shop)
        settled_ms = settled_before(slots, wait_ms)
        assert 0 < end_ms - wait_ms - settled_ms < 5 * MINUTE_MS
        line = Line(OnlineRanker(fit.Candidate("zero", 0.0, 1).begin(first_ranker())))
        known_ms = known_from(slots, 30_000), settled_ms
        found = measure({"new": line}, slots, 30_000, len(slots), known_ms=known_ms)
        known = make_reference([], count_clicks(slots, settled_ms), found.hours["new"]).labels
        assert known[CLICK_THROUGH].baseline.dispersion < 2
        assert known[CLICK_THROUGH].baseline.rate == pytest.approx(0.05, abs=0.005)
        # Of what was measured neither: of its first half hour, the clicks stand before it.
        counted = sum(block.count for block in found.hours["new"][LOG_LOSS].values())
        served = shop["served_ms"][np.arange(len(shop)) >= 30_000]
        assert 0 < counted == ((served >= shop["served_ms"][:30_000].max()) & (served < settled_ms)).sum()
        last = [count_clicks(slots, *until)[CLICK_THROUGH].popitem()[1].ratio for until in ((), (settled_ms,))]
        assert last == [1.0, pytest.approx(0.05, abs=0.02)]


def test_without_served_slots_there_is_an_empty_reference(tmp_path: Path) -> None:
    with SlotFile(tmp_path / "organic", D) as slots:
        organic = made(100)
        organic["served"] = False
        slots.append(organic)
        assert count_values(slots, 80, first_ranker()) == []
        assert make_reference([], count_clicks(slots), {}).labels == {}


SETTINGS = TrainingSettings(examples_min=1_000, clicks_min=50, segment_examples_min=500)


def test_gates_pass_who_is_better_and_nobody_else(file: SlotFile) -> None:
    found = measured(file)
    assert gates.better(found, "new", "blind", SETTINGS, 0, "it").passed
    asked = SETTINGS.model_copy(update={"gain_min": 10.0})
    assert not gates.better(found, "new", "blind", asked, 0, "it").passed
    worse = gates.better(found, "blind", "new", SETTINGS, 0, "champion 1")
    assert not worse.passed
    assert worse.reason.startswith("gains -0.")
    assert "over champion 1" in worse.reason
    same = gates.better(found, "new", "new", SETTINGS, 0, "itself")
    assert not same.passed
    assert gates.segments(found, "new", "new", SETTINGS, 0).passed
    assert gates.segments(found, "new", "blind", SETTINGS, 0).passed
    assert "worse in new" in gates.segments(found, "blind", "new", SETTINGS, 0).reason
    few = SETTINGS.model_copy(update={"segment_examples_min": 10**6})
    assert gates.segments(found, "blind", "new", few, 0).passed


@pytest.mark.parametrize(
    ("numbers", "passed"),
    [((1_000, 50, 5), True), ((999, 50, 5), False), ((1_000, 49, 5), False), ((1_000, 50, 4), False)],
)
def test_the_gate_of_enough_data(numbers: tuple[int, int, int], passed: bool) -> None:
    gate = gates.enough_data(*numbers, SETTINGS)
    assert gate.passed is passed
    assert gate.figures["newest_clicks_min"] == 5


def test_verdicts_stand_in_tags_with_their_numbers() -> None:
    tags = gate_tags([Gate("one", True, "fine", {"low": 0.25}), Gate("two", False, "too slow", {"ms": 3.0})])
    assert tags[GATES_TAG] == "failed: two (too slow)"
    assert tags["millrace.gate.one"] == "passed: fine"
    assert figures(tags) == {"one.low": 0.25, "two.ms": 3.0}
    assert against_serving(tags) == "gates failed: two (too slow)"
    assert against_serving(gate_tags([Gate("one", True, "fine")])) == ""
    assert against_serving({}) == ""


def test_golden_requests_find_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert golden.problems(first_ranker()) == []
    assert golden.problems(popularity_ranker()) == []

    def badly(*given: Any) -> RankedItems:
        return replace(rank(*given), scores=np.full(4, np.nan, np.float32))

    monkeypatch.setattr(golden, "rank", badly)
    assert any("no probabilities" in problem for problem in golden.problems(first_ranker()))
    replace(first_ranker(), feature_schema="of yesterday").save(tmp_path)
    with pytest.raises(UnusableModel, match="ranks by features of yesterday"):
        golden.load(tmp_path)


def test_what_the_loading_process_says_decides_two_gates() -> None:
    def verdict(output: str) -> list[bool]:
        return [gate.passed for gate in gates.probed(output, [0.5, 0.25])]

    assert verdict(json.dumps({"problems": [], "scores": [0.5, 0.25]})) == [True, True]
    assert verdict(json.dumps({"problems": ["no"], "scores": [0.5, 0.2501]})) == [False, False]
    assert verdict(json.dumps({"problems": [], "scores": [0.5]})) == [False, True]
    assert verdict(json.dumps({"unusable": "damaged"})) == [False, False]
    assert verdict("Traceback ...") == [False, False]


def test_a_version_brings_the_optimizers_state_or_none(tmp_path: Path) -> None:
    model = first_ranker()
    model.save(tmp_path)
    assert not first_state(tmp_path, "2", "reign").squared_gradients.any()
    state = fresh(model, "", "", 7)
    state = replace(state, squared_gradients=np.full_like(model.weights, 3.0), learned={0: 5}, examples=9, topic_id="t")
    (tmp_path / STATE_FILE).write_bytes(state.to_bytes())
    found = first_state(tmp_path, "2", "reign")
    assert (found.squared_gradients == 3.0).all()
    assert (found.model_version, found.reign_id, found.epoch, found.examples) == ("2", "reign", 0, 0)
    assert (found.learned, found.topic_id) == ({}, "")
    (tmp_path / STATE_FILE).write_bytes(b"half")
    with pytest.raises(UnusableModel, match="damaged"):
        first_state(tmp_path, "2", "reign")


def test_a_jobs_folder_is_its_own_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    (tmp_path / "training-killed").mkdir()
    (tmp_path / "training-killed" / "slots").touch()
    with scratch(tmp_path) as one, scratch(tmp_path) as two:
        assert sorted(tmp_path.iterdir()) == sorted([one, two])
    assert list(tmp_path.iterdir()) == []


def test_a_window_in_words() -> None:
    window = Window("id", {0: (3, 9), 1: (0, 0)})
    assert Window.from_words(json.loads(json.dumps(window.words()))) == window
    assert window.offsets == 6
    for bad in ({}, {"topic_id": "id", "bounds": {"0": [3, 2]}}, {"topic_id": "id", "bounds": {"0": [3]}}):
        with pytest.raises(MillraceError, match="no window of a topic"):
            Window.from_words(bad)
