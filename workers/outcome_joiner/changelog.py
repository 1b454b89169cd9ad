"""Reads the joiner's state back."""

from __future__ import annotations

import time
from collections.abc import Collection

from millrace.errors import InfrastructureError
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import OUTCOME_JOINER_CHANGELOG
from millrace.v1.joiner_pb2 import JoinerState

# 200,000 open impressions (the most by default) are read in some 20 s; who takes longer is asked again from the start.
READ_TIMEOUT_S = 60.0


def read_changelog(
    kafka: KafkaSettings, stream: StreamSettings, numbers: Collection[int]
) -> dict[int, dict[str, JoinerState]]:
    """Parts of the state by key, of each partition.

    Call it when no former owner can write any more: the committed positions, asked for before, tell.

    Raises
    ------
    InfrastructureError
        The broker did not deliver in time.
    """
    parts: dict[int, dict[str, JoinerState]] = {number: {} for number in numbers}
    give_up = time.monotonic() + READ_TIMEOUT_S
    with TopicReader(kafka, [OUTCOME_JOINER_CHANGELOG], "beginning", stream, numbers) as reader:
        while not reader.caught_up:
            if time.monotonic() > give_up:
                raise InfrastructureError(
                    "kafka", f"{OUTCOME_JOINER_CHANGELOG.name} could not be read within {READ_TIMEOUT_S:g} s"
                )
            for record in reader.poll(5_000):
                key = (record.key or b"").decode("utf-8", "replace")
                if isinstance(record.message, JoinerState):
                    parts[record.partition][key] = record.message
                else:
                    parts[record.partition].pop(key, None)
    return parts
