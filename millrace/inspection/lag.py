"""How far behind the groups are: what they committed, what the log holds, and how fast both move."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    OffsetSpec,
)

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings
from millrace.stream import logs
from millrace.stream.clients import admin_config
from millrace.topics import BY_NAME

# An answer takes milliseconds, the election of a coordinator seconds.
_TIMEOUT_S = 6.0
_ELECTION = ".leader"
"""Groups of this ending choose who leads a worker and read nothing (``millrace.stream.assignment``)."""

Place = tuple[str, str, int]
"""Group, topic, partition."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A partition of a group at one moment.

    Attributes
    ----------
    owner
        The client that has the partition; empty if nobody has it.
    committed
        The next offset that a restart would read; None if nothing is committed.
    first, end
        The first offset that the broker keeps, and the one after the last that is committed by its writer.
    """

    owner: str
    committed: int | None
    first: int
    end: int

    @property
    def lag(self) -> int:
        """Offsets not handled yet: records, and markers of transactions between them."""
        return max(0, self.end - max(self.first, self.committed or 0))


@dataclass(frozen=True, slots=True)
class Look:
    """All partitions of all groups that read topics of ours.

    Attributes
    ----------
    at_s
        Monotonic time, seconds.
    """

    at_s: float
    standings: Mapping[Place, Standing]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a partition moved between two looks.

    Attributes
    ----------
    arriving, handled
        Offsets by the second that were appended, and that were committed.
    catch_up_s
        Time until nothing is left if both go on so, seconds; 0 if nothing is left, None if it will not come.
    """

    arriving: float
    handled: float
    catch_up_s: float | None


def pace(before: Standing, now: Standing, seconds: float) -> Pace:
    """How a partition moved in so many seconds (more than 0)."""
    arriving = (now.end - before.end) / seconds
    handled = ((now.committed or 0) - (before.committed or 0)) / seconds
    if now.lag == 0:
        return Pace(arriving, handled, 0.0)
    return Pace(arriving, handled, now.lag / (handled - arriving) if handled > arriving else None)


class LagWatch:
    """Looks at the groups of a broker."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._where = kafka.bootstrap_servers
        self._admin = AdminClient(admin_config(kafka), logger=logs.kafka_logger())

    def look(self) -> Look:
        """How all groups stand now. Raises InfrastructureError."""
        try:
            groups, owners = self._groups()
            committed = self._committed(groups)
            places = committed.keys() | owners.keys()
            bounds = self._bounds({(topic, number) for _group, topic, number in places})
        except KafkaException as error:
            raise InfrastructureError(
                "kafka",
                f"no answer from {self._where} ({error.args[0].str()}); is it running? `millrace stack up` starts one",
            ) from error
        return Look(
            time.monotonic(),
            {
                place: Standing(owners.get(place, owners.get((place[0], "", 0), "")), committed.get(place), *bounds[at])
                for place in sorted(places)
                if place[1] and (at := place[1:]) in bounds
            },
        )

    def _groups(self) -> tuple[Sequence[str], dict[Place, str]]:
        """Groups that may read, and who has which partitions; a leader has all of its group, written as topic ""."""
        listed = self._admin.list_consumer_groups(request_timeout=_TIMEOUT_S).result()
        names = [group.group_id for group in listed.valid]
        described = self._admin.describe_consumer_groups(names, request_timeout=_TIMEOUT_S) if names else {}
        owners: dict[Place, str] = {}
        for name, future in described.items():
            for member in future.result().members:
                for at in member.assignment.topic_partitions:
                    if name.endswith(_ELECTION):
                        owners[name.removesuffix(_ELECTION), "", 0] = member.client_id
                    elif at.topic in BY_NAME:
                        owners[name, at.topic, at.partition] = member.client_id
        return [name for name in names if not name.endswith(_ELECTION)], owners

    def _committed(self, groups: Iterable[str]) -> dict[Place, int]:
        asked: list[Future[ConsumerGroupTopicPartitions]] = [
            future
            for group in groups
            for future in self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group)], request_timeout=_TIMEOUT_S
            ).values()
        ]
        return {
            (found.group_id, at.topic, at.partition): at.offset
            for found in (future.result() for future in asked)
            for at in found.topic_partitions or ()
            if at.topic in BY_NAME and at.offset >= 0
        }

    def _bounds(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        places = [TopicPartition(*at) for at in sorted(partitions) if at[0]]
        if not places:
            return {}

        def ask(spec: OffsetSpec) -> Mapping[TopicPartition, Future[Any]]:
            return self._admin.list_offsets(
                dict.fromkeys(places, spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_TIMEOUT_S,
            )

        firsts, ends = ask(OffsetSpec.earliest()), ask(OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {
            (at.topic, at.partition): (int(firsts[at].result().offset), int(ends[at].result().offset)) for at in places
        }
