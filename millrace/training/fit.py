"""Fits a ranker from scratch with a small search, and measures it on the newest part of the window.

The window is cut into three parts, in the order of time:

========= ============================================================================================
fitting   every candidate learns it, some of them more than once
choosing  every candidate goes through it, learning; the one with the lowest log loss is chosen
newest    the chosen one, fitted on the first two, goes through it, learning: nothing was chosen by it
========= ============================================================================================

What is registered is the state after the newest part. The arithmetic is that of the online learner, which goes on from
there; so a candidate is where it begins: the weights, and the sums of squared gradients that AdaGrad begins with. These
are a Gaussian prior around the weights in effect: the larger, the more it takes to move them (J. Duchi, E. Hazan and
Y. Singer, "Adaptive subgradient methods", JMLR 12, 2011).

After a change of the world at a known place of the window, the three parts are of what came since. Beside candidates
that learn all of the window there are then some that begin at the change: with the usual weights or none, knowing
nothing of the old world, or with those that the old world gave. These begin with small sums again, for the sums of four
weeks are why a line that has learned so much learns a new world slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from millrace.learning.learner import OnlineRanker
from millrace.learning.state import LearnerState, fresh
from millrace.ranking.model import RankingModel
from millrace.training.slots import CLICKED, SlotFile, Slots, examples

STARTS = ("fixed", "zero")
"""Weights at the beginning: those of the first ranker, or none. Whoever begins with none knows no means either."""
BEFORE = "before"
"""Weights and means of ``OLD_WORLD`` at the change."""
CAUTIONS = (0.0, 10.0, 100.0)
"""Sums of squared gradients at the beginning. A slot adds up to about .05 at the usual click-through, so that 10 is the
weight of some hundred slots and 100 that of some thousand."""

Progress = Callable[[float], None]
"""Told how many slots were gone through since the last time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to fit.

    Attributes
    ----------
    start
        One of ``STARTS``, or ``BEFORE``.
    caution
        Sum of squared gradients at the beginning, 0 and more.
    passes
        How often the fitting part is learned.
    since_change
        It begins at the change; else with the window. Whoever starts from ``BEFORE`` begins at the change.
    """

    start: str
    caution: float
    passes: int
    since_change: bool = False

    @property
    def name(self) -> str:
        """For people."""
        passes = f"{self.passes} pass{'es' * (self.passes > 1)}"
        return f"{self.start} start, caution {self.caution:g}, {passes}{' since the change' * self.since_change}"

    def begin(self, base: RankingModel, before: RankingModel | None = None) -> LearnerState:
        """The state before the first slot; ``before``: what the old world gave, for who starts from it."""
        model = base if self.start != BEFORE or before is None else before
        if self.start == "zero":
            # Means too: the first slot replaces one of no observations but for rounding, which can make a variance of 0
            # a negative one.
            nothing = np.zeros_like(base.weights)
            model = replace(base, weights=nothing, means=nothing, variances=nothing, observations=0)
        state = fresh(model, "", "", epoch=0)
        return replace(state, squared_gradients=np.full_like(state.squared_gradients, self.caution))


OLD_WORLD = Candidate("fixed", 10.0, 1)
"""How it is learned for those that start from it; after weeks it matters little how a line began."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a window end, as numbers of slots; and where the world changed, 0 if it did not."""

    fitting: int
    choosing: int
    newest: int
    change: int = 0

    @classmethod
    def of(cls, slots: int, share: float, change: int = 0) -> Parts:
        """Choosing and newest each have ``share`` of the slots since the change."""
        new = slots - change
        return cls(change + round(new * (1 - 2 * share)), change + round(new * (1 - share)), slots, change)


@dataclass(frozen=True, slots=True)
class Search:
    """What the search found.

    Attributes
    ----------
    losses
        Mean log loss of each candidate in the choosing part, nats, each slot predicted before it was learned.
    chosen
        The best; of equals the first.
    """

    losses: Mapping[Candidate, float]
    chosen: Candidate


def search(
    slots: SlotFile, parts: Parts, base: RankingModel, passes: int, progress: Progress = lambda _: None
) -> Search:
    """Compare all candidates of up to so many passes; each block is read once for all of them."""
    begun = [Candidate(start, caution, 1) for start, caution in product(STARTS, CAUTIONS)]
    lines = {candidate: OnlineRanker(candidate.begin(base)) for candidate in begun}
    whole = list(lines.values())
    losses: dict[Candidate, float] = {}
    for number in range(1, passes + 1):
        for block in slots.blocks(0, parts.change):
            _learn(whole, block)
            progress(len(block) * len(whole))
        if parts.change and number == 1:
            before = lines[OLD_WORLD].model()
            new = [Candidate(start, caution, 1, True) for start, caution in product((*STARTS, BEFORE), CAUTIONS)]
            lines |= {candidate: OnlineRanker(candidate.begin(base, before)) for candidate in new}
        for block in slots.blocks(parts.change, parts.fitting):
            _learn(lines.values(), block)
            progress(len(block) * len(lines))
        tried = {replace(candidate, passes=number): copy_of(line) for candidate, line in lines.items()}
        sums = np.zeros(len(tried))
        count = 0
        for block in slots.blocks(parts.fitting, parts.choosing):
            sums += _learn(tried.values(), block)
            count += len(examples(block))
            progress(len(block) * len(lines))
        # A line that has lost its way has no loss that is a number.
        means = np.nan_to_num(sums / max(count, 1), nan=np.inf)
        losses |= zip(tried, means.tolist(), strict=True)
    return Search(losses, min(losses, key=lambda candidate: losses[candidate]))


def fit(
    candidate: Candidate,
    slots: SlotFile,
    stop: int,
    base: RankingModel,
    progress: Progress = lambda _: None,
    change: int = 0,
) -> OnlineRanker:
    """The candidate after it has learned the slots before ``stop``; ``change``: the one at which the world changed."""
    before = None
    if candidate.start == BEFORE:
        before = fit(OLD_WORLD, slots, change, base, progress).model()
    line = OnlineRanker(candidate.begin(base, before))
    for _ in range(candidate.passes):
        for block in slots.blocks(change if candidate.since_change else 0, stop):
            _learn([line], block)
            progress(len(block))
    return line


def copy_of(line: OnlineRanker) -> OnlineRanker:
    """Another line that goes on from the same state."""
    return OnlineRanker(line.state(0, {}, ""))


def search_work(parts: Parts, passes: int) -> float:
    """Slots that ``search`` goes through, each line for itself."""
    since = len((*STARTS, BEFORE)) * (parts.choosing - parts.change) if parts.change else 0
    return len(CAUTIONS) * passes * (len(STARTS) * parts.choosing + since)


def _learn(lines: Iterable[OnlineRanker], block: Slots) -> Sequence[float]:
    """The log losses of lines that learn a block, summed over its slots."""
    taught = examples(block)
    rows, labels = taught["features"].astype(np.float64), (taught["label"] == CLICKED).tolist()
    return [line.learn(rows, labels) for line in lines]
