"""Rates, delays and lags of a pipeline, from what its processes say again and again. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from millrace.stream import scrape
from services.gateway.console.asking import Said

# A rate of one second jumps with every batch, and its quantiles are noise; of ten they come late.
RATE_OVER, DELAY_OVER, LOSS_OVER = 3, 5, 20
"""Readings that a rate, a quantile of delays, and the learner's loss are taken over."""

_SLOTS = "millrace_learner_slots_total"

RATES: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "events": ("feature_updater", "millrace_stream_records_total", {"topic": "interactions"}),
    "answers": ("recommender", "millrace_recommender_answers_total", {}),
    "outcomes": ("outcome_joiner", "millrace_joiner_slots_total", {}),
    "learned": ("online_learner", _SLOTS, {}),
}
"""Name of a rate -> the process, counter and labels that it is of."""
DELAYS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "features": ("feature_updater", "millrace_stream_delay_seconds", {}),
    "answer": ("recommender", "millrace_recommender_request_seconds", {"method": "Recommend"}),
    "parameters": ("recommender", "millrace_recommender_update_delay_seconds", {}),
}
"""Name of a delay -> the process, histogram and labels that it is of."""
_MIRRORS = {
    "millrace_recommender_mirror_lag_records": "item-state",
    "millrace_recommender_sessions_lag_records": "interactions",
}


@dataclass(frozen=True, slots=True)
class Lag:
    """Records of a partition that a process has not handled yet; partition -1: all of them together."""

    process: str
    topic: str
    partition: int
    records: int


@dataclass(slots=True)
class Figures:
    """What readings say when they are put together; give it each in turn."""

    _counters: dict[tuple[str, str], float] = field(default_factory=dict)
    _buckets: dict[tuple[str, str], deque[Mapping[float, float]]] = field(default_factory=dict)
    # Of each rate: seconds since the reading before, and what came in them.
    _came: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    _at_s: float | None = None

    def rates(self, said: Sequence[Said], at_s: float) -> dict[str, float | None]:
        """Of each rate, how many come in a second; None where its process does not answer."""
        seconds = 0.0 if self._at_s is None else at_s - self._at_s
        self._at_s = at_s
        found: dict[str, float | None] = {}
        for name, (process, counter, labels) in RATES.items():
            came = [self._growth(name, one, counter, labels) for one in _of(said, process)]
            known = [one for one in came if one is not None]
            kept = self._came.setdefault(name, deque(maxlen=RATE_OVER))
            if not known or not seconds:
                kept.clear()
                found[name] = None
                continue
            kept.append((seconds, sum(known)))
            found[name] = sum(count for _, count in kept) / sum(lasted for lasted, _ in kept)
        return found

    def learning(self, said: Sequence[Said]) -> dict[str, float | None]:
        """``loss``: log loss of a slot, in nats, before it is learned; ``buffer``: share of the buffer that is full."""
        learners = list(_of(said, "online_learner"))
        growths = [
            (
                self._growth("loss", one, "millrace_learner_log_loss_nats_total", {}),
                self._growth("slots", one, _SLOTS, {}),
            )
            for one in learners
        ]
        kept = self._came.setdefault("loss", deque(maxlen=LOSS_OVER))
        kept.extend((slots, loss) for loss, slots in growths if loss is not None and slots is not None)
        slots = sum(count for count, _ in kept)
        held = sum(scrape.total(one.samples, "millrace_learner_buffer_slots") for one in learners)
        most = sum(scrape.total(one.samples, "millrace_learner_buffer_slots_max") for one in learners)
        return {
            "loss": sum(loss for _, loss in kept) / slots if slots else None,
            "buffer": 100 * held / most if most else None,
        }

    def delays(self, said: Sequence[Said]) -> dict[str, tuple[float, float] | None]:
        """Of each delay, its median and 99th percentile over the last readings, ms; None where nothing came."""
        found: dict[str, tuple[float, float] | None] = {}
        for name, (process, histogram, labels) in DELAYS.items():
            quantiles = [self._quantiles(name, one, histogram, labels) for one in _of(said, process)]
            known = [one for one in quantiles if one is not None]
            found[name] = (max(p50 for p50, _ in known), max(p99 for _, p99 in known)) if known else None
        return found

    def _growth(self, name: str, said: Said, counter: str, labels: Mapping[str, str]) -> float | None:
        """What a counter grew by; None at the first reading. One that is below the last was started anew."""
        now, before = scrape.total(said.samples, counter, **labels), self._counters.get((name, said.place))
        self._counters[name, said.place] = now
        return None if before is None else now - before if now >= before else now

    def _quantiles(
        self, name: str, said: Said, histogram: str, labels: Mapping[str, str]
    ) -> tuple[float, float] | None:
        kept = self._buckets.setdefault((name, said.place), deque(maxlen=DELAY_OVER))
        now = scrape.buckets(said.samples, histogram, **labels)
        before = kept[0] if kept else now
        kept.append(now)
        p50, p99 = (scrape.quantile(share, now, before) for share in (0.5, 0.99))
        return None if p50 is None or p99 is None else (p50 * 1_000, p99 * 1_000)


def lags(said: Iterable[Said]) -> list[Lag]:
    """Of each process, topic and partition; several processes of a name have different partitions."""
    found = [lag for one in said for lag in _lags(one)]
    return sorted(found, key=lambda one: (one.process, one.topic, one.partition))


def _lags(said: Said) -> Iterator[Lag]:
    for sample in said.samples:
        if sample.name == "millrace_stream_lag_records":
            labels = sample.labels
            yield Lag(said.process, labels["topic"], int(labels["partition"]), round(sample.value))
        elif sample.name in _MIRRORS:
            yield Lag(said.process, _MIRRORS[sample.name], -1, round(sample.value))


def _of(said: Iterable[Said], process: str) -> Iterator[Said]:
    return (one for one in said if one.answers and one.process == process)
