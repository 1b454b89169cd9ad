"""A pass learns from the past alone: the future may be anything, and so may the item that comes."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from millrace import evaluation
from millrace.errors import MillraceError
from millrace.evaluation import checkpoint
from millrace.evaluation.checkpoint import BESIDE, CheckpointFile
from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.figures import Figures, measure
from millrace.evaluation.lag import parse_lag
from millrace.evaluation.prequential import Answer, Prequential
from millrace.evaluation.protocols import protocol
from millrace.evaluation.questions import Questioner
from millrace.evaluation.stream import EventStream, Happened, checksum
from millrace.settings import Positive, RecommenderSettings, Settings
from tests.evaluation_support import stream

SETTINGS = Settings()


def events(sessions: int, seed: int = 1) -> list[Happened]:
    return [
        Happened(one.user_id, one.item_id, one.type, one.occurred_at_ms, one.session_id, 0.0, "")
        for one in stream(sessions, seed)
    ]


def passed(happened: Sequence[Happened], name: str = "next-in-session", lag: str = "0", every: int = 1) -> Prequential:
    source = EventStream("test", happened, [0], 0, checksum(happened))
    return Prequential(source, protocol(name, source), SETTINGS, 20, parse_lag(lag), every, seed=0)


def figures(run: Prequential) -> Figures:
    found = measure(run, False, 20, lambda: None)
    assert found is not None
    return found


def timeless(one: Figures) -> Figures:
    return replace(one, recommend_us_p90=0.0, update_us_p90=0.0)


def without_times(answer: Answer | None) -> object:
    return answer and (answer.place, answer.rank, answer.top.tolist(), answer.ranked, answer.known, answer.segment)


@pytest.mark.parametrize("name", ["next-in-session", "next-item", "flurs"])
@pytest.mark.parametrize("lag", ["0", "1m", "7sessions"])
def test_shuffling_the_future_changes_nothing_of_todays_answers(name: str, lag: str) -> None:
    """Up to and including the first event of the shuffled part: its answer was given before it came."""
    log = events(60)
    today = 150
    future = [one.item_id for one in log[today + 1 :]]
    random.Random(3).shuffle(future)
    shuffled = log[: today + 1] + [
        one._replace(item_id=item) for one, item in zip(log[today + 1 :], future, strict=True)
    ]
    assert shuffled != log
    answers = [without_times(answer) for _, answer in passed(log, name, lag).run()]
    others = [without_times(answer) for _, answer in passed(shuffled, name, lag).run()]
    assert answers[: today + 1] == others[: today + 1]
    assert answers != others


def test_the_target_is_not_in_the_features() -> None:
    """Candidates and features before an event are the same whichever item then comes."""
    log = events(40)
    for name in ("i0", "i30", "never seen before"):
        memory, other = (MemoryFeatures(SETTINGS.features, SETTINGS.recommender) for _ in range(2))
        questions = [
            Questioner(one, SETTINGS.features, SETTINGS.recommender, 20, np.random.default_rng(0))
            for one in (memory, other)
        ]
        for event in log:
            for one in (memory, other):
                one.ready(one.users.get(event.user_id))
            asked, changed = questions[0].before(event), questions[1].before(event._replace(item_id=name))
            assert asked.candidates.rows.tolist() == changed.candidates.rows.tolist()
            assert asked.features.tobytes() == changed.features.tobytes()
            memory.take(event)
            other.take(event)


def test_it_learns() -> None:
    """Next items are hit as often as they can be known, and a model that learns late is worse."""
    log = events(300)
    live, late, never = (figures(passed(log, lag=lag)) for lag in ("0", "10m", "1d"))
    assert live.n == late.n == never.n == 1_200
    assert live.hr > 0.7
    assert live.hr > late.hr > never.hr
    assert never.hr == 0.0, "the whole log is one day: nothing is known"
    low, high = live.ci95["hr"]
    assert low < live.hr < high
    assert live.coverage == pytest.approx(1.0, abs=0.02)
    assert live.recommend_us_p90 > 0
    assert live.update_us_p90 > 0


def test_every_takes_its_share() -> None:
    log = events(40)
    asked = [answer for _, answer in passed(log, every=4).run() if answer is not None]
    assert len(asked) == 40
    everything = [answer for _, answer in passed(log).run() if answer is not None]
    assert [one.place for one in asked] == [one.place for one in everything][3::4]


def test_a_user_is_known_at_once_whatever_the_lag() -> None:
    """A lag delays learning, not the session that a request tells of: neighbours of the click just made are there."""
    log = [
        Happened("u", "a", 2, 0, "s", 0.0, ""),
        Happened("u", "b", 2, 1_000, "s", 0.0, ""),
        # The next minute knows that b follows a.
        Happened("v", "c", 2, 61_000, "t", 0.0, ""),
        Happened("v", "a", 2, 62_000, "t", 0.0, ""),
        Happened("v", "b", 2, 63_000, "t", 0.0, ""),
    ]
    answers = [answer for _, answer in passed(log, lag="1m").run()]
    assert answers[1] is not None
    assert answers[1].known == 0
    assert answers[4] is not None
    assert answers[4].rank == 1


@pytest.mark.parametrize("lag", ["0", "1m"])
def test_an_interrupted_pass_goes_on_as_if_nothing_had_been(lag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = events(60)
    file = CheckpointFile(SETTINGS, "interrupted", lag)
    expected = figures(passed(log, lag=lag))

    class Interrupted(Exception):
        pass

    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == 177:
            raise Interrupted

    monkeypatch.setattr("millrace.evaluation.figures.EVERY_S", 0.0)
    with pytest.raises(Interrupted):
        measure(passed(log, lag=lag), False, 20, step, file)
    kept = file.load()
    assert kept is not None
    assert 170 < kept.place < 177
    assert bool(kept.examples) == (lag != "0")
    found = measure(passed(log, lag=lag), False, 20, lambda: None, file)
    assert found is not None
    assert timeless(found) == timeless(expected)
    assert file.load() is None, "it is through"


def test_a_damaged_checkpoint_is_named() -> None:
    file = CheckpointFile(SETTINGS, "damaged")
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(MillraceError, match="--restart"):
        file.load()
    file.drop()
    assert file.load() is None
    assert file.path != CheckpointFile(SETTINGS, "another").path


def test_popularity_is_what_was_met_however_late_it_is_learned() -> None:
    """Two minutes: b and c are met once each in the second one, and count although the recommender knows a alone."""
    log = [
        Happened("u", "a", 2, 0, "s", 0.0, ""),
        Happened("v", "b", 2, 60_000, "t", 0.0, ""),
        Happened("w", "c", 2, 61_000, "x", 0.0, ""),
        Happened("w", "a", 2, 62_000, "x", 0.0, ""),
        Happened("w", "a", 2, 63_000, "x", 0.0, ""),
    ]
    # Answered is a: met once where the average item was, then twice where that was met 4/3 times.
    assert figures(passed(log, lag="1m")).popularity_bias == pytest.approx((1 + 2 / (4 / 3)) / 2)


def test_modules_that_no_figure_follows_from_are_not_loaded_for_one() -> None:
    """Else a change of theirs would go unnoticed by what was measured before."""
    code = "import sys, millrace.evaluation.figures; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "millrace.evaluation.prequential" in loaded
    package = Path(evaluation.__file__).parents[1]
    assert {name for name in BESIDE if not (package / f"{name}.py").is_file()} == set()
    # A pass keeps its users and items in memory: of these it has a format, and two numbers that stand beside them.
    reached = {"evaluation/checkpoint", "features/calls", "features/store"}
    assert {name for name in BESIDE if f"millrace.{name.replace('/', '.')}" in loaded} == reached


def test_the_code_of_a_pass_includes_the_defaults_of_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a changed default would pass for the same code, and figures of the old one for its own."""
    package = Path(checkpoint.__file__).parents[1]
    for name in ("evaluation/checkpoint.py", "ranking/model.py"):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((package / name).read_bytes())
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "evaluation" / "checkpoint.py"))
    digest = checkpoint.code_digest.__wrapped__
    seen = {digest()}
    (tmp_path / "ranking" / "model.py").write_text("# another\n")
    seen.add(digest())

    class Other(RecommenderSettings):
        candidates_max: Positive = 121

    monkeypatch.setitem(Settings.groups, "recommender", Other)
    seen.add(digest())
    assert len(seen) == 3
    monkeypatch.setitem(Settings.groups, "stack", Other)
    assert digest() in seen, "nothing follows from that group"
