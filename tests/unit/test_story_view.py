"""What a person reads of a story: what is missing is said, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from millrace.cli._story_view import print_story
from millrace.settings import MINUTE_MS
from millrace.story.entry import Entry
from millrace.story.lessons import Learned, Lesson, Move
from millrace.story.plain import as_plain
from millrace.story.story import Story
from millrace.v1.common_pb2 import SparseValues
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.model_pb2 import ParameterUpdate
from millrace.v1.outcome_pb2 import DecidedSlot, ImpressionOrigin, Label, Outcome
from tests.outcome_support import T0, act, impression

WINDOW_MS = 30 * MINUTE_MS


def story(
    shown: Impression, outcomes: Sequence[Outcome] = (), events: Sequence[Interaction] = (), *lessons: Lesson
) -> Story:
    return Story(
        Entry(shown, "impressions", 1, 7, T0),
        [entry(one, offset) for offset, one in enumerate(outcomes)],
        [Entry(one, "interactions", 1, offset, T0) for offset, one in enumerate(events)],
        lessons,
    )


def entry(outcome: Outcome, offset: int = 0) -> Entry[Outcome]:
    return Entry(outcome, "outcomes", 1, offset, T0)


def outcome(shown: Impression, event: Interaction, final: bool = False) -> Outcome:
    """The first slot, decided by an event."""
    return Outcome(
        request_id=shown.request_id,
        user_id=shown.user_id,
        origin=ImpressionOrigin.IMPRESSION_ORIGIN_SERVED,
        decided_at_ms=event.occurred_at_ms,
        first=True,
        final=final,
        slots=[
            DecidedSlot(
                slot=shown.slots[0],
                label=Label.LABEL_POSITIVE,
                interaction_type=event.type,
                interaction_at_ms=event.occurred_at_ms,
                event_id=event.event_id,
            )
        ],
    )


@pytest.fixture
def text(capsys: pytest.CaptureFixture[str]) -> Text:
    return Text(capsys)


class Text:
    """Prints a story and answers what came out."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def of(self, told: Story, now_ms: int = T0) -> str:
        print_story(as_plain(told, WINDOW_MS, now_ms))
        return self._capsys.readouterr().out


def test_the_whole_of_it(text: Text) -> None:
    shown = impression("r", "anna", ["a", "b"])
    shown.known.topic, shown.known.partition, shown.known.offset = "interactions", 1, 3
    shown.serve_micros, shown.segment, shown.candidates = 1_900, "active", 300
    shown.learner_epoch, shown.learner_sequence = 2, 57
    click = act("anna", "a", at_ms=T0 + 2_300, event_id="e")
    decided = outcome(shown, click)
    update = ParameterUpdate(model_name="ranker", epoch=2, sequence=58, created_at_ms=T0 + 2_500)
    update.parameters.CopyFrom(SparseValues(indices=[0, 19], values=[0.5, -5.0]))
    moves = Move("covisit", 0.25, 0.5), Move("intercept", -5.1, -5.0)
    lesson = Lesson(entry(decided), Learned.LEARNED, update, 120, 1, moves)
    said = text.of(story(shown, [decided], [click], lesson))
    for line in (
        "served          2023-11-14 22:13:20 UTC in 1.9 ms",
        "status          ok\n",
        "ranked by       ranker version 1, learned up to update 2.57",
        "knew the user   up to interactions[1]@3",
        "record          impressions[1]@7",
        "1\ta\t0.1000\t\tpositive: click after 2.3 s",
        "2\tb\t0.1000\t\topen",
        "2.3 s\tclick\ta\te\tinteractions[1]@0\tnamed no answer",
        "2023-11-14 22:13:22 UTC\t1\t1 positive\tserved\tfirst\toutcomes[1]@0",
        "1 slot still open: the window of 30 min (MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS as set here) is open until "
        "2023-11-14 22:43:20 UTC",
        "outcomes[1]@0: learned 120 ms after its append by update 2.58 of model ranker at 2023-11-14 22:13:22 UTC, "
        "with 1 slot in all",
        "it moved 2 parameters; the weights that it moved most:",
        "covisit\t0.250000\t0.500000\t+0.250000",
        "intercept\t-5.100000\t-5.000000\t+0.100000",
    ):
        assert line in said, said


def test_outcomes_learned_together_tell_their_update_once(text: Text) -> None:
    shown = impression("r", "anna", ["a", "b"])
    decided = outcome(shown, act("anna", "a"))
    update = ParameterUpdate(model_name="ranker", epoch=1, sequence=1)
    lessons = [Lesson(entry(decided, at), Learned.LEARNED, update, 1, 9, (Move("age", 0.0, 0.1),)) for at in (0, 1)]
    said = text.of(story(shown, [decided, decided], [], *lessons))
    assert said.count("by update 1.1") == 2
    assert said.count("weights that it moved most") == 1


@pytest.mark.parametrize(
    ("lesson", "says"),
    [
        (Learned.NOT_YET, "learned by nobody yet: is the online learner running?"),
        (Learned.EARLIER, "learned before all that model-updates still keeps (6 h)"),
        (Learned.NO_EXAMPLES, "slots that were probably not seen are no examples"),
        (Learned.REFUSED, "refused by the learner, which sent it to its dead letters (too old)"),
        (Learned.LEARNED, "what it moved is not known"),
    ],
)
def test_what_is_not_known_of_the_learning(lesson: Learned, says: str, text: Text) -> None:
    shown = impression("r", "anna", ["a"])
    decided = outcome(shown, act("anna", "a"), final=True)
    update = ParameterUpdate(model_name="ranker", epoch=1, sequence=1) if lesson is Learned.LEARNED else None
    delay_ms = 5 if update else None
    found = Lesson(entry(decided), lesson, update, delay_ms, refusal="too old" if lesson is Learned.REFUSED else "")
    said = text.of(story(shown, [decided], [], found))
    assert says in said
    assert "outcomes[1]@0: " in said


def test_what_is_not_known_of_outcomes(text: Text) -> None:
    shown, late_ms = impression("r", "anna", ["a", "b"]), T0 + 2 * WINDOW_MS
    assert "no outcome yet: the window of 30 min" in text.of(story(shown))
    assert "was over at 2023-11-14 22:43:20 UTC: is the outcome joiner running?" in text.of(story(shown), late_ms)
    forget = Interaction(user_id="anna", type=InteractionType.INTERACTION_TYPE_FORGET)
    assert "none will come: the user asked to be forgotten" in text.of(story(shown, (), [forget]), late_ms)
    assert "nothing to decide" in text.of(story(impression("r", "anna", [])), late_ms)
    shown.as_of_given = True
    assert "is open until 2023-11-14 22:43:20 UTC by the clock of the events" in text.of(story(shown), late_ms)
    again = [act("anna", "a", request_id="r", event_id="e")] * 2
    assert text.of(story(shown, (), again)).count("sent again: counts once") == 1
