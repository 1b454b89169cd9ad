"""What the topics themselves say of freshness: whether answers knew their user's clicks, and how soon outcomes teach.

Pure: records in, values out. Looks at what comes while somebody looks, in bounded memory.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from millrace.stream.worker import Record
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ModelUpdate
from millrace.v1.outcome_pb2 import Outcome

# Users whose last clicks are known: those of the last minutes in most shops, 200 bytes each.
USERS_MAX = 20_000
# Outcomes of a partition that no update includes yet: half a minute of a busy shop.
WAITING_MAX = 20_000
RECENT = 2_000
"""Answers and lessons that figures are of."""


@dataclass(slots=True)
class Freshness:
    """Follows interactions, answers, outcomes and parameter updates.

    Attributes
    ----------
    answers
        Answers to users who had clicked while this looked.
    missed
        Those of them that did not know all these clicks.
    stalest_ms
        The longest that such a click had been on the log.
    """

    answers: int = 0
    missed: int = 0
    stalest_ms: int = 0
    # User -> partition, and offset and append time of the last clicks.
    _clicks: OrderedDict[str, tuple[int, deque[tuple[int, int]]]] = field(default_factory=OrderedDict)
    # Partition -> offset and append time of outcomes that no update includes.
    _waiting: dict[int, deque[tuple[int, int]]] = field(default_factory=dict)
    _taught_ms: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def take(self, records: Iterable[Record]) -> None:
        """Take records of the four topics."""
        for record in records:
            message = record.message
            if isinstance(message, Interaction):
                self._click(message.user_id, record)
            elif isinstance(message, Impression):
                self._answer(message)
            elif isinstance(message, Outcome):
                waiting = self._waiting.setdefault(record.partition, deque(maxlen=WAITING_MAX))
                waiting.append((record.offset, record.append_time_ms))
            elif isinstance(message, ModelUpdate) and message.HasField("update"):
                self._learned(message)

    def outcome_to_model_ms(self, since_ms: int) -> tuple[float, float] | None:
        """Median and 99th percentile, in ms, from an outcome's append to the making of the parameters that include it.

        Of those made since a time, Unix ms; None if there are none.
        """
        delays = [delay for made_ms, delay in self._taught_ms if made_ms >= since_ms]
        if not delays:
            return None
        p50, p99 = np.percentile(delays, (50, 99)).tolist()
        return p50, p99

    def _click(self, user_id: str, record: Record) -> None:
        _, clicks = self._clicks.setdefault(user_id, (record.partition, deque(maxlen=8)))
        clicks.append((record.offset, record.append_time_ms))
        self._clicks.move_to_end(user_id)
        if len(self._clicks) > USERS_MAX:
            self._clicks.popitem(last=False)

    def _answer(self, answer: Impression) -> None:
        found = self._clicks.get(answer.user_id)
        if found is None or answer.as_of_given:
            return
        partition, clicks = found
        before = [click for click in clicks if click[1] < answer.served_at_ms]
        if not before:
            return
        known = answer.known.offset if answer.HasField("known") and answer.known.partition == partition else -1
        missed = [appended_ms for offset, appended_ms in before if offset > known]
        self.answers += 1
        if missed:
            self.missed += 1
            self.stalest_ms = max(self.stalest_ms, answer.served_at_ms - missed[0])

    def _learned(self, message: ModelUpdate) -> None:
        update = message.update
        for position in update.learned:
            waiting = self._waiting.get(position.partition)
            while waiting and waiting[0][0] <= position.offset:
                _, appended_ms = waiting.popleft()
                self._taught_ms.append((update.created_at_ms, max(0.0, update.created_at_ms - appended_ms)))
