"""A window in which the world changes: with the time of that a version learns it and passes, without it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from millrace.drift.measures import CLICK_THROUGH
from millrace.features.segments import SEGMENTS
from millrace.learning.learner import OnlineRanker
from millrace.learning.parameters import to_vector
from millrace.learning.state import fresh
from millrace.ranking.first import first_ranker
from millrace.registry.gates import Gate
from millrace.settings import DAY_MS, MINUTE_MS, TrainingSettings
from millrace.training import fit, gates
from millrace.training.change import count, enough, place
from millrace.training.measure import ALL, Line, measure
from millrace.training.reference import reference_since, settled_before
from millrace.training.slots import CLICKED, SlotFile, Slots, examples, slot_type
from tests.learning_support import D

OLD, NEW = 12_000, 3_000
SINCE_MS = 28 * DAY_MS
WINDOW_MS = 30 * MINUTE_MS
SETTINGS = TrainingSettings(examples_min=2_000)


def flipped(old: int = OLD, new: int = NEW, before: float = -2.5, after: float = -2.5) -> Slots:
    """Four weeks in which some features say what is clicked, and a week in which they say the opposite.

    In the order of the log: a click at once, what is not clicked when the attribution window closes, if it has.
    ``before`` and ``after``: log-odds of a click where these features are 0.
    """
    random, count = np.random.default_rng(1), old + new
    slots = np.zeros(count, slot_type(D))
    changed = np.arange(count) >= old
    slots["features"] = random.normal(size=(count, D))
    odds = 0.7 * slots["features"][:, :4].sum(axis=1) * np.where(changed, -1, 1) + np.where(changed, after, before)
    slots["label"] = random.random(count) < 1 / (1 + np.exp(-odds))
    slots["served"], slots["segment"] = True, SEGMENTS.index("new")
    slots["served_ms"] = np.arange(count) * SINCE_MS // old
    slots["appended_ms"] = slots["served_ms"] + np.where(slots["label"] == CLICKED, 0, WINDOW_MS)
    return np.sort(slots[slots["appended_ms"] <= slots["served_ms"].max()], order="appended_ms")


@pytest.fixture(scope="module")
def stream() -> Slots:
    return flipped()


def judged(slots: SlotFile, since_ms: int) -> tuple[fit.Candidate, list[Gate]]:
    """As the training job: the way that it chooses, and its gates beside a champion that learned everything so far."""
    parts = fit.Parts.of(len(slots), 0.2, place(slots, since_ms) if since_ms else 0)
    worked: list[float] = []
    found = fit.search(slots, parts, first_ranker(), 1, worked.append)
    assert sum(worked) == fit.search_work(parts, 1)
    version = fit.fit(found.chosen, slots, parts.choosing, first_ranker(), change=parts.change)
    champion = OnlineRanker(fresh(first_ranker(), "1", "reign", 1))
    for block in slots.blocks(0, parts.choosing):
        taught = examples(block)
        champion.learn(taught["features"], (taught["label"] == CLICKED).tolist())
    measured = measure({"new": Line(version), "old": Line(champion)}, slots, parts.choosing, parts.newest)
    asked = enough(slots, parts, SETTINGS), gates.better(measured, "new", "old", SETTINGS, 0, "champion 1")
    assert measured.clicks[ALL].sum() == count(slots, parts.choosing)[1]
    return found.chosen, list(asked)


def test_with_the_time_of_the_change_a_version_beats_the_champion_and_without_it_does_not(
    stream: Slots, tmp_path: Path
) -> None:
    """The flaw: of four weeks a version learns the old world, and is judged where that world still was."""
    with SlotFile(tmp_path / "slots", D) as slots:
        slots.append(stream)
        ordinary, (much, better) = judged(slots, 0)
        assert (much.passed, better.passed, ordinary.since_change) == (True, False, False)
        assert better.figures["high"] < 0.001
        chosen, (much, better) = judged(slots, SINCE_MS)
        assert (much.passed, better.passed, chosen.since_change) == (True, True, True)
        assert better.figures["low"] > 0.1
        assert much.reason.startswith("2,9")
        assert "examples since the change (at least 2,000)" in much.reason
        assert better.figures["slots"] < NEW / 5 + 1
        # The same again, to the bit.
        again = [fit.fit(chosen, slots, len(slots), first_ranker(), change=place(slots, SINCE_MS)) for _ in range(2)]
        assert (to_vector(again[0].model()) == to_vector(again[1].model())).all()


@pytest.mark.parametrize("start", fit.STARTS)
def test_a_way_that_begins_at_the_change_knows_nothing_of_before(start: str, stream: Slots, tmp_path: Path) -> None:
    candidate = fit.Candidate(start, 10.0, 2, since_change=True)
    with SlotFile(tmp_path / "slots", D) as slots, SlotFile(tmp_path / "new", D) as new:
        slots.append(stream)
        at = place(slots, SINCE_MS)
        new.append(stream[at:])
        begun = fit.fit(candidate, slots, len(slots), first_ranker(), change=at)
        alone = fit.fit(fit.Candidate(start, 10.0, 2), new, len(new), first_ranker())
        assert (to_vector(begun.model()) == to_vector(alone.model())).all()
        before = fit.fit(fit.Candidate(fit.BEFORE, 0.0, 1, True), slots, at, first_ranker(), change=at)
        old = fit.fit(fit.OLD_WORLD, slots, at, first_ranker())
        assert (to_vector(before.model()) == to_vector(old.model())).all()
        assert before.state(0, {}, "").squared_gradients.max() == 0 < old.state(0, {}, "").squared_gradients.min()


def test_the_change_has_a_place_in_the_log(stream: Slots, tmp_path: Path) -> None:
    with SlotFile(tmp_path / "slots", D) as slots:
        slots.append(stream)
        at = place(slots, SINCE_MS)
        # What was not clicked in the old world stands before it; clicks of the new one beside that are left out.
        new = stream["served_ms"] >= SINCE_MS
        assert new[at:].all()
        assert not new[at - 1]
        assert 0 < new[:at].sum() < 10
        rate = (stream["label"][new] == CLICKED).mean()
        assert (stream["label"][at:] == CLICKED).mean() == pytest.approx(rate, abs=0.02)
        assert count(slots, at) == (len(stream) - at, (stream["label"][at:] == CLICKED).sum())
        assert (place(slots, 0), place(slots, 2 * SINCE_MS)) == (0, len(slots))


def test_one_that_comes_late_moves_nothing(stream: Slots, tmp_path: Path) -> None:
    late = stream.copy()
    late["served_ms"][-1] = 0
    with SlotFile(tmp_path / "slots", D) as slots, SlotFile(tmp_path / "late", D) as other:
        slots.append(stream)
        other.append(late)
        assert place(slots, SINCE_MS) == place(other, SINCE_MS)


def test_too_little_since_the_change_is_said_with_its_number(stream: Slots, tmp_path: Path) -> None:
    with SlotFile(tmp_path / "slots", D) as slots:
        slots.append(stream)
        parts = fit.Parts.of(len(slots), 0.2, place(slots, SINCE_MS))
        gate = enough(slots, parts, SETTINGS.model_copy(update={"clicks_min": 10_000}))
        assert not gate.passed
        assert gate.figures["examples"] == len(slots) - parts.change
        whole = enough(slots, fit.Parts.of(len(slots), 0.2), SETTINGS)
        assert whole.figures["examples"] == len(slots)
        assert "since" not in whole.reason


def test_clicks_are_expected_as_they_came_since_the_change_at_the_hours_of_the_whole_window(tmp_path: Path) -> None:
    with SlotFile(tmp_path / "slots", D) as slots:
        slots.append(flipped(after=-1.0))
        settled_ms = settled_before(slots, WINDOW_MS)
        new = reference_since(slots, [], {}, settled_ms, SINCE_MS).labels[CLICK_THROUGH]
        old = reference_since(slots, [], {}, settled_ms).labels[CLICK_THROUGH]
        assert new.baseline.rate > 1.5 * old.baseline.rate
        assert new.hours == old.hours
        assert new.baseline.error < 0.1
