"""Everything that the experiment tracker knows: records, tallies of each partition, positions. Pure: no client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from millrace.errors import InvalidField
from millrace.experiments.assignment import Span, takes_part
from millrace.experiments.life import ENDING, RUNNING, STOPPED, obey
from millrace.experiments.periods import Allocation, is_due, next_period
from millrace.experiments.record import split_evidence, verdict
from millrace.experiments.tally import Tally
from millrace.registry.ledger import Ledger
from millrace.topics import OUTCOMES
from millrace.v1.command_pb2 import Command
from millrace.v1.common_pb2 import Position
from millrace.v1.experiment_pb2 import Experiment
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.outcome_pb2 import ImpressionOrigin, Outcome
from millrace.v1.tracker_pb2 import TrackerPositions, TrackerState

POSITIONS_KEY = "p"

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class TrackerLimits:
    """Settings of the tracker (see ``ExperimentSettings``)."""

    holdout: float
    users_max: int
    answers_max: int
    purchase_wait_ms: int


class Tracker:
    """The state of all experiments.

    Attributes
    ----------
    experiments
        The record of each, by id; as of the last :meth:`decide` where figures are concerned.
    positions
        The next offset of each partition that is not included.
    """

    def __init__(self, limits: TrackerLimits) -> None:
        self._limits = limits
        self.experiments: dict[str, Experiment] = {}
        self.positions: dict[Partition, int] = {}
        self._topic_ids: Mapping[str, str] = {}
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._changed: set[tuple[str, int]] = set()
        self._records: set[str] = set()
        self._ended: list[str] = []
        self._allocations: dict[str, Allocation] = {}
        # Whether shares changed that the recommender does not know yet.
        self._begun = False

    @property
    def users(self) -> int:
        """Users in memory."""
        return sum(tally.users for tally in self._tallies.values())

    @property
    def answers(self) -> int:
        """Half-known answers in memory."""
        return sum(tally.answers for tally in self._tallies.values())

    @property
    def items(self) -> int:
        """Items in memory, by arm and partition, of experiments that look at coverage."""
        return sum(tally.measures.items for tally in self._tallies.values())

    @property
    def dirty(self) -> bool:
        """Whether something changed since the last :meth:`changes`, other than positions."""
        return bool(self._changed or self._records or self._ended)

    def command(self, command: Command, ledgers: Mapping[str, Ledger], at_ms: int) -> None:
        """Act on a command (see ``millrace.experiments.life.obey``); call :meth:`decide` before."""
        changed = obey(command, self.experiments, ledgers, at_ms)
        if changed is None:
            return
        name = changed.definition.experiment_id
        self.experiments[name] = changed
        self._records.add(name)
        if changed.state == STOPPED:
            self._end(name)
        elif changed.state == RUNNING:
            changed.decision.CopyFrom(verdict(changed, 0))

    def outcome(self, outcome: Outcome, partition: int, append_time_ms: int) -> str:
        """Take an outcome; what became of it: counted, or why not.

        Raises
        ------
        InvalidField
            It is of no experiment that there is, or contradicts the one that it names.
        """
        name = outcome.impression.experiment_id
        if not name or outcome.origin != ImpressionOrigin.IMPRESSION_ORIGIN_SERVED:
            return "of no experiment"
        experiment = self.experiments.get(name)
        if experiment is None or not experiment.started_at_ms:
            started = ", ".join(one for one, record in self.experiments.items() if record.started_at_ms) or "none yet"
            raise InvalidField("impression.experiment_id", f"{name!r} is unknown", f"one that was started ({started})")
        if experiment.state != RUNNING:
            return "after the end"
        tally = self._tally(experiment, partition)
        if not tally.knows(outcome.user_id) and self.users >= self._limits.users_max:
            return "too many users"
        taken = tally.outcome(outcome, append_time_ms)
        self._changed.add((name, partition))
        return "counted" if taken else "first part unknown"

    def interaction(self, event: Interaction, partition: int, append_time_ms: int) -> None:
        """Take an interaction: purchases count, FORGET erases, others are passed over."""
        if event.type == InteractionType.INTERACTION_TYPE_FORGET:
            for (name, number), tally in self._tallies.items():
                if number == partition and tally.knows(event.user_id):
                    tally.forget(event.user_id)
                    self._changed.add((name, number))
        if event.type != InteractionType.INTERACTION_TYPE_PURCHASE:
            return
        for name, experiment in self.experiments.items():
            definition = experiment.definition
            span = Span(experiment.layer_start, definition.traffic)
            if experiment.state != RUNNING or not takes_part(
                event.user_id, definition.layer, span, self._limits.holdout
            ):
                continue
            tally = self._tally(experiment, partition)
            if tally.knows(event.user_id) or self.users < self._limits.users_max:
                tally.purchase(event.user_id, event.event_id, event.occurred_at_ms, event.value, append_time_ms)
                self._changed.add((name, partition))

    def tidy(self, now_ms: int) -> int:
        """Let go of what nothing will come of any more (``now_ms``: append time of the newest record).

        Returns
        -------
        Half-known answers that were dropped because there were too many.
        """
        dropped = 0
        most = self._limits.answers_max // max(1, len(self._tallies))
        for tally in self._tallies.values():
            tally.expire(now_ms - self._limits.purchase_wait_ms)
            dropped += tally.drop_answers(most)
        return dropped

    def decide(self, now_ms: int) -> None:
        """Bring the records of running experiments up to date, and end those that are decided (now, Unix ms)."""
        for name in {name for name, _ in self._changed}:
            experiment = self.experiments[name]
            newest_ms = self._sum_up(experiment)
            decision = verdict(experiment, newest_ms)
            experiment.decision.CopyFrom(decision)
            self._records.add(name)
            if decision.kind in ENDING:
                experiment.state, experiment.stopped_at_ms = STOPPED, now_ms
                self._end(name)
        for experiment in self._due(now_ms):
            self._begin(experiment, now_ms)

    def is_due(self, now_ms: int) -> bool:
        """Whether :meth:`decide` has something to do (now, Unix ms) though nothing came."""
        return bool(self._due(now_ms))

    def changes(self) -> tuple[list[Experiment], Iterator[tuple[str, TrackerState | None]]]:
        """What has to be written to be able to go on from here: records, and parts by key (None: ended)."""
        records = [self.experiments[name] for name in sorted(self._records)]
        for experiment in records:
            # What has ended keeps the positions of its end.
            if experiment.state == RUNNING:
                self._include(experiment)
        return records, self._parts()

    def saved(self) -> None:
        """What :meth:`changes` gave stands on the broker."""
        self._records.clear()
        self._changed.clear()
        self._ended.clear()
        self._begun = False

    @property
    def figures_only(self) -> bool:
        """Whether records changed in their figures alone: nobody waits for these."""
        return not (self._ended or self._begun) and all(
            self.experiments[name].state == RUNNING for name in self._records
        )

    def restore(
        self, experiments: Mapping[str, Experiment], parts: Mapping[str, TrackerState], topic_ids: Mapping[str, str]
    ) -> None:
        """Go on from what was written. Positions of a topic that was made anew are dropped."""
        self._topic_ids = topic_ids
        self.experiments = dict(experiments)
        self.positions, self._tallies, self._allocations = {}, {}, {}
        self.saved()
        for part in parts.values():
            which = part.WhichOneof("part")
            if which == "positions":
                self.positions = {
                    (one.topic, one.partition): one.offset + 1
                    for one in part.positions.included
                    if topic_ids.get(one.topic) == one.topic_id
                }
            elif which is not None:
                of = getattr(part, which)
                experiment = self.experiments.get(of.experiment_id)
                if experiment is not None and experiment.state == RUNNING:
                    self._tally(experiment, of.partition).restore(part)
        for tally in self._tallies.values():
            tally.restored()

    def _include(self, experiment: Experiment) -> None:
        del experiment.included[:]
        experiment.included.extend(self._included())

    def _included(self) -> list[Position]:
        return [
            Position(topic=topic, topic_id=self._topic_ids.get(topic, ""), partition=number, offset=offset - 1)
            for (topic, number), offset in sorted(self.positions.items())
            if offset > 0
        ]

    def _parts(self) -> Iterator[tuple[str, TrackerState | None]]:
        for key in self._ended:
            yield key, None
        for at in sorted(self._changed):
            if at in self._tallies:
                yield from self._tallies[at].parts()
        yield POSITIONS_KEY, TrackerState(positions=TrackerPositions(included=self._included()))

    def _tally(self, experiment: Experiment, partition: int) -> Tally:
        at = experiment.definition.experiment_id, partition
        if at not in self._tallies:
            self._tallies[at] = Tally(experiment.definition, partition, self._allocation(experiment))
        return self._tallies[at]

    def _allocation(self, experiment: Experiment) -> Allocation:
        name = experiment.definition.experiment_id
        if name not in self._allocations:
            self._allocations[name] = Allocation(experiment)
        return self._allocations[name]

    def _due(self, now_ms: int) -> list[Experiment]:
        """Running experiments whose period is over."""
        return [one for one in self.experiments.values() if one.state == RUNNING and is_due(one, now_ms)]

    def _begin(self, experiment: Experiment, now_ms: int) -> None:
        """Begin the next period of Thompson sampling, by the figures as they are in the record."""
        numbers = [number for topic, number in self.positions if topic == OUTCOMES.name]
        before = [self.positions.get((OUTCOMES.name, number), 0) for number in range(max(numbers, default=-1) + 1)]
        period = next_period(experiment, now_ms, before)
        self._allocation(experiment).begin(period.shares)
        experiment.periods.append(period)
        for figures, share in zip(experiment.figures, period.shares, strict=True):
            figures.weight = share
        self._records.add(experiment.definition.experiment_id)
        self._begun = True

    def _of(self, name: str) -> list[Tally]:
        return [self._tallies[at] for at in sorted(self._tallies) if at[0] == name]

    def _sum_up(self, experiment: Experiment) -> int:
        """Write the figures of all partitions into the record; event time of the newest outcome, Unix ms."""
        tallies = self._of(experiment.definition.experiment_id)
        for figures in experiment.figures:
            add_up(experiment, figures.name, tallies)
        count_users(experiment, tallies)
        experiment.split_evidence = max(experiment.split_evidence, split_evidence(experiment))
        return max((tally.newest_ms for tally in tallies), default=0)

    def _end(self, name: str) -> None:
        self._include(self.experiments[name])
        self._allocations.pop(name, None)
        for at in [at for at in self._tallies if at[0] == name]:
            self._ended += self._tallies.pop(at).ends()
            self._changed.discard(at)


def count_users(experiment: Experiment, tallies: list[Tally]) -> None:
    """Make the users of each period in the record those of all tallies together."""
    for number, period in enumerate(experiment.periods):
        came = [tally.came_in(number) for tally in tallies]
        period.users[:] = [sum(each[arm] for each in came) for arm in range(len(period.shares))]


def add_up(experiment: Experiment, arm: str, tallies: list[Tally]) -> None:
    """Make an arm's figures in the record those of all tallies together, partition by partition."""
    figures = next(one for one in experiment.figures if one.name == arm)
    parts = [tally.figures[arm] for tally in tallies]
    totals: dict[str, float] = {}
    for field in ("users", "impressions", "slots", "clicks", "conversions", "conversion_value", "failures"):
        setattr(figures, field, sum(getattr(part, field) for part in parts))
    for place in range(len(figures.serve_counts)):
        figures.serve_counts[place] = sum(part.serve_counts[place] for part in parts)
    for tally in tallies:
        for name, value in tally.measures.statistics(arm).items():
            totals[name] = totals.get(name, 0.0) + value
    for name, value in totals.items():
        figures.statistics[name] = value
