"""A version under watch: what is counted, when it is looked at, what is said, and how it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.drift.correction import Dial
from millrace.drift.detector import Change
from millrace.drift.measures import CLICK_THROUGH, SCORE
from millrace.drift.signals import INPUT, PERFORMANCE, PREDICTION, Signals
from millrace.drift.storing import REFERENCE_FILE, ModelReference, UnusableReference
from millrace.drift.watch import Watch, outcomes_per_day
from millrace.ranking.features import FEATURE_NAMES
from millrace.ranking.first import first_ranker
from millrace.settings import HOUR_MS, MINUTE_MS, DriftSettings
from millrace.v1.detector_pb2 import WatchedRest
from millrace.v1.drift_pb2 import DriftSignal
from millrace.v1.model_pb2 import ModelEvent
from millrace.v1.outcome_pb2 import Label, Outcome
from tests.drift_support import RATE, T0, reference, served
from workers.drift_detector.stored import Stored, pack, unpack
from workers.drift_detector.taking import Taking
from workers.drift_detector.watched import UnusableState, Watched

SETTLE_MS = 10 * MINUTE_MS
FIRST = FEATURE_NAMES[0]


def new_watch(given: ModelReference | None = None) -> Watch:
    return Watch(given or reference(), Dial(false_alarms_per_day=1 / 200), SETTLE_MS)


def feed(watch: Watch, outcomes: Iterable[Outcome], share: float = 1.0) -> Watch:
    taking = Taking(watch, share)
    for outcome in outcomes:
        taking.take(outcome)
    taking.count()
    return watch


def signals() -> Signals:
    return Signals("watched", "2", "reign", {FIRST: 0.7}, 0.01)


def said(watch: Watch, speaker: Signals) -> list[DriftSignal]:
    findings, window = watch.look(), watch.window()
    assert findings is not None
    assert window is not None
    return speaker.of_values(findings, watch.values, window, watch.newest_ms)


def test_nothing_is_said_of_a_day_like_the_others_and_the_feature_that_moved_is_named() -> None:
    speaker = signals()
    watch = feed(new_watch(), served(400, T0 + 1, 25.5, seed=1))
    assert said(watch, speaker) == []
    feed(watch, served(400, T0 + 26 * HOUR_MS, 25, seed=2, shift=1.0))
    [signal] = said(watch, speaker)
    assert (signal.channel, signal.holds, signal.model_version) == (INPUT, True, "2")
    [evidence] = signal.evidence
    assert (evidence.name, evidence.model_weight) == (FIRST, 0.7)
    assert evidence.effect_size > 0.2
    assert evidence.statistic > evidence.threshold
    assert sum(evidence.before.counts) == 3_500
    assert len(evidence.after.edges) == len(evidence.after.counts) + 1 <= 17
    first_at, name = signal.first_at_ms, signal.signal_id
    feed(watch, served(400, T0 + 52 * HOUR_MS, 12, seed=3, shift=1.0))
    [again] = said(watch, speaker)
    assert (again.signal_id, again.first_at_ms) == (name, first_at)
    assert again.at_ms > first_at
    feed(watch, served(400, T0 + 65 * HOUR_MS, 26, seed=4))
    [over] = said(watch, speaker)
    assert (over.signal_id, over.holds) == (name, False)
    assert speaker.holding == {}


def test_scores_are_a_channel_of_their_own() -> None:
    moved = list(served(400, T0 + 1, 26, seed=1))
    for outcome in moved:
        for decided in outcome.slots:
            decided.slot.score += 0.2
    [signal] = said(feed(new_watch(), moved), signals())
    assert (signal.channel, [one.name for one in signal.evidence]) == (PREDICTION, [SCORE])


def test_a_part_of_a_day_is_not_compared() -> None:
    watch = feed(new_watch(), served(100, T0 + 1, 24, seed=1, shift=3.0))
    assert watch.look() is None
    feed(watch, served(10, T0 + 25 * HOUR_MS, 0.1, seed=2))
    assert watch.look() is not None
    assert new_watch().look() is None


def test_labels_are_read_when_they_are_settled_whatever_their_order() -> None:
    outcomes = list(served(600, T0, 6, seed=5))
    watch = feed(new_watch(), outcomes)
    assert watch.settle() == []
    minutes = (watch.newest_ms - SETTLE_MS - T0) // MINUTE_MS
    settled = sum(outcome.impression.served_at_ms < T0 + minutes * MINUTE_MS for outcome in outcomes)
    assert watch.outcomes(CLICK_THROUGH) == settled * 5
    # What comes for a settled minute is not counted.
    feed(watch, outcomes[:2])
    assert watch.late > 0
    # The clicks of an hour at once, and what was not clicked half an hour later, are the same labels.
    parted = new_watch()
    for label in (Label.LABEL_POSITIVE, Label.LABEL_NEGATIVE):
        for outcome in outcomes[:60]:
            part = Outcome()
            part.CopyFrom(outcome)
            del part.slots[:]
            part.slots.extend(one for one in outcome.slots if one.label == label)
            feed(parted, [part])
    whole = feed(new_watch(), outcomes[:60])
    assert parted.settle() == whole.settle() == []
    for name, words in whole.state()["labels"].items():
        assert parted.state()["labels"][name]["detector"]["outcomes"] == words["detector"]["outcomes"]
        assert parted.state()["labels"][name]["detector"]["values"] == pytest.approx(words["detector"]["values"])


def test_a_change_of_clicks_is_found_and_ends_when_it_is_over() -> None:
    watch, speaker = feed(new_watch(), served(400, T0, 4, seed=6)), signals()
    assert watch.settle() == []
    feed(watch, served(600, T0 + 4 * HOUR_MS, 6, seed=7, rate=RATE / 4))
    alarms = watch.settle()
    assert CLICK_THROUGH in [name for name, *_ in alarms]
    measure, change, at_ms = next(alarm for alarm in alarms if alarm[0] == CLICK_THROUGH)
    assert at_ms >= T0 + 4 * HOUR_MS
    assert -0.9 < change.effect < -0.3
    # It began before it was found, and the estimate is nearer to that than to the alarm.
    assert abs(change.since_ms - (T0 + 4 * HOUR_MS)) <= 10 * MINUTE_MS < at_ms - (T0 + 4 * HOUR_MS)
    signal = speaker.of_change(measure, change, at_ms)
    assert (signal.channel, signal.segment, signal.holds) == (PERFORMANCE, "", True)
    assert signal.evidence[0].effect_size == change.effect
    assert (signal.first_at_ms, signal.changed_at_ms) == (at_ms, change.since_ms)
    assert speaker.over(measure, change.since, watch.newest_ms) is None
    # The same change said again is the same signal, and began when it began.
    again = speaker.of_change(measure, replace(change, since_ms=at_ms), at_ms + 1)
    assert (again.signal_id, again.changed_at_ms) == (signal.signal_id, change.since_ms)
    over = speaker.over(measure, 10 * change.since, watch.newest_ms)
    assert over is not None
    assert not over.holds
    assert speaker.over(measure, 10 * change.since, watch.newest_ms) is None


def test_it_goes_on_as_if_it_had_never_stopped() -> None:
    first, second = list(served(200, T0, 20, seed=8)), list(served(200, T0 + 20 * HOUR_MS, 20, seed=9, rate=0.3))
    whole = feed(new_watch(), first)
    whole.settle()
    stopped = new_watch()
    kept = {hour: unpack(stopped, pack(hour, counts).hour.counts) for hour, counts in whole.hours.items()}
    stopped.resume(json.loads(json.dumps(whole.state())), kept)
    assert stopped.state() == whole.state()
    for watch in (whole, stopped):
        feed(watch, second)
    assert stopped.settle() == whole.settle()
    assert stopped.state() == whole.state()
    assert stopped.look() is not None
    assert stopped.look() == whole.look()
    assert stopped.forget() == whole.forget() != []
    speaker, resumed = signals(), signals()
    speaker.of_change("click_through:new", Change(100, 10, before=0.1, after=0.2, evidence=1.5), T0)
    resumed.resume(speaker.holding.values())
    assert resumed.holding == speaker.holding
    assert [one.at_ms for one in resumed.again(T0 + 5)] == [T0 + 5]


def test_a_share_of_the_answers_is_counted_whole_and_all_labels() -> None:
    outcomes = list(served(400, T0, 0.5, seed=10))
    watch = feed(new_watch(), outcomes, share=0.25)
    counted = sum(one[0].present for one in watch.hours.values())
    assert counted % 5 == 0
    assert 5 * 60 < counted < 5 * 140
    blocks = watch.state()["labels"][CLICK_THROUGH]["minutes"]
    assert sum(count for _, count, *_ in blocks) == 400 * 5


def test_a_reference_of_labels_alone_and_one_of_other_cells() -> None:
    watch = feed(new_watch(replace(reference(), values=())), served(100, T0, 30, seed=11))
    assert watch.look() is None
    assert outcomes_per_day(watch.reference) == 0
    assert watch.settle() == []
    full = feed(new_watch(), served(10, T0, 0.1, seed=12))
    [(hour, counts)] = full.hours.items()
    with pytest.raises(ValueError, match="numbers"):
        unpack(watch, pack(hour, counts).hour.counts)


def test_what_was_counted_for_another_reference_is_dropped(tmp_path: Path) -> None:
    first_ranker().save(tmp_path)
    reign = ModelEvent(event_id="reign", model_version="2")

    def watched(stored: Stored) -> Watched:
        return Watched(DriftSettings(), SETTLE_MS, reign, tmp_path, stored)

    with pytest.raises(UnusableReference, match="version 2 has no reference"):
        watched(Stored())
    (tmp_path / REFERENCE_FILE).write_bytes(b"half")
    with pytest.raises(UnusableReference, match="damaged"):
        watched(Stored())
    (tmp_path / REFERENCE_FILE).write_bytes(reference().to_bytes())
    known = feed(new_watch(), served(10, T0, 0.1, seed=12))
    rest = WatchedRest(reign_id="reign", labels=json.dumps(known.state()))
    hours = {hour: pack(hour, counts).hour.counts for hour, counts in known.hours.items()}
    assert watched(Stored(rest, hours)).watch.state() == known.state()
    # The version had no reference when this was written.
    assert watched(Stored(WatchedRest(reign_id="reign"))).watch.hours == {}
    with pytest.raises(UnusableState, match="numbers"):
        watched(Stored(rest, {1: pack(1, known.hours[T0 // HOUR_MS][:3]).hour.counts}))
    few = new_watch(replace(reference(), labels={}))
    with pytest.raises(UnusableState, match="of measures"):
        watched(Stored(WatchedRest(labels=json.dumps(few.state()))))
