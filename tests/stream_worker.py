"""A worker for tests of the runtime, as a process: ``python -m tests.stream_worker --name N --topic T --journal F``.

It appends what it is told to a journal of JSON lines, and does as the records and the files beside the journal say:

- a record with item ``poison`` raises (a bug), one with item ``refuse`` is rejected;
- while ``<journal>.away`` exists, a batch or a restore finds that Redis is away; ``<journal>.refuse`` makes a
  restore refuse to go on, ``<journal>.broken`` is a bug in every tick; with ``<journal>.mended`` it takes all items;
  while ``<journal>.blocked`` exists, a batch does not end;
- ``--echo`` sends an ItemState for every record, ``--hold`` keeps these in memory for so many seconds first;
  ``--slow-close`` takes so many seconds to close.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import click

from millrace.errors import InfrastructureError, InvalidField, MillraceError
from millrace.settings import settings
from millrace.stream.process import run_worker
from millrace.stream.worker import Assignment, Output, Partition, Record
from millrace.topics import BY_NAME, ITEM_STATE, Topic
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.item_pb2 import ItemState


class JournalWorker:
    """Writes down what happens to it."""

    def __init__(self, name: str, topics: Sequence[Topic], assignment: Assignment, journal: Path) -> None:
        self.name = name
        self.topics = topics
        self.assignment = assignment
        self.echo = False
        self.hold_s = 0.0
        self.slow_close_s = 0.0
        self._journal = journal
        self._held: list[tuple[str, float]] = []

    @property
    def pending_since(self) -> float | None:
        return self._held[0][1] if self._held else None

    def restore(self, partitions: Sequence[Partition], topic_ids: Mapping[str, str]) -> Mapping[Partition, int]:
        self._check()
        if self._told("refuse"):
            raise MillraceError("refused by the test")
        self._write("restore", partitions=partitions, ids=dict(topic_ids))
        self._held.clear()
        return {}

    def on_batch(self, records: Sequence[Record], output: Output) -> None:
        self._check()
        while self._told("blocked"):
            time.sleep(0.05)
        for record in records:
            interaction = cast("Interaction | None", record.message)
            item = interaction.item_id if isinstance(interaction, Interaction) else ""
            if self._told("mended"):
                item = ""
            if item == "poison":
                raise ValueError("poisoned by the test")
            if item == "refuse":
                output.reject(record, InvalidField("item_id", "refused by the test", "anything else"))
            if self.echo:
                self._held.append((record.key.decode() if record.key else "", time.monotonic()))
        self._write("batch", records=[(record.topic, record.partition, record.offset) for record in records])

    def on_tick(self, now: float, output: Output) -> None:
        if self._told("broken"):
            raise ValueError("broken by the test")
        while self._held and self._held[0][1] + self.hold_s <= now:
            key, _at = self._held.pop(0)
            output.produce(ITEM_STATE, key, ItemState(item_id=key, version=1))

    def revoke(self, partitions: Sequence[Partition]) -> None:
        self._write("revoke", partitions=partitions)

    def close(self, output: Output) -> None:
        self._write("close")
        time.sleep(self.slow_close_s)
        self.on_tick(float("inf"), output)

    def _check(self) -> None:
        if self._told("away"):
            raise InfrastructureError("redis", "away by the test")

    def _told(self, what: str) -> bool:
        return self._journal.with_name(f"{self._journal.name}.{what}").exists()

    def _write(self, what: str, **facts: object) -> None:
        line = json.dumps({"what": what, "pid": os.getpid(), "at": time.time(), **facts})
        # One write per line: several processes share a journal.
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)


@click.command()
@click.option("--name", required=True)
@click.option("--topic", "topics", required=True, multiple=True)
@click.option("--assignment", default="shared")
@click.option("--journal", required=True, type=click.Path(path_type=Path))
@click.option("--echo", is_flag=True)
@click.option("--hold", default=0.0)
@click.option("--slow-close", default=0.0)
def main(
    name: str, topics: Sequence[str], assignment: str, journal: Path, echo: bool, hold: float, slow_close: float
) -> None:
    """Run it."""
    worker = JournalWorker(name, [BY_NAME[topic] for topic in topics], Assignment(assignment), journal)
    worker.echo = echo
    worker.hold_s = hold
    worker.slow_close_s = slow_close
    run_worker(worker, settings())


if __name__ == "__main__":
    main()
