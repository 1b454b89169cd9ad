"""Periods of Thompson sampling: which shares hold in each, and which follow from what is known.

A period ends when its time is over and something more is known. The tracker writes the shares of the next one into the
record; from then on the recommender hashes users with its number, and the shares are the exact propensities, whatever
clocks say. What the shares follow from stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from millrace.errors import InvalidField
from millrace.experiments.definition import control, is_thompson, shares
from millrace.experiments.thompson import bernoulli_best, gaussian_best
from millrace.experiments.thompson import shares as shares_of
from millrace.v1.experiment_pb2 import DecisionKind, Experiment, ExperimentDefinition, Period, Reward

PERIODS_MAX = 500
"""All of them stand in the record, for outcomes come late and audits later: 40 kB with four arms. The last one lasts
until the end."""


VALUE_SQUARE = "value.square"
"""Name of the sum of squared money of purchases among an arm's statistics."""


class Allocation:
    """The shares of an experiment, by number of the period; without THOMPSON there is the period 0 only."""

    def __init__(self, experiment: Experiment) -> None:
        self._definition = experiment.definition
        self._control = control(experiment.definition).name
        self._shares: list[Mapping[str, float]] = []
        self._pairs: list[Mapping[str, tuple[float, float]]] = []
        for each in experiment.periods:
            self.begin(each.shares)
        if not is_thompson(experiment.definition):
            self.begin(list(shares(experiment.definition).values()))

    def begin(self, given: Sequence[float]) -> None:
        """A period begins, with shares by arm in the order of the definition."""
        named = dict(zip(shares(self._definition), given, strict=True))
        against = named[self._control]
        self._shares.append(named)
        self._pairs.append(
            {
                name: (share / (share + against), against / (share + against))
                for name, share in named.items()
                if name != self._control
            }
        )

    def shares(self, period: int) -> Mapping[str, float]:
        """Share of each arm. Raises InvalidField for a period that has not begun."""
        if period >= len(self._shares):
            raise InvalidField("impression.period", str(period), f"0 to {len(self._shares) - 1}")
        return self._shares[period]

    def pair(self, arm: str, period: int) -> tuple[float, float]:
        """Probabilities of the arm, and of the control, given that it is one of the two."""
        return self._pairs[period][arm]


def first_period(definition: ExperimentDefinition, at_ms: int) -> Period:
    """The period that begins with the experiment."""
    return Period(from_ms=at_ms, shares=shares(definition).values(), users=[0] * len(definition.arms))


def is_due(experiment: Experiment, now_ms: int) -> bool:
    """Whether the present period has had its time and its figures say more than when it began; False without THOMPSON.

    Nor does one end while the rule says that the split is broken.
    """
    periods = experiment.periods
    if not periods or len(periods) >= PERIODS_MAX or now_ms - periods[-1].from_ms < experiment.definition.period_ms:
        return False
    if experiment.decision.kind != DecisionKind.DECISION_KIND_CONTINUE:
        return False
    now, then = _known(experiment), periods[-1]
    return sum(now.trials) > sum(then.trials) or sum(now.rewards) > sum(then.rewards)


def next_period(experiment: Experiment, now_ms: int, outcomes_before: Sequence[int]) -> Period:
    """The period that begins now, by the figures in the record."""
    period = _known(experiment)
    period.from_ms = now_ms
    period.outcomes_before.extend(outcomes_before)
    period.users.extend(0 for _ in period.trials)
    period.shares.extend(follow(experiment.definition, period))
    return period


def _known(experiment: Experiment) -> Period:
    """Rewards and trials as they stand."""
    figures = {one.name: one for one in experiment.figures}
    arms = [figures[name] for name in shares(experiment.definition)]
    if experiment.definition.reward != Reward.REWARD_VALUE:
        return Period(rewards=[one.clicks for one in arms], trials=[one.slots for one in arms])
    return Period(
        rewards=[one.conversion_value for one in arms],
        squares=[one.statistics[VALUE_SQUARE] for one in arms],
        trials=[one.impressions for one in arms],
    )


def follow(definition: ExperimentDefinition, known: Period) -> list[float]:
    """The shares that follow from the rewards and trials of a period.

    Money for an answer is taken to have the same variance in all arms, so that an arm where nobody has bought yet is
    no certainty.
    """
    rewards, trials = np.array(known.rewards, dtype=float), np.array(known.trials, dtype=float)
    if definition.reward != Reward.REWARD_VALUE:
        best = bernoulli_best(rewards, trials)
    else:
        answers = max(trials.sum(), 1.0)
        mean = rewards.sum() / answers
        variance = sum(known.squares) / answers - mean**2
        if variance <= 0:
            best = np.full(len(rewards), 1 / len(rewards))
        else:
            tried = np.maximum(trials, 1.0)
            best = gaussian_best(np.where(trials > 0, rewards / tried, mean), np.sqrt(variance / tried))
    return [float(share) for share in shares_of(best, definition.floor)]


def period_differences(experiment: Experiment) -> list[str]:
    """Periods whose shares do not follow, to the digit, from what stands beside them."""
    found = []
    for number, period in enumerate(experiment.periods):
        first = list(shares(experiment.definition).values())
        expected = follow(experiment.definition, period) if number else first
        if list(period.shares) != expected:
            found.append(f"period {number}: shares {list(period.shares)} stand, {expected} follow")
    return found
