"""The demo's script: it tells what was seen, does its deeds once, and claims nothing that did not happen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo import plots
from deploy.demo.comparison import Comparison, compare, read
from deploy.demo.story import FRIDAY_AT, HAND_AT, TRAIN_AT, Deed, Line, Seen, Story
from millrace.registry.retraining import Retraining, State
from millrace.simulation.days import DaysPlan
from millrace.simulation.people import Habits
from millrace.simulation.worlds import WorldKind

QUIET = Seen(0.0, 0.06, 1_000, "1", "", None)
ASKED = Retraining("r1", "asked", "", "c1", 0, 0)
BY_ITSELF = Retraining("r2", "click through drifts", "s1", "", 0, 0)


def tell(story: Story, *moments: Seen) -> list[Line]:
    return [line for seen in moments for line in story.lines(seen)]


def deeds(lines: list[Line]) -> list[Deed]:
    return [line.deed for line in lines if line.deed is not None]


def test_each_deed_is_done_once_and_in_its_turn() -> None:
    story = Story()
    assert deeds(tell(story, QUIET, replace(QUIET, share=TRAIN_AT - 0.01))) == []
    assert deeds(tell(story, *[replace(QUIET, share=TRAIN_AT)] * 2)) == [Deed.RETRAIN]
    assert deeds(tell(story, *[replace(QUIET, share=FRIDAY_AT)] * 2)) == [Deed.SHIFT, Deed.SELL_OUT]
    assert tell(story, replace(QUIET, share=1.0)) == []


def test_a_version_that_was_asked_for_is_promoted_by_hand_and_said_to_be() -> None:
    story = Story()
    moments = [
        replace(QUIET, retraining=replace(ASKED, state=state, version=version, note="gates"))
        for state, version in [(State.TRAINING, ""), (State.EVALUATING, "2"), (State.EVALUATING, "2")]
    ]
    lines = tell(story, *moments)
    assert [(line.deed, line.version) for line in lines if line.deed] == [(Deed.PROMOTE, "2")]
    assert "by hand" in lines[-1].text
    [done] = tell(story, replace(QUIET, champion="2", retraining=replace(ASKED, state=State.PROMOTED, version="2")))
    assert (done.mark, done.text) == ("promotion", "Version 2 is the champion. Everybody gets it.")


def test_a_version_for_drift_has_its_experiment_until_near_the_end() -> None:
    story, challenger = Story(), replace(BY_ITSELF, state=State.CHALLENGER, version="3")
    begun = tell(story, replace(QUIET, share=0.6, retraining=BY_ITSELF))
    assert any("by itself: click through drifts" in line.text for line in begun)
    assert deeds(tell(story, replace(QUIET, share=HAND_AT - 0.01, retraining=challenger))) == []
    last = tell(story, *[replace(QUIET, share=HAND_AT, retraining=challenger)] * 2)
    assert [(line.deed, line.version) for line in last if line.deed] == [(Deed.PROMOTE, "3")]


def test_click_through_falls_and_recovers_only_if_it_does() -> None:
    story = Story()
    tell(story, replace(QUIET, share=FRIDAY_AT))
    after = [replace(QUIET, share=0.6, click_through=rate) for rate in (0.058, 0.04, 0.03, 0.04, 0.046)]
    lines = tell(story, *after, replace(after[-1], drifts="click through of version 2 are not what they were"))
    assert [line.text.split(":")[0] for line in lines] == [
        "Click-through falls to 4.0%, from 6.0%",
        "It was 3.0% at the lowest, and half of what was lost is back",
        "Drift is found",
    ]
    assert lines[1].text.endswith("back: 4.6%. Nothing was retrained since: live learning has followed.")
    assert "3.0% at the lowest" in " ".join(story.ending(after[-1]))


def test_learning_is_not_given_what_a_new_version_may_have_done() -> None:
    story = Story()
    tell(story, replace(QUIET, share=FRIDAY_AT))
    falls = replace(QUIET, share=0.6, click_through=0.03)
    lines = tell(story, falls, replace(falls, click_through=0.05, champion="2"))
    assert lines[-1].text.endswith("half of what was lost is back: 5.0%.")


def test_the_end_says_what_did_not_happen() -> None:
    story = Story()
    tell(story, QUIET, replace(QUIET, share=FRIDAY_AT))
    said = " ".join(story.ending(replace(QUIET, share=1.0)))
    assert "Drift was not found within the story" in said
    assert "No trained version was promoted" in said


def test_the_comparison_has_the_same_days_for_both_ways_and_is_drawn(tmp_path: Path) -> None:
    kind = WorldKind(DaysPlan(3, 20.0, shift_on=2), 1, 20, 40, 1e7, Habits())
    found = compare(kind)
    assert {way: len(days) for way, days in found.days.items()} == {"live": 2, "nightly": 2}
    assert all(0 < share < 1 for days in found.days.values() for share in days)
    plots.draw_comparison(found, tmp_path / plots.NIGHTLY)
    assert "the same click model" in (tmp_path / plots.NIGHTLY).read_text()


def test_the_story_is_drawn_with_what_happened(tmp_path: Path) -> None:
    plots.draw_story([(0.0, 0.05), (1.0, 0.06)], [(0.5, "Black Friday")], tmp_path / plots.CLICK_THROUGH)
    assert "Black Friday" in (tmp_path / plots.CLICK_THROUGH).read_text()


@pytest.mark.parametrize("content", [None, '{"live": [0.1], "nightly": [0.2]}'])
def test_a_month_that_is_not_over_is_none(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "month.json"
    if content is None:
        assert read(file) is None
    else:
        file.write_text(content)
        assert read(file) == Comparison({"live": [0.1], "nightly": [0.2]})
