"""Looks at a running pipeline from the outside: rates, lag, freshness, learning, clicks, and who was shown what."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from prometheus_client.samples import Sample

from deploy.embedded import scrape
from deploy.embedded.pipeline import PROCESSES, SIMULATE, Pipeline
from deploy.embedded.snapshot import Learning, ProcessView, Shop, Shown, ShownItem, Snapshot
from deploy.embedded.supervision import DEAD_STATES, ProcessInfo
from deploy.embedded.trial_follower import TrialFollower
from millrace.enums import name_of
from millrace.settings import Settings, home
from millrace.stream.reader import TopicReader
from millrace.topics import IMPRESSIONS, INTERACTIONS
from millrace.v1.impression_pb2 import CandidateSource, Fallback, Impression

UPDATER, JOINER, LEARNER, RECOMMENDER = "feature_updater", "outcome_joiner", "online_learner", "recommender"
TRACKER = "experiment_tracker"
RECORDS = "millrace_stream_records_total"
DELAY = "millrace_stream_delay_seconds"
WORKER_LAG = "millrace_stream_lag_records"
LAGS: dict[str, str] = {
    UPDATER: WORKER_LAG,
    JOINER: WORKER_LAG,
    LEARNER: WORKER_LAG,
    TRACKER: WORKER_LAG,
    RECOMMENDER: "millrace_recommender_mirror_lag_records",
}
# A look at the newest answers: the last of them is shown. More would only cost time.
ANSWERS_LOOKED_AT = 2_000
ITEMS_SHOWN = 5
# Shorter, a click-through is mostly noise; longer, it hides what learning changes.
RECENT_S = 30.0


@dataclass(slots=True)
class Meter:
    """Adds up a counter of a process that may be started again, and then counts from nothing.

    Attributes
    ----------
    total
        Counted since the first reading, which itself counts as new.
    """

    total: float = 0.0
    _last: float = 0.0

    def take(self, reading: float) -> float:
        """What came since the last reading."""
        came = reading - self._last if reading >= self._last else reading
        self._last = reading
        self.total += came
        return came


class ShopGauge:
    """Ratios of a simulated shop's counters, in total and lately.

    Parameters
    ----------
    recent_s
        How long lately is, seconds.
    """

    def __init__(self, recent_s: float = RECENT_S) -> None:
        self._recent_s = recent_s
        # When, and slots and clicks by then.
        self._readings: deque[tuple[float, float, float]] = deque()

    def read(self, at_s: float, samples: Sequence[Sample]) -> Shop:
        """The figures now."""
        pages, slots, clicks, sessions, purchases = (
            scrape.total(samples, f"millrace_simulation_{name}_total")
            for name in ("pages", "slots", "clicks", "sessions", "purchases")
        )
        if self._readings and slots < self._readings[-1][1]:
            # Started again.
            self._readings.clear()
        self._readings.append((at_s, slots, clicks))
        while at_s - self._readings[0][0] > self._recent_s:
            self._readings.popleft()
        _, slots_before, clicks_before = self._readings[0]
        return Shop(
            round(pages),
            _ratio(clicks, slots),
            _ratio(clicks - clicks_before, slots - slots_before),
            _ratio(purchases, sessions),
        )


def shown(impression: Impression) -> Shown:
    """The first items of an answer."""
    return Shown(
        impression.user_id,
        tuple(
            ShownItem(
                slot.item_id,
                slot.score,
                tuple(name_of(CandidateSource.DESCRIPTOR, source) for source in slot.sources),
            )
            for slot in impression.slots[:ITEMS_SHOWN]
        ),
        impression.model_version,
        name_of(Fallback.DESCRIPTOR, impression.fallback),
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a process answered just now."""

    metrics: Sequence[Sample] = ()
    ready: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)


class Watch:
    """Takes snapshots of a pipeline; keep one while it runs.

    Parameters
    ----------
    trial
        Follows the experiment of the simulated shoppers, from when everything is up; None without them.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings, trial: TrialFollower | None = None) -> None:
        self._pipeline = pipeline
        self._trial = trial
        self._reader = TopicReader(pipeline.kafka, [IMPRESSIONS], "end", settings.stream)
        self._began_s = self._last_s = time.monotonic()
        self._events, self._outcomes, self._learned = Meter(), Meter(), Meter()
        self._delays: dict[float, float] = {}
        self._shop = ShopGauge()
        self._shown: Shown | None = None

    def snapshot(self) -> Snapshot:
        """How everything is now; takes as long as the slowest process needs to answer, at most five seconds each."""
        infos = self._pipeline.supervisor.processes()
        found = {
            announcement.process: announcement
            for announcement in scrape.announcements(home() / "run", [info.pid for info in infos.values() if info.pid])
        }
        answers = {name: _ask(announcement) for name, announcement in found.items()}
        nothing = _Answers()
        now_s = time.monotonic()
        seconds, self._last_s = now_s - self._last_s, now_s
        handled, freshness = self._progress(answers.get(UPDATER, nothing).metrics)
        outcomes = _came(self._outcomes, answers.get(JOINER, nothing), "millrace_joiner_slots_total")
        _came(self._learned, answers.get(LEARNER, nothing), "millrace_learner_slots_total")
        serving = answers.get(RECOMMENDER, nothing).detail
        snapshot = Snapshot(
            at_s=now_s - self._began_s,
            events=round(self._events.total),
            events_per_s=handled / seconds,
            freshness_ms=freshness,
            processes=[
                _view(name, infos.get(name), found.get(name), answers.get(name, nothing))
                for name in (*PROCESSES, SIMULATE)
                if name in PROCESSES or name in infos
            ],
            learning=Learning(
                outcomes / seconds,
                round(self._learned.total),
                serving.get("model_version", ""),
                serving.get("learner_epoch", 0),
                serving.get("learner_sequence", 0),
            ),
            shop=self._shop.read(now_s, answers[SIMULATE].metrics) if SIMULATE in answers else None,
            shown=self._newest_answer(),
            trial=self._trial.view if self._trial is not None else None,
        )
        if self._trial is not None and snapshot.healthy:
            self._trial.begin()
        return snapshot

    def _progress(self, samples: Sequence[Sample]) -> tuple[float, tuple[float, float] | None]:
        """Interactions handled since the last look, and how fresh features were."""
        if not samples:
            # Not there yet, or being started again.
            return 0.0, None
        handled = self._events.take(scrape.total(samples, RECORDS, worker=UPDATER, topic=INTERACTIONS.name))
        delays = scrape.buckets(samples, DELAY, worker=UPDATER)
        p50, p99 = (scrape.quantile(share, delays, self._delays) for share in (0.5, 0.99))
        self._delays = delays
        return handled, None if p50 is None or p99 is None else (p50 * 1000, p99 * 1000)

    def _newest_answer(self) -> Shown | None:
        for record in self._reader.poll(ANSWERS_LOOKED_AT, timeout_s=0):
            if isinstance(record.message, Impression) and record.message.slots:
                self._shown = shown(record.message)
        return self._shown

    def close(self) -> None:
        """Let go of the broker."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _ask(announcement: scrape.Announcement) -> _Answers:
    ready, detail = scrape.readiness(announcement.metrics)
    return _Answers(scrape.samples(announcement.metrics), ready, detail)


def _came(meter: Meter, answers: _Answers, counter: str) -> float:
    """What a counter grew by; nothing while its process does not answer."""
    return meter.take(scrape.total(answers.metrics, counter)) if answers.metrics else 0.0


def _view(name: str, info: ProcessInfo | None, found: scrape.Announcement | None, answers: _Answers) -> ProcessView:
    if info is None or info.state in DEAD_STATES:
        return ProcessView(name, "dead", 0, problem="crashed again and again")
    if found is None:
        return ProcessView(name, "starting", info.pid)
    return ProcessView(
        name,
        "ready" if answers.ready else "starting",
        info.pid,
        metrics=found.metrics,
        grpc=found.grpc,
        lag=round(scrape.total(answers.metrics, LAGS[name])) if name in LAGS else None,
        problem="" if answers.ready else ", ".join(str(value) for value in answers.detail.get("missing", ())),
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
