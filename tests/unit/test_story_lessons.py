"""Which update learned an outcome and what it moved, from records as the learner makes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from millrace.ranking.first import first_ranker
from millrace.story.entry import Entry
from millrace.story.lessons import Learned, Lesson, Lessons
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Label, Outcome
from tests.learning_support import PublishedLine, outcomes

TOPIC_ID = "topic"
APPENDED_MS = 1_000


@pytest.fixture
def made() -> list[Outcome]:
    return list(outcomes(10, slots=5))


def lessons(made: Sequence[Outcome], *offsets: int, partition: int = 0, topic_id: str = TOPIC_ID) -> Lessons:
    return Lessons(
        "ranker", topic_id, [Entry(made[offset], "outcomes", partition, offset, APPENDED_MS) for offset in offsets]
    )


def told(found: Lessons, records: Sequence[ModelUpdate]) -> list[Lesson]:
    for record in records:
        found.apply(record)
    return found.results()


def test_the_first_update_that_includes_it_and_what_it_moved(made: list[Outcome]) -> None:
    learner = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    records = [learner.snapshot(), learner.learn(3)]
    before = learner.vector
    records.append(learner.learn(2))
    after = learner.vector
    records.append(learner.learn(1))
    found = lessons(made, 3)
    [lesson] = told(found, records)
    assert lesson.what is Learned.LEARNED
    assert lesson.update is not None
    assert (lesson.update.epoch, lesson.update.sequence) == (1, 2)
    assert (lesson.delay_ms, lesson.slots) == (120, 10)
    assert lesson.moves is not None
    names = (*first_ranker().columns, "intercept")
    assert {move.parameter for move in lesson.moves} == set(names)
    for move in lesson.moves:
        at = names.index(move.parameter)
        assert (move.before, move.after) == (before[at], after[at])
    sizes = [abs(move.after - move.before) for move in lesson.moves]
    assert sizes == sorted(sizes, reverse=True)
    assert found.complete
    assert not found.blind


def test_two_outcomes_may_be_learned_at_once_or_one_after_the_other(made: list[Outcome]) -> None:
    learner = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    records = [learner.snapshot(), learner.learn(3), learner.learn(3)]
    at_once, later = told(lessons(made, 0, 2), records), told(lessons(made, 0, 4), records)
    assert [one.update and one.update.sequence for one in at_once] == [1, 1]
    assert [one.update and one.update.sequence for one in later] == [1, 2]


def test_without_a_learner_nobody_learned_it(made: list[Outcome]) -> None:
    found = lessons(made, 3)
    assert [one.what for one in told(found, [])] == [Learned.NOT_YET]
    learner = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    assert [one.what for one in told(found, [learner.snapshot(), learner.learn(3)])] == [Learned.NOT_YET]
    assert not found.complete
    assert not found.blind


def test_other_models_partitions_and_topics_say_nothing(made: list[Outcome]) -> None:
    learner = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    records = [learner.snapshot(), learner.learn(5), learner.snapshot()]
    assert told(lessons(made, 3, partition=1), records)[0].what is Learned.NOT_YET
    assert told(lessons(made, 3, topic_id="made anew"), records)[0].what is Learned.NOT_YET
    for record in records:
        (record.update if record.HasField("update") else record.snapshot).model_name = "other"
    assert told(lessons(made, 3), records)[0].what is Learned.NOT_YET


def test_after_a_gap_the_values_before_come_from_the_next_snapshot(made: list[Outcome]) -> None:
    learner = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    first, lost = learner.snapshot(), learner.learn(1)
    in_gap, mending, after_it = learner.learn(1), learner.snapshot(), learner.learn(1)
    del lost
    found = lessons(made, 1, 2)
    gap, mended = told(found, [first, in_gap, mending, after_it])
    # The first record told that it was not learned yet, the values before this update are lost.
    assert (gap.what, gap.moves, gap.slots) == (Learned.LEARNED, None, None)
    assert found.blind
    assert mended.moves
    assert mended.slots == 5


@pytest.mark.parametrize("first", ["update", "snapshot"])
def test_what_the_topic_keeps_no_more_was_learned_earlier(made: list[Outcome], first: str) -> None:
    learner = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    learner.snapshot()
    update = learner.learn(5)
    found = lessons(made, 3)
    [lesson] = told(found, [update if first == "update" else learner.snapshot(), learner.learn(1)])
    assert lesson.what is Learned.EARLIER
    assert (lesson.delay_ms, lesson.moves) == (None, None)
    assert found.blind


def test_a_learner_that_learns_it_again_changes_nothing(made: list[Outcome]) -> None:
    killed = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    records = [killed.snapshot(), killed.learn(5)]
    second = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120, epoch=2)
    [lesson] = told(lessons(made, 3), [*records, second.snapshot(), second.learn(4)])
    assert lesson.update is not None
    assert lesson.update.epoch == 1


def test_unseen_slots_teach_nothing_and_what_the_learner_refuses_neither(made: list[Outcome]) -> None:
    for decided in made[1].slots:
        decided.label = Label.LABEL_UNSEEN
    learner = PublishedLine(made, TOPIC_ID, APPENDED_MS + 120)
    records = [learner.snapshot(), learner.learn(3)]
    made[2].impression.feature_schema = "v0-old"
    unseen, refused = told(lessons(made, 1, 2), records)
    assert unseen.what is Learned.NO_EXAMPLES
    assert refused.what is Learned.REFUSED
    assert "impression.feature_schema: 'v0-old'" in refused.refusal
