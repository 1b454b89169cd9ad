"""A part that is left out is as if it did not exist: no candidate of its generator, no column that the ranker uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest

from millrace.evaluation.ablation import COMPLETE, Ablation, columns_of
from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.lag import parse_lag
from millrace.evaluation.negatives import SampledRanks
from millrace.evaluation.parts import LEARNING, PARTS, POPULARITY, REPEATS, REST
from millrace.evaluation.prequential import Answer, Prequential
from millrace.evaluation.protocols import protocol
from millrace.evaluation.questions import Question, Questioner
from millrace.evaluation.sessions import Sessions
from millrace.evaluation.stream import EventStream, Happened, checksum
from millrace.learning.learner import OnlineRanker
from millrace.learning.state import LearnerState, fresh
from millrace.ranking.candidates import CandidateLimits
from millrace.ranking.circumstances import FIELDS
from millrace.ranking.compute import compute_features
from millrace.ranking.features import FEATURE_NAMES, FloatMatrix, Signal
from millrace.ranking.first import first_ranker
from millrace.ranking.labels import numbers_of
from millrace.ranking.model import RankingModel
from millrace.ranking.sources import NEIGHBOURS, REPEAT, SESSIONS, TRENDING_LONG, TRENDING_SHORT
from millrace.settings import RecommenderSettings, Settings
from tests.evaluation_support import stream

SETTINGS = Settings()
GENERATORS = {
    "neighbours": NEIGHBOURS,
    "sessions": SESSIONS,
    POPULARITY: TRENDING_SHORT | TRENDING_LONG,
}
# Three kinds of visitors, of whom each field says something.
CONTEXTS = [tuple((place, 100 * place + kind) for place in range(len(FIELDS))) for kind in range(3)]
# A catalogue, of which each item has one label of three.
LABELLED = {item: numbers_of([f"label {sum(item.encode()) % 3}"]) for item in {one.item_id for one in stream(120)}}
WITH_FEATURES = [name for name, part in PARTS.items() if part.columns]


def events(sessions: int) -> list[Happened]:
    return [
        Happened(one.user_id, one.item_id, one.type, one.occurred_at_ms, one.session_id, 0.0, "", CONTEXTS[place % 3])
        for place, one in enumerate(stream(sessions))
    ]


def passed(log: list[Happened], without: Collection[str] = (), every: int = 1) -> tuple[list[Answer], RankingModel]:
    """The answers of a pass, and the model at its end."""
    source = EventStream("test", log, [0], 0, checksum(log), labels=LABELLED)
    run = Prequential(
        source,
        protocol("next-in-session", source),
        SETTINGS,
        20,
        parse_lag("0"),
        every,
        seed=0,
        ablation=Ablation(without),
    )
    answers = [answer for _, answer in run.run() if answer is not None]
    return answers, LearnerState.from_bytes(run.learned()[0]).model


def hit_rate(answers: list[Answer]) -> float:
    return sum(0 < one.rank <= 5 for one in answers) / len(answers)


def told(log: list[Happened]) -> MemoryFeatures:
    memory = MemoryFeatures(SETTINGS.features, SETTINGS.recommender, LABELLED)
    for event in log:
        memory.take(event)
    return memory


def asked(memory: MemoryFeatures, event: Happened, ablation: Ablation) -> Question:
    memory.ready(memory.users.get(event.user_id))
    random = np.random.default_rng(0)
    return Questioner(memory, SETTINGS.features, SETTINGS.recommender, 5, random, ablation).before(event)


def last_questions(without: str) -> Iterator[tuple[Question, Question]]:
    """Questions after a log, with everything and without a part, at the ends of sessions under way."""
    log = events(60)
    memory = told(log)
    for place in range(204, 300, 5):
        yield asked(memory, log[place], COMPLETE), asked(memory, log[place], Ablation([without]))


def test_every_feature_is_of_a_part_or_of_the_rest() -> None:
    of_parts = Counter(name for part in PARTS.values() for name in columns_of(part))
    assert of_parts.keys() | set(REST) == set(FEATURE_NAMES)
    assert not of_parts.keys() & set(REST)
    assert [name for name, parts in of_parts.items() if parts > 1] == ["newest"]
    for part in PARTS.values():
        for pattern in part.columns:
            assert any(fnmatchcase(name, pattern) for name in FEATURE_NAMES), pattern


def test_limits_of_parts_are_limits_of_generators() -> None:
    limits = CandidateLimits.of(SETTINGS.recommender)
    assert {limit for part in PARTS.values() for limit in part.limits} <= {field.name for field in fields(limits)}
    assert COMPLETE.limits(limits) == limits
    assert Ablation(["sessions", "neighbours"]).limits(limits) == replace(limits, session_items=0, context_items=0)


@pytest.mark.parametrize("part", WITH_FEATURES)
def test_nothing_of_a_part_is_left_and_all_of_the_others_is(part: str) -> None:
    left_out = [FEATURE_NAMES.index(name) for name in columns_of(PARTS[part])]
    others = [column for column in range(len(FEATURE_NAMES)) if column not in left_out]
    varied = np.zeros(len(FEATURE_NAMES), dtype=bool)
    for complete, question in last_questions(part):
        varied |= (complete.features != complete.features[:1]).any(axis=0)
        assert not question.features[:, left_out].any()
        alone = GENERATORS.get(part, 0)
        assert not (question.candidates.sources & alone).any()
        ours, theirs = question.candidates.rows.tolist(), complete.candidates.rows.tolist()
        if part == REPEATS:
            assert not (question.candidates.sources == REPEAT).any()
            assert set(ours) == set(complete.candidates.rows[complete.candidates.sources != REPEAT].tolist())
        else:
            assert set(ours) == set(complete.candidates.rows[complete.candidates.sources & ~alone != 0].tolist())
        places = [theirs.index(row) for row in ours]
        assert question.features[:, others].tobytes() == complete.features[places][:, others].tobytes()
    assert varied[left_out].any(), "there was something to leave out"


def test_nothing_fills_an_answer_up_without_popularity() -> None:
    """A user of whom nothing is known gets what is trending, or nothing."""
    log = events(20)
    memory, stranger = told(log), log[-1]._replace(user_id="nobody yet")
    assert len(asked(memory, stranger, COMPLETE).candidates) > 5
    assert len(asked(memory, stranger, Ablation([POPULARITY])).candidates) == 0


@pytest.mark.parametrize("part", WITH_FEATURES)
def test_what_the_features_of_a_part_say_does_not_matter(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = events(60)
    expected, model = passed(log, [part])
    columns = [FEATURE_NAMES.index(name) for name in columns_of(PARTS[part])]
    for vector in (model.means, model.variances, model.weights):
        assert not vector[columns].any()
    noise = np.random.default_rng(5)

    def compute_noise(*arguments: Any) -> FloatMatrix:
        features = compute_features(*arguments)
        features[:, columns] = noise.normal(size=(len(features), len(columns)))
        return features

    monkeypatch.setattr("millrace.evaluation.questions.compute_features", compute_noise)
    found, same = passed(log, [part])
    assert [one.top.tolist() for one in found] == [one.top.tolist() for one in expected]
    assert same.weights.tobytes() == model.weights.tobytes()
    assert [one.top.tolist() for one in passed(log)[0]] != [one.top.tolist() for one in expected]


def test_without_sessions_is_a_pass_in_which_there_are_no_sessions() -> None:
    """Beside a recommender that has neither the generator nor the columns, and learns from what is left."""
    log = events(120)
    recommender = RecommenderSettings(session_items=0)
    memory, random = MemoryFeatures(SETTINGS.features, recommender, LABELLED), np.random.default_rng(0)
    questioner = Questioner(memory, SETTINGS.features, recommender, 20, random)
    first, gone = first_ranker(), set(columns_of(PARTS["sessions"]))
    kept = [place for place, name in enumerate(FEATURE_NAMES) if name not in gone]
    terms = [term for term in first.terms if not gone & set(term.features)]
    columns = [*kept, *(first.columns.index(term.name) for term in terms)]
    ranker = OnlineRanker(
        fresh(
            replace(
                first,
                feature_names=tuple(FEATURE_NAMES[place] for place in kept),
                means=first.means[columns],
                variances=first.variances[columns],
                weights=first.weights[columns],
                terms=tuple(terms),
            ),
            "test",
            "test",
            epoch=1,
        )
    )
    ranks, ranked = list[int](), list[int]()
    sessions = Sessions(SETTINGS.features.session_gap_ms)
    for event in log:
        if sessions.continues(event):
            memory.ready(memory.users.get(event.user_id))
            question = questioner.before(event)
            assert not (question.candidates.sources & SESSIONS).any()
            assert not question.candidates.signals[:, Signal.SIMILAR : Signal.LIFTS].any()
            ranks.append(question.rank(ranker.model().score(question.features[:, kept])))
            ranked.append(len(question.candidates))
            example = question.example(SETTINGS.joiner.organic_negatives, random)
            if example is not None:
                ranker.learn(example[:, kept], [True] + [False] * (len(example) - 1))
        memory.take(event)

    answers, model = passed(log, ["sessions"])
    assert [one.ranked for one in answers] == ranked
    assert [one.rank for one in answers] == ranks
    learned = dict(zip(model.columns, model.weights.tolist(), strict=True))
    assert [learned[name] for name in ranker.model().columns] == pytest.approx(ranker.model().weights, rel=1e-9)
    assert model.intercept == pytest.approx(ranker.model().intercept, rel=1e-9)
    assert ranks != [one.rank for one in passed(log)[0]]


def test_without_learning_the_first_ranker_stays() -> None:
    log = events(120)
    answers, model = passed(log, [LEARNING])
    first = first_ranker()
    assert model.weights.tolist() == first.weights.tolist()
    assert (model.intercept, model.observations) == (first.intercept, first.observations)
    complete, learned = passed(log)
    assert learned.weights.tolist() != first.weights.tolist()
    assert [one.ranked for one in answers] == [one.ranked for one in complete], "features learn as ever"
    assert hit_rate(answers) < hit_rate(complete)


def test_several_parts_are_left_out_at_once() -> None:
    """Of all that proposes, what is left is the user's own."""
    log = events(40)
    answers, model = passed(log, ["neighbours", "sessions", POPULARITY, "context", "labels", LEARNING])
    assert max(one.ranked for one in answers) <= 5
    counts = [name for name, variance in zip(FEATURE_NAMES, model.variances, strict=False) if variance > 0]
    assert set(counts) == {*REST, *columns_of(PARTS[REPEATS])} - {"newest"}


def test_ranks_among_some_are_without_the_parts_too() -> None:
    """With nothing but the rest, which the first ranker does not weigh, all items are equal, and ties are misses."""
    log = events(60)
    memory, last = told(log[:-1]), log[-1]
    memory.ready(memory.users.get(last.user_id))
    everything, nothing = (
        SampledRanks(memory, SETTINGS, 30, 0, ablation).rank(0, last, (), ablation.ranker(first_ranker()))
        for ablation in (COMPLETE, Ablation(list(PARTS)))
    )
    assert everything[0] < everything[1] == 31
    assert nothing == (31, 31)
