"""Which of the records that a process has taken led to one that it makes, as the records themselves say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from google.protobuf.message import Message

from millrace.stream.worker import Record
from millrace.v1.impression_pb2 import Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ModelUpdate, ParameterUpdate
from millrace.v1.outcome_pb2 import Outcome

KEPT_MAX = 20_000
"""Contexts kept of each kind: some 300 bytes each. Only sampled records have one."""

Name = tuple[str, str, str]


class Causes:
    """The trace contexts of records that others will be made from, the newest up to a bound.

    In memory only: of what was open when a process ended the trace ends there too.
    """

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._named: OrderedDict[Name, bytes] = OrderedDict()
        # Outcomes wait for the update whose positions include them: partition and offset.
        self._outcomes: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._named) + len(self._outcomes)

    def keep(self, record: Record, context: bytes) -> None:
        """Keep the context of a record that was taken."""
        message = record.message
        if isinstance(message, Outcome):
            self._outcomes[record.partition, record.offset] = context
            if len(self._outcomes) > self._kept_max:
                self._outcomes.popitem(last=False)
            return
        if isinstance(message, Interaction):
            name = "interaction", message.user_id, message.event_id
        elif isinstance(message, Impression):
            name = "impression", message.user_id, message.request_id
        else:
            return
        self._named[name] = context
        self._named.move_to_end(name)
        if len(self._named) > self._kept_max:
            self._named.popitem(last=False)

    def of(self, message: Message) -> list[bytes]:
        """Contexts of what a record was made from; the first is the one that it belongs to.

        An outcome belongs to the click that decided it, else to its answer; an update of parameters to the outcomes
        that it is the first to include, each of which it is the end of.
        """
        if isinstance(message, Outcome):
            found = (self._named.get(name) for name in _names(message))
            return list(dict.fromkeys(context for context in found if context is not None))
        if isinstance(message, ModelUpdate) and message.HasField("update"):
            return list(dict.fromkeys(self._learned(message.update)))
        return []

    def _learned(self, update: ParameterUpdate) -> list[bytes]:
        until = {position.partition: position.offset for position in update.learned}
        places = [place for place in self._outcomes if place[1] <= until.get(place[0], -1)]
        return [self._outcomes.pop(place) for place in places]


def _names(outcome: Outcome) -> Iterator[Name]:
    for slot in outcome.slots:
        if slot.event_id:
            yield "interaction", outcome.user_id, slot.event_id
    yield "impression", outcome.user_id, outcome.request_id
