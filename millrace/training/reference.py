"""What a version's window was like: the file that the drift detector compares traffic with.

Only served slots count, seen or not: candidates that were drawn beside a click without an answer are nothing that is
served. Blocks are days of serving time for values, which have a daily season, and hours for labels.

Of the slots that were served last only the clicks are known: that there was none is known when the attribution window
closes. So labels count up to where they are settled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from millrace.drift.block import Baseline, Block
from millrace.drift.counts import Counts, Edges, Singles
from millrace.drift.hours import PARAMETERS, Hours
from millrace.drift.kolmogorov_smirnov import kolmogorov_smirnov
from millrace.drift.measures import CALIBRATION, CLICK_THROUGH, LOG_LOSS, SCORE, of_segment
from millrace.drift.reference import Reference
from millrace.drift.storing import Labels, ModelReference
from millrace.features.segments import SEGMENTS
from millrace.ranking.model import RankingModel
from millrace.settings import DAY_MS, HOUR_MS
from millrace.training.slots import ALWAYS, BLOCK, CLICKED, NO_SEGMENT, SlotFile, Slots, examples, served_until

SAMPLE = 100_000
"""Slots whose quantiles become edges: the error of a quantile among them is a sixth of a percent at most, and a cell
holds one in 128."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Values:
    """Counts of one feature (or the score) in the window.

    Attributes
    ----------
    days
        Number of the day -> counts.
    earlier, newest
        Of the slots before the newest part, and of those in it.
    """

    name: str
    edges: Edges
    days: dict[int, Counts]
    earlier: Counts
    newest: Counts

    def reference(self) -> Reference[Edges]:
        """Of the whole window, by day."""
        days = [counts for _, counts in sorted(self.days.items())]
        blocks = np.array([day.cells for day in days], dtype=np.int64).reshape(len(days), self.edges.size)
        return Reference(self.name, self.edges, blocks, np.array([day.missing for day in days], dtype=np.int64))

    def moved(self) -> float:
        """Share of the newest values that are elsewhere than the earlier ones, at least (Kolmogorov and Smirnov)."""
        missing = np.array([self.earlier.missing], dtype=np.int64)
        before = Reference(self.name, self.edges, self.earlier.cells[None, :], missing)
        return kolmogorov_smirnov(before, self.newest, level=0.05).effect


def count_values(
    slots: SlotFile, newest: int, model: RankingModel, progress: Progress = lambda _: None
) -> list[Values]:
    """Counts of every feature and of the model's scores; none if nothing was served.

    Parameters
    ----------
    newest
        Number of the slot at which the newest part begins.
    """
    names = (*model.feature_names, SCORE)
    sample = _sample(slots, model)
    if not len(sample):
        return []
    edges = [Edges.of(column) for column in sample.T]
    nothing = [Counts(np.zeros(each.size, dtype=np.int64)) for each in edges]
    days: list[dict[int, Counts]] = [{} for _ in names]
    parts = [list(nothing), list(nothing)]
    for part, (start, stop) in enumerate(((0, newest), (newest, len(slots)))):
        for block in slots.blocks(start, stop):
            served = block[block["served"]]
            of_slots = served["served_ms"] // DAY_MS
            columns = _columns(served, model)
            for day in np.unique(of_slots).tolist():
                here = columns[of_slots == day]
                for place, each in enumerate(edges):
                    counted = each.count(here[:, place])
                    days[place][day] = days[place].get(day, nothing[place]) + counted
                    parts[part][place] += counted
            progress(len(block))
    return [Values(name, *each) for name, *each in zip(names, edges, days, *parts, strict=True)]


def settled_before(slots: SlotFile, attribution_ms: int) -> int:
    """The serving time before which all labels are known, Unix milliseconds; 0 if nothing was served.

    Parameters
    ----------
    attribution_ms
        The joiner's attribution window.
    """
    newest = [served_until(block[block["served"]]) for block in slots.blocks()]
    return max(max(newest, default=0) - attribution_ms, 0)


def known_from(slots: SlotFile, start: int) -> int:
    """The serving time from which all labels stand at a slot or after it, Unix milliseconds.

    Of what was served before, clicks are earlier in the log. Half an hour of them matters where a part is short.
    """
    return max(map(served_until, slots.blocks(max(start - BLOCK, 0), start)), default=0)


def count_clicks(slots: SlotFile, settled_ms: int = ALWAYS, since_ms: int = 0) -> Mapping[str, dict[int, Block]]:
    """Name of a click-through -> number of the hour of serving -> its outcomes.

    Parameters
    ----------
    settled_ms, since_ms
        What was served later, or before, does not count, Unix milliseconds.
    """
    found: dict[str, dict[int, Block]] = {CLICK_THROUGH: {}}
    for block in slots.blocks():
        served_ms = block["served_ms"]
        seen = examples(block[block["served"] & (served_ms >= since_ms) & (served_ms < settled_ms)])
        hours, clicked = seen["served_ms"] // HOUR_MS, seen["label"] == CLICKED
        keys, places = np.unique(np.stack([hours, seen["segment"].astype(np.int64)]), axis=1, return_inverse=True)
        counts, clicks = np.bincount(places.ravel()), np.bincount(places.ravel(), weights=clicked)
        for (hour, segment), count, total in zip(keys.T.tolist(), counts.tolist(), clicks.tolist(), strict=True):
            own = [] if segment == NO_SEGMENT else [of_segment(CLICK_THROUGH, SEGMENTS[segment])]
            for name in (CLICK_THROUGH, *own):
                measure = found.setdefault(name, {})
                measure[hour] = measure.get(hour, Block(0, 0.0, 0.0)) + Block(count, total, float(count))
    return found


def make_reference(
    values: Sequence[Values],
    clicks: Mapping[str, Mapping[int, Block]],
    hours: Mapping[str, Mapping[int, Block]],
    usual: Hours | None = None,
) -> ModelReference:
    """The reference of a version.

    Parameters
    ----------
    clicks
        As ``count_clicks`` gives them.
    hours
        Calibration and log loss of the newest part, by hour (``Measured.hours``).
    usual
        How clicks depend on the hour of the day, known from elsewhere; None: fitted to ``clicks``.
    """
    fitted = usual is None
    usual = Hours.of(clicks[CLICK_THROUGH]) if usual is None else usual
    labels = {name: _labels(by_hour, usual, fitted) for name, by_hour in clicks.items() if by_hour}
    labels |= {name: _labels(hours[name], Hours()) for name in (CALIBRATION, LOG_LOSS) if hours.get(name)}
    return ModelReference(tuple(each.reference() for each in values), labels)


def reference_since(
    slots: SlotFile,
    values: Sequence[Values],
    hours: Mapping[str, Mapping[int, Block]],
    settled_ms: int,
    since_ms: int = 0,
) -> ModelReference:
    """The reference of a version for the world as it is since a time (Unix milliseconds; 0: always was).

    Clicks are expected as they come since then, but the day has the hours that the whole window had: a few hours say
    nothing of the others. Values are of the whole window, for how days differ is not known of a part of one; what moved
    with the change is said of them, and starts nothing.
    """
    clicks = count_clicks(slots, settled_ms)
    if not since_ms:
        return make_reference(values, clicks, hours)
    usual = Hours.of(clicks[CLICK_THROUGH])
    return make_reference(values, count_clicks(slots, settled_ms, since_ms), hours, usual)


def _labels(by_hour: Mapping[int, Block], usual: Hours, fitted: bool = True) -> Labels:
    """``fitted``: to these very blocks."""
    blocks = [usual.block(hour, block) for hour, block in sorted(by_hour.items())]
    return Labels(Baseline.of(blocks, PARAMETERS if fitted and usual != Hours() else 1), usual)


def _sample(slots: SlotFile, model: RankingModel) -> Singles:
    """Served slots spread evenly over the window: features and score, float32[n, d + 1]."""
    every = max(-(-len(slots) // SAMPLE), 1)
    parts, at = [], 0
    for block in slots.blocks():
        chosen = block[(-at) % every :: every]
        parts.append(_columns(chosen[chosen["served"]], model))
        at += len(block)
    return np.concatenate(parts) if parts else np.empty((0, slots.features + 1), dtype=np.float32)


def _columns(served: Slots, model: RankingModel) -> Singles:
    features = np.ascontiguousarray(served["features"])
    return np.concatenate([features, model.score(features)[:, None]], axis=1)
