"""Reads the records of one answer off the topics.

Only the answer itself has to be searched for: the newest records first, in every partition or, where the user is
known, in one. Everything else stands in the answer's partition number, from the answer's append time on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from millrace.errors import InfrastructureError, MillraceError
from millrace.settings import DAY_MS, HOUR_MS, MINUTE_MS, Settings
from millrace.story.entry import Entry
from millrace.story.lessons import Lesson, Lessons
from millrace.story.story import Story
from millrace.stream.admin import partition_counts, topic_ids
from millrace.stream.partitioner import partition_of
from millrace.stream.reader import TopicReader
from millrace.stream.worker import Record
from millrace.topics import IMPRESSIONS, INTERACTIONS, MODEL_UPDATES, OUTCOMES, Topic
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Outcome

# How far back each search for an answer goes (None: the whole topic). Who asks mostly asks about a fresh answer; what
# is read twice is small beside what comes next.
LOOKS_BACK_MS = (10 * MINUTE_MS, 3 * HOUR_MS, None)
# Snapshots come every few seconds while something is learned: one before the outcome is in here, or the learner was
# idle and the whole topic is read.
LESSON_LEAD_MS = MINUTE_MS
CHUNK_RECORDS = 2_000
# A broker with records to read brings some within milliseconds; a dead worker's transaction ends after 10 s.
SILENCE_S = 15.0

Progress = Callable[[str, int, int], None]
"""Called with a topic's name, records read, and records to read."""


class NoAnswer(MillraceError):
    """The topic holds no answer with this id."""


class StorySearch:
    """Looks for the story of an answer.

    Parameters
    ----------
    progress
        Told how far the reading of a topic is.
    """

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress

    def find(self, request_id: str, user_id: str | None, now_ms: int) -> Story:
        """The story of an answer.

        Parameters
        ----------
        user_id
            Whose answer it is, where that is known: one partition is searched.

        Raises
        ------
        NoAnswer
            There is no such answer.
        InfrastructureError
            The broker does not answer, or a topic is not made yet.
        """
        answer = self._answer(request_id, user_id, now_ms)
        outcomes = self._outcomes(answer) if answer.message.slots else []
        interactions = self._interactions(answer, outcomes)
        return Story(answer, outcomes, interactions, self._lessons(answer.message, outcomes) if outcomes else [])

    def _answer(self, request_id: str, user_id: str | None, now_ms: int) -> Entry[Impression]:
        count = partition_counts(self._settings.kafka, [IMPRESSIONS.name])[IMPRESSIONS.name]
        numbers = list(range(count)) if user_id is None else [partition_of(user_id, count)]
        searched, oldest_ms = 0, now_ms
        for back_ms in LOOKS_BACK_MS:
            searched = 0
            with self._reader(IMPRESSIONS, numbers, None if back_ms is None else now_ms - back_ms) as reader:
                for record in self._records(IMPRESSIONS, reader):
                    searched += 1
                    oldest_ms = min(oldest_ms, record.append_time_ms)
                    if isinstance(record.message, Impression) and record.message.request_id == request_id:
                        return Entry.of(record, record.message)
                if reader.whole:
                    break
        where = "all partitions" if user_id is None else f"partition {numbers[0]}, that of user {user_id!r},"
        elsewhere = "; without --user all partitions are searched" if user_id is not None else ""
        since = f" back to {_utc(oldest_ms)}" if searched else ""
        raise NoAnswer(
            f"no answer {request_id!r}: {searched:,} answers in {where} of topic {IMPRESSIONS.name} on "
            f"{self._settings.kafka.bootstrap_servers} were searched{since} (the topic keeps "
            f"{IMPRESSIONS.retention_ms // DAY_MS} days){elsewhere}"
        )

    def _outcomes(self, answer: Entry[Impression]) -> list[Entry[Outcome]]:
        """Outcomes of the answer, up to the final one."""
        found = []
        for record in self._read(OUTCOMES, [answer.partition], answer.append_time_ms):
            if isinstance(record.message, Outcome) and record.message.request_id == answer.message.request_id:
                found.append(Entry.of(record, record.message))
                if record.message.final:
                    break
        return found

    def _interactions(self, answer: Entry[Impression], outcomes: Sequence[Entry[Outcome]]) -> list[Entry[Interaction]]:
        """The user's interactions from the answer until its window is over, or its last outcome came.

        One may stand on the log shortly before the answer that it names.
        """
        joiner, user_id = self._settings.joiner, answer.message.user_id
        ends = [answer.append_time_ms + joiner.attribution_window_ms, *(one.append_time_ms for one in outcomes)]
        found = []
        for record in self._read(INTERACTIONS, [answer.partition], answer.append_time_ms - joiner.grace_ms):
            if record.append_time_ms > max(ends) + joiner.grace_ms:
                break
            if isinstance(record.message, Interaction) and record.message.user_id == user_id:
                found.append(Entry.of(record, record.message))
        return found

    def _lessons(self, impression: Impression, outcomes: Sequence[Entry[Outcome]]) -> list[Lesson]:
        """How the model that ranked the answer learned its outcomes."""
        topic_id = topic_ids(self._settings.kafka, [OUTCOMES.name])[OUTCOMES.name]
        model_name = impression.model_name or self._settings.learner.model_name
        near_ms = min(one.append_time_ms for one in outcomes) - LESSON_LEAD_MS
        lessons = Lessons(model_name, topic_id, outcomes)
        for since_ms in (near_ms, None):
            lessons = Lessons(model_name, topic_id, outcomes)
            for record in () if lessons.complete else self._read(MODEL_UPDATES, None, since_ms):
                if isinstance(record.message, ModelUpdate):
                    lessons.apply(record.message)
                if lessons.complete:
                    break
            if not lessons.blind:
                break
        return lessons.results()

    def _read(self, topic: Topic, numbers: Sequence[int] | None, since_ms: int | None) -> Iterator[Record]:
        with self._reader(topic, numbers, since_ms) as reader:
            yield from self._records(topic, reader)

    def _reader(self, topic: Topic, numbers: Sequence[int] | None, since_ms: int | None) -> TopicReader:
        """A reader of some partitions (None: all) from an append time on (None: from the beginning)."""
        return TopicReader(
            self._settings.kafka,
            [topic],
            "beginning" if since_ms is None else since_ms,
            self._settings.stream,
            numbers,
        )

    def _records(self, topic: Topic, reader: TopicReader) -> Iterator[Record]:
        """Everything up to where the topic ends now.

        Raises
        ------
        InfrastructureError
            The broker has more and does not bring it.
        """
        read, silent_since = 0, time.monotonic()
        while not reader.caught_up:
            records = reader.poll(CHUNK_RECORDS)
            if records:
                read, silent_since = read + len(records), time.monotonic()
                self._progress(topic.name, read, read + reader.lag())
            elif time.monotonic() - silent_since > SILENCE_S:
                raise InfrastructureError(
                    "kafka", f"topic {topic.name} brought nothing for {SILENCE_S:g} s, before its end was read"
                )
            yield from records


def _utc(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1_000))
