"""The outcomes of a window, from Kafka to slots on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from millrace.settings import Settings
from millrace.stream.window import Window, WindowReader, find_window
from millrace.topics import OUTCOMES
from millrace.training.intake import Intake
from millrace.training.slots import SlotFile
from millrace.v1.outcome_pb2 import Outcome
from workers.retrain_orchestrator.training_erasures import forgotten


@dataclass(frozen=True, slots=True)
class Read:
    """What was read.

    Attributes
    ----------
    span_ms
        When the first and the last outcome were appended, Unix milliseconds; None without any.
    forgotten
        Outcomes from before their user's erasure: left out.
    """

    intake: Intake
    span_ms: tuple[int, int] | None
    forgotten: int


def newest_window(settings: Settings, since_ms: int = 0) -> Window:
    """The outcomes of the time that is learned, or of a time since then (Unix milliseconds).

    Raises InfrastructureError.
    """
    begins_ms = round(time.time() * 1_000) - settings.training.window_ms
    return find_window(settings.kafka, OUTCOMES, max(begins_ms, since_ms))


def read(
    settings: Settings,
    window: Window,
    folder: Path,
    into: SlotFile,
    erasures: Callable[[Iterable[str]], Mapping[str, int]] = lambda _: {},
    did: Callable[[float], None] = lambda _: None,
) -> Read:
    """Append the slots of a window to a file, in the order of the log.

    Parameters
    ----------
    folder
        Takes the slots of each partition meanwhile.
    erasures
        When some users were erased last, as ``Erasures.of``: what is from before is left out.
    did
        Told how many offsets were read since the last time.

    Raises
    ------
    UnusableData
        More slots than the disk is to hold.
    InfrastructureError
        Kafka does not answer.
    """
    reader, before = WindowReader(settings.kafka, OUTCOMES, window, settings.stream), 0
    span_ms: tuple[int, int] | None = None
    left_out = 0
    with Intake(folder, settings.training) as intake:
        for batch in reader.batches():
            for undecodable in batch.refused:
                intake.refuse(undecodable.reason)
            known = [(one, one.message) for one in batch.records if isinstance(one.message, Outcome)]
            erased = erasures(outcome.user_id for _, outcome in known)
            for record, outcome in known:
                at_ms = record.append_time_ms
                if forgotten(outcome, at_ms, erased):
                    left_out += 1
                    continue
                first, last = span_ms or (at_ms, at_ms)
                span_ms = min(first, at_ms), max(last, at_ms)
                intake.take(outcome, record.partition, at_ms)
            did(reader.done - before)
            before = reader.done
        intake.in_order(into)
    return Read(intake, span_ms, left_out)
