"""A record counted anew from the log of outcomes, partition by partition."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.errors import InvalidField
from millrace.experiments.periods import VALUE_SQUARE, Allocation
from millrace.experiments.tally import Tally
from millrace.experiments.tracker import add_up, count_users
from millrace.v1.experiment_pb2 import Experiment, Reward
from millrace.v1.outcome_pb2 import Outcome


class Recount:
    """One partition of an experiment.

    Attributes
    ----------
    tally
        What was taken.
    known
        Of each period of Thompson sampling but the first, what was known when it began: (rewards, trials) by arm.
    """

    def __init__(self, experiment: Experiment, partition: int) -> None:
        self._name = experiment.definition.experiment_id
        self._by_value = experiment.definition.reward == Reward.REWARD_VALUE
        self.tally = Tally(experiment.definition, partition, Allocation(experiment))
        self.known: list[list[tuple[int, int]]] = []
        self._begins = [
            period.outcomes_before[partition] if partition < len(period.outcomes_before) else 0
            for period in experiment.periods[1:]
        ]

    def take(self, outcome: Outcome, offset: int, append_time_ms: int) -> None:
        """Take the next record."""
        self._note(offset)
        if outcome.impression.experiment_id != self._name:
            return
        try:
            self.tally.outcome(outcome, append_time_ms)
        except InvalidField:
            # It was refused then, too.
            return

    def end(self) -> None:
        """Nothing comes any more."""
        self._note(None)

    def _note(self, offset: int | None) -> None:
        while len(self.known) < len(self._begins) and (offset is None or self._begins[len(self.known)] <= offset):
            figures = self.tally.figures.values()
            self.known.append([(0, one.impressions) if self._by_value else (one.clicks, one.slots) for one in figures])


def counted_anew(experiment: Experiment, counts: Sequence[Recount]) -> Experiment:
    """The record with what was counted in all partitions, in their order; purchases as they stand."""
    counted = Experiment()
    counted.CopyFrom(experiment)
    tallies = [each.tally for each in counts]
    for figures in counted.figures:
        bought = figures.conversions, figures.conversion_value
        squares = figures.statistics.get(VALUE_SQUARE, 0.0)
        add_up(counted, figures.name, tallies)
        figures.conversions, figures.conversion_value = bought
        if VALUE_SQUARE in figures.statistics:
            figures.statistics[VALUE_SQUARE] = squares
    for each in counts:
        each.end()
    count_users(counted, tallies)
    for number, period in enumerate(counted.periods):
        known = [each.known[number - 1] for each in counts] if number else []
        for arm in range(len(period.trials)):
            period.trials[arm] = sum(each[arm][1] for each in known)
            if experiment.definition.reward != Reward.REWARD_VALUE:
                period.rewards[arm] = sum(each[arm][0] for each in known)
    return counted
