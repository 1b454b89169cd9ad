"""Ranks among items drawn at random: the right number of them, the same each time, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.evaluation.features import MemoryFeatures
from millrace.evaluation.lag import parse_lag
from millrace.evaluation.negatives import SampledRanks
from millrace.evaluation.prequential import Answer, Prequential
from millrace.evaluation.protocols import protocol
from millrace.evaluation.questions import MISS
from millrace.evaluation.stream import EventStream, Happened, checksum
from millrace.ranking.first import first_ranker
from millrace.settings import Settings
from tests.evaluation_support import stream

SETTINGS = Settings()


def events(sessions: int) -> list[Happened]:
    return [
        Happened(one.user_id, one.item_id, one.type, one.occurred_at_ms, one.session_id, 0.0, "")
        for one in stream(sessions)
    ]


def learned(log: list[Happened]) -> MemoryFeatures:
    memory = MemoryFeatures(SETTINGS.features, SETTINGS.recommender)
    for event in log:
        memory.take(event)
    memory.ready_all()
    return memory


def answers(log: list[Happened], name: str, negatives: int, seed: int = 0) -> list[Answer]:
    source = EventStream("test", log, [0], 0, checksum(log))
    run = Prequential(source, protocol(name, source), SETTINGS, 20, parse_lag("0"), 3, seed, negatives)
    return [answer for _, answer in run.run() if answer is not None]


@pytest.mark.parametrize("negatives", [5, 59, 60, 500])
def test_as_many_are_drawn_as_asked_for_or_as_there_are(negatives: int) -> None:
    log = events(60)
    memory = learned(log)
    known = len(memory.table)
    for place in range(5):
        rank, ranked = SampledRanks(memory, SETTINGS, negatives, 0).rank(place, log[-1], (), first_ranker())
        assert ranked == min(negatives, known - 1) + 1
        assert 1 <= rank <= ranked


def test_items_left_out_are_not_drawn() -> None:
    log = events(60)
    memory = learned(log)
    kept = {log[-1].item_id, "i1", "i2"}
    without = set(memory.table.rows) - kept
    assert SampledRanks(memory, SETTINGS, 40, 0).rank(0, log[-1], without, first_ranker())[1] == len(kept)


def test_an_item_that_nobody_knows_is_a_miss() -> None:
    log = events(20)
    stranger = log[-1]._replace(item_id="new")
    assert SampledRanks(learned(log), SETTINGS, 5, 0).rank(0, stranger, (), first_ranker()) == (MISS, 6)
    assert SampledRanks(MemoryFeatures(SETTINGS.features, SETTINGS.recommender), SETTINGS, 5, 0).rank(
        0, stranger, (), first_ranker()
    ) == (
        MISS,
        1,
    )


@pytest.mark.parametrize("name", ["next-in-session", "flurs"])
def test_only_the_ranks_move_and_they_flatter(name: str) -> None:
    log = events(60)
    everything, sampled, again = (answers(log, name, negatives) for negatives in (0, 10, 10))

    def judged(answer: Answer) -> tuple[object, ...]:
        return answer.rank, answer.known, answer.recall, answer.ndcg

    def rest(answer: Answer) -> tuple[object, ...]:
        return answer.place, answer.top.tolist(), answer.ranked, answer.segment

    assert [rest(one) for one in everything] == [rest(one) for one in sampled]
    assert [judged(one) for one in sampled] == [judged(one) for one in again]
    assert [judged(one) for one in sampled] != [judged(one) for one in answers(log, name, 10, seed=3)]
    late = len(everything) // 2
    found = [(one.rank, other.rank) for one, other in zip(everything[late:], sampled[late:], strict=True) if one.rank]
    assert np.mean([rank for _, rank in found]) < np.mean([rank for rank, _ in found])
