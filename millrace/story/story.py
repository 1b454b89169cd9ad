"""What the topics hold of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.story.entry import Entry
from millrace.story.lessons import Lesson
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import Outcome


@dataclass(frozen=True, slots=True)
class Story:
    """The records of an answer, each kind in the order of the log.

    Attributes
    ----------
    interactions
        Everything that the user did around the time of the answer, with it or without.
    lessons
        How each of the outcomes was learned, in their order.
    """

    answer: Entry[Impression]
    outcomes: Sequence[Entry[Outcome]]
    interactions: Sequence[Entry[Interaction]]
    lessons: Sequence[Lesson]
