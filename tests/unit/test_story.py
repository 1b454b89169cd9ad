"""The story of an answer: its slots, what the user did, and how far the joiner is, from what the joiner writes."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.outcomes.joiner import JoinerLimits, PartitionJoiner
from millrace.settings import MINUTE_MS
from millrace.story.answer import Standing, deeds, slot_stories, standing
from millrace.story.entry import Entry
from millrace.story.plain import as_plain
from millrace.story.story import Story
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import CandidateSource, Impression
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from tests.outcome_support import T0, act, impression

WINDOW_MS = 30 * MINUTE_MS
LIMITS = JoinerLimits(window_ms=WINDOW_MS, grace_ms=5_000, dedup_window=100, open_max=100)


def tell(shown: Impression, events: Sequence[Interaction], until_ms: int = T0 + MINUTE_MS) -> Story:
    """What stands on the topics when the joiner's clock has reached a time."""
    joiner = PartitionJoiner(LIMITS)
    joiner.impression(shown, Position(topic="impressions", partition=1, offset=7), T0)
    for offset, event in enumerate(events):
        joiner.interaction(event, offset, event.occurred_at_ms)
    joiner.clock.event(until_ms, until_ms)
    joiner.advance()
    return Story(
        Entry(shown, "impressions", 1, 7, T0),
        [Entry(one, "outcomes", 1, offset, one.decided_at_ms) for offset, one in enumerate(joiner.outcomes)],
        [Entry(one, "interactions", 1, offset, one.occurred_at_ms) for offset, one in enumerate(events)],
        [],
    )


def came_of(story: Story) -> list[tuple[str, str | None, float | None]]:
    plain = as_plain(story, WINDOW_MS, T0)
    return [(slot["label"], slot["by"], slot["after_s"]) for slot in plain["slots"]]


def stands(story: Story, now_ms: int = T0) -> Standing:
    return standing(story.answer, story.outcomes, story.interactions, WINDOW_MS, now_ms)


def test_nothing_is_decided_while_the_window_is_open() -> None:
    story = tell(impression("r", "u", ["a", "b"]), [act("u", "a", "view", T0 + 10, "r")])
    assert came_of(story) == [("open", None, None)] * 2
    assert stands(story, T0 + WINDOW_MS) is Standing.OPEN
    assert stands(story, T0 + WINDOW_MS + 1) is Standing.OVERDUE
    plain = as_plain(story, WINDOW_MS, T0)
    assert (plain["standing"], plain["window_ends_at_ms"]) == ("open", T0 + WINDOW_MS)
    assert [one["type"] for one in plain["interactions"]] == ["view"]


def test_a_click_decides_its_slot_at_once_and_the_window_the_others() -> None:
    shown, click = impression("r", "u", ["a", "b", "c"]), act("u", "b", "click", T0 + 2_300, "r")
    story = tell(shown, [click])
    assert came_of(story) == [("open", None, None), ("positive", "click", 2.3), ("open", None, None)]
    assert stands(story) is Standing.OPEN
    over = tell(shown, [click], T0 + WINDOW_MS)
    # Above the lowest click a slot was seen; below it probably not.
    assert came_of(over) == [("negative", None, None), ("positive", "click", 2.3), ("unseen", None, None)]
    assert stands(over, T0 + 2 * WINDOW_MS) is Standing.DECIDED
    plain = as_plain(over, WINDOW_MS, T0 + 2 * WINDOW_MS)
    assert [(one["first"], one["final"], one["ranks"], one["labels"]) for one in plain["outcomes"]] == [
        (True, False, [1], {"positive": 1}),
        (False, True, [0, 2], {"negative": 1, "unseen": 1}),
    ]
    assert plain["window_ends_at_ms"] is None


def test_a_dislike_is_named_as_what_decided() -> None:
    story = tell(impression("r", "u", ["a"]), [act("u", "a", "dislike", T0 + 500, "r")])
    assert came_of(story) == [("negative", "dislike", 0.5)]
    assert stands(story) is Standing.DECIDED


def test_what_the_user_did_in_the_order_of_time_with_and_without_the_name() -> None:
    events = [
        act("u", "b", "click", T0 + 3_000, "r", event_id="named"),
        act("u", "a", "click", T0 + 1_000, event_id="found"),
        act("u", "elsewhere", "click", T0 + 1_500, event_id="organic"),
        act("other", "a", "click", T0 + 1_600, event_id="found"),
        act("u", "b", "click", T0 + 3_000, "r", event_id="named"),
    ]
    story = tell(impression("r", "u", ["a", "b"]), events)
    found = deeds(story.answer.message, story.outcomes, story.interactions)
    assert [(one.entry.message.event_id, one.entry.offset, one.named, one.repeated) for one in found] == [
        ("found", 1, False, False),
        ("named", 0, True, False),
        ("named", 4, True, True),
    ]
    assert [one.decided.event_id for one in slot_stories(story.answer.message, story.outcomes) if one.decided] == [
        "found",
        "named",
    ]


def test_who_asks_to_be_forgotten_leaves_slots_that_nobody_decides() -> None:
    forget = Interaction(
        event_id="f",
        user_id="u",
        type=InteractionType.INTERACTION_TYPE_FORGET,
        occurred_at_ms=T0 + 2_000,
    )
    story = tell(impression("r", "u", ["a", "b"]), [act("u", "a", "click", T0 + 1_000, "r"), forget])
    assert stands(story, T0 + 2 * WINDOW_MS) is Standing.FORGOTTEN
    assert came_of(story) == [("positive", "click", 1.0), ("open", None, None)]
    earlier = Story(Entry(story.answer.message, "impressions", 1, 7, T0 + 5_000), [], story.interactions, [])
    assert stands(earlier) is Standing.OPEN


def test_an_answer_without_items_and_one_of_a_replay() -> None:
    assert stands(tell(impression("r", "u", []), [])) is Standing.NO_SLOTS
    replayed = impression("r", "u", ["a"])
    replayed.as_of_given = True
    assert stands(tell(replayed, []), T0 + 10 * WINDOW_MS) is Standing.OPEN


def test_names_are_those_of_the_outside_and_unknown_ones_numbers() -> None:
    shown = impression("r", "u", ["a"])
    shown.slots[0].sources.append(CandidateSource.CANDIDATE_SOURCE_TRENDING_SHORT)
    shown.known.CopyFrom(Position(topic="interactions", topic_id="t", partition=1, offset=3))
    shown.fallback = 99  # type: ignore[assignment]  # what a newer recommender may send
    shown.serve_micros = 1_900
    plain = as_plain(tell(shown, []), WINDOW_MS, T0)
    assert plain["slots"][0]["sources"] == ["trending_short"]
    assert (plain["answer"]["status"], plain["answer"]["fallback"]) == ("ok", "99")
    assert plain["answer"]["known"] == {"topic": "interactions", "partition": 1, "offset": 3}
    assert plain["answer"]["position"] == {"topic": "impressions", "partition": 1, "offset": 7}
