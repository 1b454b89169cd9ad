"""From answers to figures: hit rate, recall, MRR, NDCG, MPR, coverage and popularity bias, with intervals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple, TypeAlias

import numpy as np

from millrace.evaluation.checkpoint import EVERY_S, Checkpoint, CheckpointFile
from millrace.evaluation.intervals import block_bootstrap
from millrace.evaluation.paired import Blocks, in_blocks
from millrace.evaluation.prequential import Answer, Prequential
from millrace.evaluation.questions import MISS
from millrace.ranking.features import Floats

# An answer's numbers, as columns.
_COLUMNS = ("place", "hr", "recall", "mrr", "ndcg", "found", "mpr", "recommend_us", "update_us")
INTERVALS = ("hr", "recall", "mrr", "ndcg")
Rate: TypeAlias = tuple[float, float, float]
"""A mean with the ends of its 95 % interval."""


class Segment(NamedTuple):
    """Number of the answers to a segment of users, their hit rate and their MRR."""

    n: int
    hr: Rate
    mrr: Rate


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one pass; quality as fractions of 1.

    Attributes
    ----------
    n
        Answers counted.
    hr, mrr
        Share of the answers that held the item that came, and the mean of 1/rank (0 where it was not held).
    recall, ndcg
        As the protocol judges; with one right item recall is the hit rate.
    found
        Share of the answers in which the item that came was a candidate, wherever it stood: what ranking could reach.
    mpr
        Mean percentile rank among all items ranked from (those known, or drawn): 0 is first, 1 last, and 1 for an item
        that was no candidate.
    coverage
        Share of the items known at the end that were in any answer.
    popularity_bias
        How many times as often the items of an answer had been met as the average item met before.
    ci95
        Metric -> its 95 % interval, by block bootstrap.
    recommend_us_p90, update_us_p90
        Processor time of an answer; the same to bring features up to date for it and to learn from its event.
    segments
        Segment of users -> its figures.
    blocks
        The answers in blocks of neighbours: for plots, and for differences between passes.
    """

    n: int
    hr: float
    recall: float
    mrr: float
    ndcg: float
    found: float
    mpr: float
    coverage: float
    popularity_bias: float
    ci95: Mapping[str, tuple[float, float]]
    recommend_us_p90: float
    update_us_p90: float
    segments: Mapping[str, Segment]
    blocks: Blocks = field(compare=False, repr=False)


class Record:
    """Gathers the counted answers of one pass."""

    def __init__(self, k: int, start: Checkpoint | None = None) -> None:
        self._k = k
        self._numbers: list[tuple[float, ...]] = [tuple(row) for row in start.numbers.tolist()] if start else []
        self._labels = list(start.labels) if start else []
        self._shown = set(start.shown) if start else set()
        self._bias = start.bias if start else 0.0
        self._met: Counter[str] = Counter()
        self._met_sum = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, answer: Answer, items: Sequence[str]) -> None:
        """Take a counted answer, with its items."""
        hit = answer.rank != MISS and answer.rank <= self._k
        self._numbers.append(
            (
                float(answer.place),
                float(hit),
                answer.recall,
                1.0 / answer.rank if hit else 0.0,
                answer.ndcg,
                float(answer.rank != MISS),
                percentile_rank(answer.rank, answer.known),
                answer.recommend_us,
                answer.update_us,
            )
        )
        self._labels.append((answer.period, answer.segment))
        self._shown.update(answer.top.tolist())
        if items and self._met_sum:
            self._bias += sum(self._met[item] for item in items) / len(items) / (self._met_sum / len(self._met))

    def meet(self, item_id: str) -> None:
        """Count an event with an item, for popularity: at once, however late the recommender learns of it."""
        self._met[item_id] += 1
        self._met_sum += 1

    def checkpoint(self, run: Prequential) -> Checkpoint:
        """Where the pass is, with the answers so far."""
        numbers = np.array(self._numbers).reshape(len(self._numbers), len(_COLUMNS))
        return Checkpoint(run.place, *run.learned(), numbers, self._labels, sorted(self._shown), self._bias)

    def figures(self, known: int, by_period: bool) -> Figures | None:
        """The figures, None without answers; ``known``: items at the end, ``by_period``: periods weigh the same."""
        if not self._numbers:
            return None
        columns = dict(zip(_COLUMNS, np.array(self._numbers).T, strict=True))
        weights = period_weights(period for period, _ in self._labels) if by_period else np.ones(len(self._numbers))
        means = {name: float(np.average(columns[name], weights=weights)) for name in _COLUMNS}
        segments: dict[str, list[int]] = defaultdict(list)
        for place, (_, name) in enumerate(self._labels):
            segments[name].append(place)
        return Figures(
            n=len(self._numbers),
            hr=means["hr"],
            recall=means["recall"],
            mrr=means["mrr"],
            ndcg=means["ndcg"],
            found=means["found"],
            mpr=means["mpr"],
            coverage=len(self._shown) / max(known, 1),
            popularity_bias=self._bias / len(self._numbers),
            ci95={name: block_bootstrap(columns[name], weights) for name in INTERVALS},
            recommend_us_p90=float(np.quantile(columns["recommend_us"], 0.9)),
            update_us_p90=float(np.quantile(columns["update_us"], 0.9)),
            segments={
                name: Segment(len(places), _rate(columns["hr"][places]), _rate(columns["mrr"][places]))
                for name, places in sorted(segments.items())
            },
            blocks=in_blocks(columns["place"], weights, {name: columns[name] for name in INTERVALS}),
        )


def _rate(values: Floats) -> Rate:
    return float(values.mean()), *block_bootstrap(values)


def percentile_rank(rank: int, known: int) -> float:
    """Place of a rank among all known items, 0 to 1; an item that was no candidate is behind everything."""
    if rank == MISS:
        return 1.0
    return (rank - 1) / (known - 1) if known > 1 else 0.0


def period_weights(periods: Iterable[int]) -> Floats:
    """Weights with which the mean of answers is the mean of the periods' means."""
    found = np.fromiter(periods, dtype=np.int64)
    _, place, sizes = np.unique(found, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / sizes[place]
    return weights


def measure(
    run: Prequential, by_period: bool, k: int, step: Callable[[], object], file: CheckpointFile | None = None
) -> Figures | None:
    """Go through a pass and gather its figures.

    Parameters
    ----------
    step
        Called after each event.
    file
        Where it goes on, and leaves word of where it is.
    """
    start = file.load() if file else None
    record = Record(k, start)
    id_of = run.memory.table.id_of
    save_at = monotonic() + EVERY_S
    for event, answer in run.run(start):
        if answer is not None and answer.counted:
            record.add(answer, [id_of(row) for row in answer.top.tolist()])
        record.meet(event.item_id)
        step()
        if file and answer is not None and monotonic() >= save_at:
            file.save(record.checkpoint(run))
            save_at = monotonic() + EVERY_S
    if file:
        file.drop()
    return record.figures(len(run.memory.table), by_period)
