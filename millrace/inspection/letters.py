"""Dead letters as people look at them: each with what became of it.

What became of a letter stands in *marks* behind it in the same topic (one partition), written by
``millrace.inspection.settling``. A letter is known by the place of its original and the worker that failed: a worker
that died between the letter and its commit wrote it twice, and it is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.message import Message

from millrace.errors import InvalidField
from millrace.inspection.plain import headers_plain, readable
from millrace.inspection.raw import RawReader
from millrace.inspection.shown import show
from millrace.inspection.start import Beginning
from millrace.settings import KafkaSettings
from millrace.stream.dead_letters import MARK, PREFIX, without_ours
from millrace.stream.decoding import Fetched
from millrace.stream.worker import Headers
from millrace.topics import Topic

State = Literal["open", "replayed", "dropped"]

Identity = tuple[str, int, int, int]
"""Worker that failed; partition, offset and append time of the original. (A topic made anew has other times.)"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    Attributes
    ----------
    topic
        The topic of the original.
    place
        Offset of the letter in the dead-letter topic.
    buried_at_ms, appended_at_ms
        When the broker appended the letter, and the original; Unix milliseconds. The joiner does not know the latter of
        an interaction that it held back: 0.
    partition, offset
        Where the original stands.
    headers
        Of the original.
    replay_of
        Where the original stands, if this is a letter of its replay; empty if not.
    message
        The value decoded; None where it cannot be, or there is none.
    problem
        Why it cannot be decoded.
    """

    topic: Topic
    place: int
    buried_at_ms: int
    partition: int
    offset: int
    appended_at_ms: int
    worker: str
    reason: str
    field: str
    attempts: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    replay_of: str
    message: Message | None
    problem: str
    state: State

    @property
    def name(self) -> str:
        """How a person names it."""
        return f"{self.topic.name}@{self.place}"

    @property
    def identity(self) -> Identity:
        """What makes it this letter."""
        return self.worker, self.partition, self.offset, self.appended_at_ms

    def as_json(self) -> dict[str, Any]:
        """Everything but the message."""
        return {
            "letter": self.name,
            "state": self.state,
            "topic": self.topic.name,
            "partition": self.partition,
            "offset": self.offset,
            "appended_at_ms": self.appended_at_ms or None,
            "buried_at_ms": self.buried_at_ms,
            "worker": self.worker,
            "field": self.field or None,
            "reason": self.reason,
            "attempts": self.attempts,
            "replay_of": self.replay_of or None,
            "key": readable(self.key),
            "headers": headers_plain(dict(self.headers)),
        }


def read_letters(kafka: KafkaSettings, topic: Topic) -> Iterator[Letter]:
    """The letters beside a topic, oldest first, each once.

    What is no letter (somebody else's record in the topic) is passed over.

    Raises
    ------
    MillraceError
        There is no such topic.
    InfrastructureError
        The broker does not answer.
    """
    with RawReader(kafka, topic.dlq, Beginning()) as reader:
        states = _marks(reader)
        # Read twice and kept never: letters may be many, and large.
        reader.again()
        seen: set[Identity] = set()
        for raw in _records(reader):
            facts = dict(raw.headers() or ())
            identity = _identity(facts)
            if identity is not None and MARK not in facts and identity not in seen:
                seen.add(identity)
                yield _letter(raw, topic, facts, identity, states.get(identity, "open"))


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters; every part that is given has to fit.

    Attributes
    ----------
    places
        Offsets of letters, whatever their state; empty: all.
    reason
        A part of the reason.
    since_ms
        Those that were buried then or later, Unix milliseconds.
    until
        Offset of the last letter that may be chosen: what was buried since it was looked at is another matter.
    fits
        A condition on the message; letters that cannot be decoded do not fit.
    """

    places: frozenset[int] = frozenset()
    state: State | None = "open"
    worker: str | None = None
    field: str | None = None
    reason: str | None = None
    key: str | None = None
    since_ms: int | None = None
    until: int | None = None
    fits: Callable[[Message], bool] | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is chosen."""
        if self.places and letter.place not in self.places:
            return False
        if not self.places and self.state not in (None, letter.state):
            return False
        return (
            self.worker in (None, letter.worker)
            and self.field in (None, letter.field)
            and (self.reason is None or self.reason in letter.reason)
            and (self.key is None or letter.key == self.key.encode())
            and (self.since_ms is None or letter.buried_at_ms >= self.since_ms)
            and (self.until is None or letter.place <= self.until)
            and (self.fits is None or (letter.message is not None and self.fits(letter.message)))
        )


def chosen(kafka: KafkaSettings, topic: Topic, choice: Choice) -> Iterator[Letter]:
    """The letters beside a topic that a choice takes. Raises as :func:`read_letters` does."""
    return (letter for letter in read_letters(kafka, topic) if choice.takes(letter))


def parse_letter(text: str, topics: Mapping[str, Topic]) -> tuple[Topic, int | None]:
    """``TOPIC``, or ``TOPIC@OFFSET`` for one letter: the topic and the letter's offset. Raises InvalidField.

    Parameters
    ----------
    topics
        Those that have dead letters, by name.
    """
    name, at, offset = text.partition("@")
    if name not in topics:
        raise InvalidField("topic", f"{name!r} has no dead letters", ", ".join(topics))
    if at and not (offset.isdecimal() and len(offset) <= 18):
        raise InvalidField("letter", repr(text), f"{name}@OFFSET, as `millrace dlq ls` prints it")
    return topics[name], int(offset) if at else None


def _records(reader: RawReader) -> Iterator[Fetched]:
    while found := reader.rest():
        yield from found


def _marks(reader: RawReader) -> dict[Identity, State]:
    states: dict[Identity, State] = {}
    for raw in _records(reader):
        facts = dict(raw.headers() or ())
        state = facts.get(MARK)
        identity = _identity(facts)
        # A letter that was replayed stays so: a later "dropped" meant it as it stood before.
        if identity is not None and state in (b"replayed", b"dropped") and states.get(identity) != "replayed":
            states[identity] = "replayed" if state == b"replayed" else "dropped"
    return states


def _identity(facts: Mapping[str, bytes]) -> Identity | None:
    try:
        return (
            _text(facts[PREFIX + "worker"]),
            int(facts[PREFIX + "partition"]),
            int(facts[PREFIX + "offset"]),
            int(facts[PREFIX + "timestamp"]),
        )
    except (KeyError, ValueError, TypeError):
        return None


def _letter(raw: Fetched, topic: Topic, facts: Mapping[str, bytes], identity: Identity, state: State) -> Letter:
    worker, partition, offset, appended_at_ms = identity
    shown = show(raw, topic)
    attempts = facts.get(PREFIX + "attempts", b"")
    return Letter(
        topic=topic,
        place=raw.offset(),
        buried_at_ms=raw.timestamp()[1],
        partition=partition,
        offset=offset,
        appended_at_ms=appended_at_ms,
        worker=worker,
        reason=_text(facts.get(PREFIX + "reason", b"")),
        field=_text(facts.get(PREFIX + "field", b"")),
        attempts=int(attempts) if attempts.isdigit() else 0,
        key=raw.key(),
        value=raw.value(),
        headers=without_ours(raw.headers() or ()),
        replay_of=_text(facts.get(PREFIX + "replay_of", b"")),
        message=shown.message,
        problem=shown.problem,
        state=state,
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
