"""A shop in which some are answered: the feature updater and the joiner are held to one log."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from confluent_kafka import Consumer, KafkaException, TopicPartition

from millrace.settings import DAY_MS, KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import consumer_config
from millrace.stream.codec import encode
from millrace.stream.reader import TopicReader
from millrace.topics import IMPRESSIONS, INTERACTIONS, OUTCOMES
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.outcome_pb2 import Outcome
from tests.chaos.answers import AnswerLedger, values
from tests.chaos.forking import Forked, Forking
from tests.chaos.losing_redis import LosingRedis
from tests.chaos.members import WORKER
from tests.chaos.results import Found, times
from tests.chaos.shop import T0, Shop, click
from tests.contracts import by_any_release
from tests.feature_ledger import Ledger
from tests.feature_support import clicks
from tests.processes import PATIENCE_S

# Everything that readers do is within the window; then all windows are closed, and who is answered next is later.
WINDOW_MS = 10 * DAY_MS
ANSWERS_AT_ONCE = 2 * min(5, times())
FIRST_CLICKED = 0.3
# Characters of a log.
SHOWN = 8_000


class Group:
    """The processes of a worker; none of them may end by itself.

    Parameters
    ----------
    forking
        Of ``tests.chaos.members``.
    """

    def __init__(self, forking: Forking, worker: str) -> None:
        self._forking, self._env = forking, {WORKER: worker}
        self.members: list[Forked] = []

    def join(self, env: Mapping[str, str] | None = None) -> Forked:
        """One more; returns when it has been given partitions."""
        member = self._forking.start({**self._env, **(env or {})})
        self.members.append(member)
        member.until(lambda: "reads from" in member.output())
        return member

    def leave(self, member: Forked, killed: bool) -> None:
        """One fewer, by kill -9 or SIGTERM."""
        self.members.remove(member)
        if killed:
            member.kill()
        else:
            member.terminate()

    def assert_alive(self) -> None:
        """All of them are the processes that they were."""
        assert all(member.alive for member in self.members), [member.output()[-SHOWN:] for member in self.members]

    def stands(self) -> str:
        """Where each process stands and the end of what it printed, for a person to look at."""
        for member in self.members:
            os.kill(member.pid, signal.SIGUSR1)
        time.sleep(1)
        return "\n\n".join(member.output()[-SHOWN:] for member in self.members)

    def terminate(self) -> None:
        """SIGTERM to all."""
        while self.members:
            self.leave(self.members[-1], killed=False)


class AnsweredShop(Shop):
    """Shoppers of :class:`tests.chaos.shop.Shop`, and readers who are answered and act on it.

    Parameters
    ----------
    transaction_ms
        What a joiner that dies has begun holds the readers of outcomes up for so long.
    """

    def __init__(self, kafka: KafkaSettings, redis: LosingRedis, seed: int, transaction_ms: int = 3_000) -> None:
        super().__init__(kafka, redis, seed)
        self._transaction_ms = transaction_ms
        self.answers = AnswerLedger(seed)
        self._lots, self._probes, self._order = count(), count(), random.Random(seed)
        self._impressions, self._since_ms = 0, T0
        self._reader = TopicReader(kafka, [OUTCOMES])
        self._joiner = Consumer(consumer_config(kafka, "outcome_joiner"), logger=logs.kafka_logger())
        self._decided, self._outcomes = 0, list[Outcome]()

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables of both workers."""
        return {
            **super().env,
            "MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": str(WINDOW_MS),
            "MILLRACE_JOINER_GRACE_MS": str(WINDOW_MS),
            "MILLRACE_JOINER_TRANSACTION_TIMEOUT_MS": str(self._transaction_ms),
            "MILLRACE_JOINER_ORGANIC_RATE": "0",
        }

    def moves(self, *groups: Group) -> float:
        """Time until both workers have taken something new of every partition, seconds.

        Fails unless they do, and unless all processes live.
        """
        began = time.monotonic()
        number = next(self._probes)
        probes = [
            self._produce([click(f"probe {number}", f"probe-{number}-{place}", T0)], place)[0]
            for place in range(self.kafka.partitions)
        ]

        def counted() -> bool:
            for group in groups:
                group.assert_alive()
            return all(clicks(self.store, f"probe-{number}-{place}") for place in range(self.kafka.partitions))

        def joined() -> bool:
            asked = [TopicPartition(INTERACTIONS.name, place) for place in range(self.kafka.partitions)]
            try:
                at = {found.partition: found.offset for found in self._joiner.committed(asked, timeout=1)}
            except KafkaException:
                # Who coordinates the group is not there, or not yet.
                return False
            return all(at[place] > offset for place, offset in probes)

        for moved in (counted, joined):
            while not moved():
                late = time.monotonic() > began + PATIENCE_S
                assert not late, "nothing moves:\n" + "\n\n".join(group.stands() for group in groups)
                time.sleep(0.02)
        return time.monotonic() - began

    def end(self, updaters: Group, joiners: Group) -> Ledger:
        """Let all windows close, wait until both workers have taken everything, and end them."""
        number = next(self._probes)
        self._since_ms += 2 * WINDOW_MS
        for place in range(self.kafka.partitions):
            self._produce([click(f"closing {number}", f"closing-{place}", self._since_ms)], place)
        expected = len(self.answers.expected())

        def decided() -> bool:
            joiners.assert_alive()
            for record in self._reader.poll(timeout_s=0.05):
                if isinstance(record.message, Outcome):
                    self._decided += len(record.message.slots)
            return self._decided >= expected

        began = time.monotonic()
        while not decided():
            late = time.monotonic() > began + PATIENCE_S
            assert not late, f"{self._decided} of {expected} slots were decided:\n{joiners.stands()}"
        joiners.terminate()
        self._outcomes = [one for one in values(self.kafka, OUTCOMES.name, Outcome) if isinstance(one, Outcome)]
        ledger = self.settle(updaters.members.pop())
        updaters.terminate()
        return ledger

    def close(self) -> None:
        """Let go of Redis and Kafka."""
        self.store.close()
        self._reader.close()
        self._joiner.close()

    def found(self, ledger: Ledger) -> Found:
        """Clicks of users and items, and slots, against the ledgers; events since it was asked last."""
        found = super().found(ledger)
        slots = self.answers.found(0, self._outcomes)
        impressions, self._impressions = self._impressions, 0
        return Found(found.events + impressions, found.lost + slots.lost, found.doubled + slots.doubled)

    def assert_equals(self, ledger: Ledger) -> None:
        """Features, published states, and every slot."""
        super().assert_equals(ledger)
        self.answers.assert_equals(self.kafka, self._outcomes)

    def _act(self, users: int, items: int) -> None:
        super()._act(users, items)
        made = [message for message, _ in self.answers.lot(next(self._lots), ANSWERS_AT_ONCE, self._since_ms)]
        steps: list[Callable[[], object]] = [
            lambda: self._show([one for one in made if isinstance(one, Impression)]),
            lambda: self._produce([one for one in made if isinstance(one, Interaction)]),
        ]
        for step in reversed(steps) if self._order.random() < FIRST_CLICKED else steps:
            step()

    def _show(self, impressions: Sequence[Impression]) -> None:
        for impression in impressions:
            _, headers = encode(impression)
            self._producer.produce(
                IMPRESSIONS.name,
                by_any_release(impression, self._order),
                impression.user_id,
                headers=headers,  # type: ignore[arg-type]  # a list is invariant
            )
        assert self._producer.flush(PATIENCE_S) == 0
        self._impressions += len(impressions)
