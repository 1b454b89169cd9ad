"""Looks at a running pipeline from the outside: rates, lag, freshness, health, and what an active user is shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, cast

from prometheus_client.samples import Sample

from deploy.embedded import scrape
from deploy.embedded.pipeline import PROCESSES, SHOPPERS, Pipeline
from deploy.embedded.supervision import DEAD_STATES, ProcessInfo
from millrace.client import Recommendation, RecommenderClient, RecommenderUnavailable
from millrace.settings import Settings, home
from millrace.stream.reader import TopicReader
from millrace.topics import INTERACTIONS
from millrace.v1.interaction_pb2 import Interaction

UPDATER = "feature_updater"
RECORDS = "millrace_stream_records_total"
DELAY = "millrace_stream_delay_seconds"
LAGS: dict[str, str] = {
    UPDATER: "millrace_stream_lag_records",
    "recommender": "millrace_recommender_mirror_lag_records",
}
# A look at the newest events: the last of them tells who is active. More would only cost time.
EVENTS_LOOKED_AT = 2_000
ITEMS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ProcessView:
    """How a process does.

    Attributes
    ----------
    state
        ``ready``, ``starting`` (or started again) or ``dead`` (crashed too often).
    metrics, grpc
        host:port, empty while not known or where there is none.
    lag
        Records that it has not handled yet; None for a process without such a figure.
    problem
        What it says is missing; empty when it is ready.
    """

    name: str
    state: Literal["ready", "starting", "dead"]
    pid: int
    metrics: str = ""
    grpc: str = ""
    lag: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pipeline at one moment.

    Attributes
    ----------
    events
        Interactions handled since the watch began.
    events_per_s
        The same, of the time since the last snapshot.
    freshness_ms
        Median and 99th percentile of the time from the broker's append of a click to the end of its handling (its
        effect is in Redis then, where the next request reads it), since the last snapshot; None without events.
    user, recommendation
        Who acted last, and what that user would see now; None if nobody acted or the recommender did not answer.
    """

    at_s: float
    events: int
    events_per_s: float
    freshness_ms: tuple[float, float] | None
    processes: Sequence[ProcessView]
    user: str = ""
    recommendation: Recommendation | None = None

    @property
    def healthy(self) -> bool:
        """Whether every process does its work."""
        return all(process.state == "ready" for process in self.processes)


@dataclass(slots=True)
class _Reading:
    """Counters of the feature updater at one moment."""

    at_s: float = 0.0
    records: float = 0.0
    delays: dict[float, float] = field(default_factory=dict)


class Watch:
    """Takes snapshots of a pipeline; keep one while it runs."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._reader = TopicReader(pipeline.kafka, [INTERACTIONS], "end", settings.stream)
        self._client = RecommenderClient(pipeline.recommender)
        self._began_s = time.monotonic()
        self._last = _Reading(self._began_s)
        self._events = 0.0
        self._user = ""

    def snapshot(self) -> Snapshot:
        """How everything is now; takes as long as the slowest process needs to answer, at most a second each."""
        infos = self._pipeline.supervisor.processes()
        found = {
            announcement.process: announcement
            for announcement in scrape.announcements(home() / "run", [info.pid for info in infos.values() if info.pid])
        }
        metrics = {name: scrape.samples(announcement.metrics) for name, announcement in found.items()}
        rate, freshness = self._progress(metrics.get(UPDATER, []))
        return Snapshot(
            at_s=time.monotonic() - self._began_s,
            events=round(self._events),
            events_per_s=rate,
            freshness_ms=freshness,
            processes=[
                _view(name, infos.get(name), found.get(name), metrics.get(name, []))
                for name in (*PROCESSES, SHOPPERS)
                if name in PROCESSES or name in infos
            ],
            user=self._active_user(),
            recommendation=self._recommendation(),
        )

    def _progress(self, samples: Sequence[Sample]) -> tuple[float, tuple[float, float] | None]:
        if not samples:
            # Not there yet, or being started again.
            return 0.0, None
        now = _Reading(
            time.monotonic(),
            scrape.total(samples, RECORDS, worker=UPDATER, topic=INTERACTIONS.name),
            scrape.buckets(samples, DELAY, worker=UPDATER),
        )
        # A worker that was started again counts from nothing.
        handled = now.records - self._last.records if now.records >= self._last.records else now.records
        rate = handled / (now.at_s - self._last.at_s)
        p50, p99 = (scrape.quantile(share, now.delays, self._last.delays) for share in (0.5, 0.99))
        self._events += handled
        self._last = now
        return rate, None if p50 is None or p99 is None else (p50 * 1000, p99 * 1000)

    def _active_user(self) -> str:
        for record in self._reader.poll(EVENTS_LOOKED_AT, timeout_s=0):
            if record.message is not None:
                self._user = cast("Interaction", record.message).user_id
        return self._user

    def _recommendation(self) -> Recommendation | None:
        if not self._user:
            return None
        try:
            return self._client.recommend(self._user, k=ITEMS_SHOWN)
        except RecommenderUnavailable:
            return None

    def close(self) -> None:
        """Let go of the broker and the recommender."""
        self._client.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _view(
    name: str, info: ProcessInfo | None, found: scrape.Announcement | None, samples: Sequence[Sample]
) -> ProcessView:
    if info is None or info.state in DEAD_STATES:
        return ProcessView(name, "dead", 0, problem="crashed again and again")
    if found is None:
        # The shoppers announce nothing: they are ready when they run.
        ready = name == SHOPPERS and info.state == "RUNNING"
        return ProcessView(name, "ready" if ready else "starting", info.pid)
    ready, detail = scrape.readiness(found.metrics)
    return ProcessView(
        name,
        "ready" if ready else "starting",
        info.pid,
        metrics=found.metrics,
        grpc=found.grpc,
        lag=round(scrape.total(samples, LAGS[name])) if name in LAGS else None,
        problem="" if ready else ", ".join(str(value) for value in detail.get("missing", ())),
    )
