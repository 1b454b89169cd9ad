"""Settles dead letters: sends them again to the worker that failed, or says that nobody will.

A replay and the mark that says so are one transaction, and there is one settler at a time: who opens replaces who was
there before, and reads the marks after that. So a letter is replayed once, however often it is asked for, by however
many people, and whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Literal, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from millrace.errors import InfrastructureError, MillraceError
from millrace.inspection.letters import Choice, Letter, chosen
from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import producer_config
from millrace.stream.dead_letters import MARK, PREFIX, REPLAY_PREFIX, REPLAY_WORKER
from millrace.topics import Topic

Action = Literal["replay", "drop"]

_TRANSACTIONAL_ID = "millrace.dlq"
# Readers of the topic wait for an open transaction: what a killed settler leaves is aborted after this long.
_OPEN_MAX_MS = 10_000
_TIMEOUT_S = 20.0
_CHUNK = 200
"""Letters of a transaction: at most 400 MB of the largest, a few hundred kilobytes of usual ones."""
_REPLACED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


@dataclass(slots=True)
class Settled:
    """How many letters were settled, and how many had been before.

    Attributes
    ----------
    last
        Offset of the last of them; -1 if there was none.
    """

    done: int = 0
    before: int = 0
    last: int = -1


def settle(kafka: KafkaSettings, action: Action, choices: Iterable[tuple[Topic, Choice]]) -> dict[str, Settled]:
    """Replay or drop the letters that are chosen; how many of each topic.

    Raises
    ------
    MillraceError
        Somebody else settles now; what is not settled yet is left to them.
    InfrastructureError
        The broker does not answer, or refuses a record.
    """
    # Opened first: who settled before settles no more, so that the marks that are read next are all there are.
    with Settler(kafka) as settler:
        act = settler.replay if action == "replay" else settler.drop
        return {topic.name: act(chosen(kafka, topic, choice)) for topic, choice in choices}


def foreseen(kafka: KafkaSettings, action: Action, choices: Iterable[tuple[Topic, Choice]]) -> dict[str, Settled]:
    """What :func:`settle` would do now. Raises InfrastructureError, or MillraceError where there is no such topic."""
    before = {"replay": ("replayed",), "drop": ("replayed", "dropped")}[action]
    found: dict[str, Settled] = {}
    for topic, choice in choices:
        counts = found[topic.name] = Settled()
        for letter in chosen(kafka, topic, choice):
            counts.last = max(counts.last, letter.place)
            if letter.state in before:
                counts.before += 1
            else:
                counts.done += 1
    return found


class Settler:
    """Settles letters that are read after it was opened.

    Raises
    ------
    InfrastructureError
        The broker does not answer.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._where = kafka.bootstrap_servers
        self._producer = Producer(
            producer_config(kafka) | {"transactional.id": _TRANSACTIONAL_ID, "transaction.timeout.ms": _OPEN_MAX_MS},
            logger=logs.kafka_logger(),
        )
        try:
            self._producer.init_transactions(_TIMEOUT_S)
        except KafkaException as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # An open transaction is aborted by the broker; what waits here must not be waited for.
        self._producer.purge()

    def replay(self, letters: Iterable[Letter]) -> Settled:
        """Send letters again, each to the partition where its original stands; those replayed before are passed over.

        Raises
        ------
        MillraceError
            Somebody else settles now; what is not settled yet is left to them.
        InfrastructureError
            The broker does not answer, or refuses a record.
        """
        return self._settle(letters, "replayed", passed=("replayed",))

    def drop(self, letters: Iterable[Letter]) -> Settled:
        """Mark letters as dropped; those settled before are passed over. Raises as :meth:`replay` does."""
        return self._settle(letters, "dropped", passed=("replayed", "dropped"))

    def _settle(
        self, letters: Iterable[Letter], state: Literal["replayed", "dropped"], passed: Sequence[str]
    ) -> Settled:
        settled = Settled()
        chosen = self._unsettled(letters, passed, settled)
        while chunk := list(islice(chosen, _CHUNK)):
            try:
                self._producer.begin_transaction()
                for letter in chunk:
                    if state == "replayed":
                        self._send_again(letter)
                    self._mark(letter, state)
                self._producer.commit_transaction(_TIMEOUT_S)
            except KafkaException as error:
                raise self._failed(error) from error
            settled.done += len(chunk)
        return settled

    @staticmethod
    def _unsettled(letters: Iterable[Letter], passed: Sequence[str], settled: Settled) -> Iterator[Letter]:
        for letter in letters:
            settled.last = max(settled.last, letter.place)
            if letter.state in passed:
                settled.before += 1
            else:
                yield letter

    def _send_again(self, letter: Letter) -> None:
        place = {
            "topic": letter.topic.name,
            "partition": str(letter.partition),
            "offset": str(letter.offset),
            "timestamp": str(letter.appended_at_ms),
        }
        headers = [
            *letter.headers,
            (REPLAY_WORKER, letter.worker.encode()),
            *((REPLAY_PREFIX + name, text.encode()) for name, text in place.items()),
        ]
        self._producer.produce(letter.topic.name, letter.value, letter.key, letter.partition, headers=headers)  # type: ignore[arg-type]

    def _mark(self, letter: Letter, state: str) -> None:
        worker, partition, offset, timestamp = letter.identity
        facts = {
            MARK: state,
            PREFIX + "worker": worker,
            PREFIX + "topic": letter.topic.name,
            PREFIX + "partition": str(partition),
            PREFIX + "offset": str(offset),
            PREFIX + "timestamp": str(timestamp),
        }
        headers = [(name, text.encode()) for name, text in facts.items()]
        self._producer.produce(letter.topic.dlq, None, letter.key, 0, headers=headers)  # type: ignore[arg-type]

    def _failed(self, error: KafkaException) -> MillraceError:
        problem = error.args[0]
        if problem.code() in _REPLACED:
            return MillraceError(
                "another `millrace dlq replay` or `drop` took over; look with `millrace dlq ls` and go on"
            )
        return InfrastructureError("kafka", f"{self._where}: {problem.str()}; nothing of this transaction was settled")
