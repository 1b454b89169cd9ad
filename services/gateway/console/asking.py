"""Asks the processes of a pipeline how they are: metrics and readiness, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.samples import Sample

from millrace.stream import scrape

WANTED = (
    "millrace_stream_records_total",
    "millrace_stream_delay_seconds_bucket",
    "millrace_stream_lag_records",
    "millrace_stream_dead_letters_total",
    "millrace_joiner_slots_total",
    "millrace_learner_slots_total",
    "millrace_learner_log_loss_nats_total",
    "millrace_learner_buffer_slots",
    "millrace_recommender_answers_total",
    "millrace_recommender_request_seconds_bucket",
    "millrace_recommender_update_delay_seconds_bucket",
    "millrace_recommender_mirror_lag_records",
    "millrace_recommender_sessions_lag_records",
    "millrace_drift_watching",
    "millrace_drift_looks_total",
    "millrace_drift_hours",
)
"""Beginnings of the names of what the console shows."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a process said of itself.

    Attributes
    ----------
    answers
        Whether it answered at all.
    waits_for
        What it waits for, or does without, in words.
    """

    process: str
    place: str
    answers: bool
    ready: bool
    waits_for: Sequence[str] = ()
    samples: Sequence[Sample] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


async def ask_all(folder: Path, addresses: Sequence[str]) -> list[Said]:
    """What every process says: those at the addresses or, if there are none, those that are announced in the folder."""
    places = [("", address) for address in addresses]
    if not places:
        announced = await asyncio.to_thread(lambda: list(scrape.all_announcements(folder)))
        places = [(one.process, one.metrics) for one in announced]
    return await asyncio.gather(*(asyncio.to_thread(_ask, process, place) for process, place in places))


def _ask(process: str, place: str) -> Said:
    ready, detail = scrape.readiness(place)
    name = str(detail.get("process", process or place))
    if not detail:
        return Said(name, place, answers=False, ready=False)
    waits_for = [str(one) for one in detail.get("missing", ())]
    return Said(name, place, True, ready, waits_for, scrape.samples(place, WANTED), detail)
