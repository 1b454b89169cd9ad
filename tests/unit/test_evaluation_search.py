"""Settings are chosen by the past alone: the better of two, and nothing that lies behind the past is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import SupportsIndex, overload

import numpy as np
import pytest

from millrace.errors import MillraceError
from millrace.evaluation.lag import parse_lag
from millrace.evaluation.paired import Blocks
from millrace.evaluation.search import Found, coordinate_search, past_of, search
from millrace.evaluation.search_space import SPACE, Axis, Choice, chosen
from millrace.evaluation.stream import EventStream, Happened, checksum
from millrace.evaluation.trials import TrialFile
from millrace.settings import MINUTE_MS, Settings
from tests.evaluation_support import stream

SETTINGS = Settings()
# Without pairs of sessions, which a gap of half a second makes impossible at a click a second, little is known.
GAP = Axis("features", "session_gap_ms", (500, 30 * MINUTE_MS))
PAST = 600


def recorded(seed: int = 1, sessions: int = 150) -> EventStream:
    """Users with a session each, whose events say nothing of sessions."""
    events = [
        Happened(one.user_id, one.item_id, one.type, one.occurred_at_ms, "", 0.0, "") for one in stream(sessions, seed)
    ]
    return EventStream("test", events, [0], 0, checksum(events))


def searched(source: EventStream, settings: Settings = SETTINGS, budget: int = 3, warm_up: int = PAST) -> Found:
    return search(source, "next-item", settings, 5, parse_lag("0"), 1, 0, budget, warm_up, axes=[GAP])


def test_the_better_of_two_is_chosen_from_wherever_it_begins() -> None:
    bad = chosen(SETTINGS, {GAP.variable: 500}, [GAP])
    assert bad.features.session_gap_ms == 500
    found = searched(recorded(), bad)
    assert found.choice == {"MILLRACE_FEATURES_SESSION_GAP_MS": 30 * MINUTE_MS}
    assert (found.past, found.passes) == (PAST, 2)
    for gain in (found.searched, found.confirmed):
        assert gain.gain[0] == pytest.approx(sum(gain.after.values()) - sum(gain.before.values()))
        assert gain.gain[1] > 0.1, "obviously"
    # Four of five events of a session are asked for.
    assert (found.searched.n, found.confirmed.n) == (PAST // 2 * 4 // 5, PAST // 4 * 4 // 5)

    assert searched(recorded()).choice == {}, "the same from the other side: nothing is better"


def test_nothing_behind_the_past_is_read() -> None:
    class Guarded(list[Happened]):
        @overload
        def __getitem__(self, at: SupportsIndex) -> Happened: ...
        @overload
        def __getitem__(self, at: slice) -> list[Happened]: ...
        def __getitem__(self, at: SupportsIndex | slice) -> Happened | list[Happened]:
            assert isinstance(at, slice)
            assert at.stop <= PAST
            return super().__getitem__(at)

        def __iter__(self) -> Iterator[Happened]:
            raise AssertionError("all events are gone through")

    source = recorded()
    found = searched(replace(source, events=Guarded(source.events)))
    other = recorded(seed=2)
    changed = [*source.events[:PAST], *other.events[PAST:]]
    assert searched(replace(source, events=changed)) == found == searched(source)


@pytest.mark.parametrize(
    ("protocol", "warm_up", "starts", "tested_from", "end"),
    [
        ("next-in-session", 0, [0], 0, 150),
        ("next-in-session", 300, [0], 0, 300),
        ("next-item", 300, [0, 500], 500, 500),
        ("flurs", 0, [0], 0, 225),
        ("ader", 0, [0, 250, 600], 0, 250),
        ("ader", 400, [0, 250, 600], 0, 400),
        ("serenade", 0, [0, 500, 700], 500, 700),
    ],
)
def test_the_past_is_what_a_protocol_does_not_count(
    protocol: str, warm_up: int, starts: list[int], tested_from: int, end: int
) -> None:
    past = past_of(replace(recorded(), starts=starts, tested_from=tested_from), protocol, warm_up)
    assert len(past.events) == end
    assert past.tested_from == end * 3 // 4
    assert list(past.starts) == [at for at in starts if at < end]


def test_a_past_that_is_too_short_is_named() -> None:
    with pytest.raises(MillraceError, match="first 40 events are too few"):
        searched(recorded(), warm_up=40)


def test_a_search_that_was_interrupted_makes_no_pass_twice() -> None:
    class Interrupted(Exception):
        pass

    began: list[str] = []

    def begin(what: str, events: int) -> Callable[[], object]:
        began.append(what)
        if len(began) == 3:
            raise Interrupted
        return lambda: None

    axes = [Axis("features", "session_context", (1, 2, 5)), Axis("recommender", "context_items", (3, 10))]

    def run() -> Found:
        return search(recorded(), "next-item", SETTINGS, 5, parse_lag("0"), 2, 0, 6, PAST, axes, begin)

    with pytest.raises(Interrupted):
        run()
    resumed = run()
    assert began[2] == began[3], "it goes on with the pass that was interrupted"
    passes = len(began) - 2
    before = len(began)
    assert run() == resumed
    assert len(began) - before == passes + 1, "what is through is not kept"


def test_a_damaged_file_of_trials_is_named() -> None:
    file = TrialFile(SETTINGS, "damaged")
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_text("{")
    with pytest.raises(MillraceError, match="delete it"):
        TrialFile(SETTINGS, "damaged")


def blocks(value: float) -> Blocks:
    """Ten blocks whose hit rates are about ``value``."""
    noise = np.random.default_rng(0).normal(0, 0.1, 10)
    return Blocks("same", list(range(10)), np.full(10, 100.0), {"hr": 100 * (value + noise), "mrr": np.zeros(10)})


def test_a_search_climbs_one_setting_after_the_other_within_its_budget() -> None:
    axes = [Axis("features", "session_context", (1, 2, 3, 4, 5)), Axis("recommender", "context_items", (1, 2, 3, 4, 5))]
    start = {axes[0].variable: 2, axes[1].variable: 4}

    def run(budget: int) -> tuple[Choice, list[Choice]]:
        tried = []

        def attempt(choice: Choice) -> Blocks:
            tried.append(choice)
            first, second = ({**start, **choice}[axis.variable] for axis in axes)
            # The best is (4, 2); a valley in the middle of neither axis.
            return blocks(1.0 - 0.1 * abs(first - 4) - 0.1 * abs(second - 2))

        return coordinate_search(attempt, axes, start, budget)[0], tried

    best, tried = run(100)
    assert best == {axes[0].variable: 4, axes[1].variable: 2}
    assert tried[0] == {}
    assert len(tried) == len({tuple(sorted(choice.items())) for choice in tried}), "none twice"
    for budget in range(1, len(tried)):
        assert run(budget)[1] == tried[:budget]


def test_differences_within_a_standard_error_move_nothing() -> None:
    axis = Axis("features", "session_context", (1, 2))
    noise = np.random.default_rng(1).normal(0, 5.0, 10)

    def attempt(choice: Choice) -> Blocks:
        found = blocks(0.5)
        hits = found.sums["hr"] + noise - noise.mean() + 0.5
        return replace(found, sums={**found.sums, "hr": hits}) if choice else found

    assert coordinate_search(attempt, [axis], {axis.variable: 1}, 9)[0] == {}


def test_every_value_that_may_be_tried_is_allowed() -> None:
    defaults = Settings()
    for axis in SPACE:
        assert list(axis.values) == sorted(set(axis.values))
        for value in axis.values:
            assert axis.now(chosen(defaults, {axis.variable: value})) == value
        assert axis.beside(axis.values[0], 1) == axis.values[1]
        assert axis.beside(axis.values[-1], 1) is None
    with pytest.raises(MillraceError, match="MILLRACE_FEATURES_NEIGHBOURS_KEPT"):
        chosen(defaults, {"MILLRACE_FEATURES_NEIGHBOURS_KEPT": -1})
