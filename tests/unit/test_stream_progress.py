"""Positions are committed after their effects, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millrace.stream.progress import Parcel, Progress

MARGIN_S = 2.0
PARTITIONS = [("interactions", 0), ("interactions", 1), ("items", 0)]


def test_a_position_waits_for_the_margin() -> None:
    progress = Progress(MARGIN_S)
    progress.start({("t", 0): 5})
    progress.batch({("t", 0): 8}, done_at=10.0)
    assert not progress.advance(10.0, None, 10.0)
    assert not progress.advance(11.9, None, 11.9)
    assert progress.safe == {("t", 0): 5}
    assert progress.advance(12.0, None, 12.0)
    assert progress.safe == {("t", 0): 8}


def test_the_margin_counts_from_when_the_effects_were_out() -> None:
    """A store that hangs writes late: what it loses when it then dies was written a moment ago."""
    progress = Progress(MARGIN_S)
    progress.start({("t", 0): 5})
    progress.batch({("t", 0): 8}, done_at=10.0)
    assert not progress.advance(11.9, 9.9, 11.9)
    assert not progress.advance(12.0, None, 12.0)
    assert not progress.advance(13.9, None, 13.9)
    assert progress.advance(14.0, None, 14.0)


def test_nothing_becomes_safe_while_nobody_knows_whether_the_store_is_there() -> None:
    progress = Progress(MARGIN_S)
    progress.start({("t", 0): 5})
    progress.batch({("t", 0): 8}, done_at=10.0)
    assert not progress.advance(10.0, None, 10.0)
    assert not progress.advance(15.0, None, 11.9)
    assert progress.advance(15.0, None, 12.0)


def test_a_position_waits_for_acknowledgements() -> None:
    progress = Progress(0.0)
    progress.start({("t", 0): 0})
    parcel = progress.sent()
    progress.batch({("t", 0): 1}, done_at=1.0)
    assert not progress.advance(2.0, None, 2.0)
    parcel.acknowledged += 1
    assert progress.advance(2.0, None, 2.0)


def test_output_sent_by_a_later_tick_belongs_to_the_batch_that_caused_it() -> None:
    progress = Progress(0.0)
    progress.start({("t", 0): 0})
    progress.batch({("t", 0): 1}, done_at=1.0)
    assert not progress.advance(2.0, 0.9, 2.0)
    parcel = progress.sent()
    assert not progress.advance(3.0, None, 3.0)
    parcel.acknowledged += 1
    assert progress.advance(3.0, None, 3.0)


def test_acknowledgements_of_before_a_rewind_count_for_nothing() -> None:
    progress = Progress(0.0)
    progress.start({("t", 0): 0})
    before = progress.sent()
    progress.batch({("t", 0): 1}, done_at=1.0)
    progress.rewind()
    assert progress.handled == progress.safe == {("t", 0): 0}
    progress.sent()
    progress.batch({("t", 0): 1}, done_at=2.0)
    before.acknowledged += 1
    assert not progress.advance(9.0, None, 9.0)


def test_a_partition_that_comes_back_starts_where_it_is_told() -> None:
    progress = Progress(MARGIN_S)
    progress.start({("t", 0): 0})
    progress.batch({("t", 0): 7}, done_at=1.0)
    progress.release([("t", 0)])
    progress.start({("t", 0): 3})
    progress.advance(100.0, None, 100.0)
    progress.advance(200.0, None, 200.0)
    assert progress.safe == {("t", 0): 3}


@dataclass
class Effect:
    """An output of a batch: held in the worker, then sent, then acknowledged."""

    taken_at: float
    parcel: Parcel | None = None
    acknowledged: bool = False


@dataclass
class Handled:
    """A batch as the model remembers it."""

    positions: dict[tuple[str, int], int]
    done_at: float
    effects: list[Effect] = field(default_factory=list)
    out_at: float | None = None


class ProgressMachine(RuleBasedStateMachine):
    """Batches, outputs, acknowledgements, rebalances and failures in any order, against a naive model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.verified_at = 0.0
        self.progress = Progress(MARGIN_S)
        self.progress.start(dict.fromkeys(PARTITIONS, 0))
        self.batches: list[Handled] = []

    @property
    def effects(self) -> list[Effect]:
        return [effect for batch in self.batches for effect in batch.effects]

    @property
    def pending_since(self) -> float | None:
        return min((effect.taken_at for effect in self.effects if effect.parcel is None), default=None)

    @rule(
        counts=strategies.lists(strategies.integers(0, 3), min_size=len(PARTITIONS), max_size=len(PARTITIONS)),
        held=strategies.integers(0, 2),
        sent=strategies.integers(0, 2),
        took=strategies.floats(0.001, 0.5),
    )
    def handle_batch(self, counts: list[int], held: int, sent: int, took: float) -> None:
        positions = {
            at: self.progress.handled[at] + count
            for at, count in zip(PARTITIONS, counts, strict=True)
            if count and at in self.progress.handled
        }
        batch = Handled(positions, self.now + took)
        batch.effects += [Effect(self.now) for _ in range(held)]
        batch.effects += [Effect(self.now, self.progress.sent()) for _ in range(sent)]
        self.now += took
        self.progress.batch(positions, self.now)
        self.batches.append(batch)

    @precondition(lambda self: self.pending_since is not None)
    @rule(number=strategies.integers(1, 3))
    def send_what_is_held(self, number: int) -> None:
        for effect in [effect for effect in self.effects if effect.parcel is None][:number]:
            effect.parcel = self.progress.sent()

    @rule(which=strategies.integers(0, 50))
    def acknowledge(self, which: int) -> None:
        flying = [effect for effect in self.effects if effect.parcel is not None and not effect.acknowledged]
        if flying:
            effect = flying[which % len(flying)]
            assert effect.parcel is not None
            effect.parcel.acknowledged += 1
            effect.acknowledged = True

    @rule(seconds=strategies.floats(0.0, 3.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(unverified=strategies.floats(0.0, 1.0))
    def advance(self, unverified: float) -> None:
        self.verified_at = max(self.verified_at, self.now - unverified)
        for batch in self.batches:
            if batch.out_at is None and (self.pending_since is None or batch.done_at < self.pending_since):
                batch.out_at = self.now
        self.progress.advance(self.now, self.pending_since, self.verified_at)

    @rule()
    def fail(self) -> None:
        self.progress.rewind()
        self.batches.clear()
        assert self.progress.handled == self.progress.safe

    @rule(at=strategies.sampled_from(PARTITIONS))
    def hand_over(self, at: tuple[str, int]) -> None:
        self.progress.release([at])
        for batch in self.batches:
            batch.positions.pop(at, None)

    @rule(at=strategies.sampled_from(PARTITIONS), offset=strategies.integers(0, 100))
    def gain(self, at: tuple[str, int], offset: int) -> None:
        if at not in self.progress.handled:
            self.progress.start({at: offset})

    @invariant()
    def nothing_is_safe_before_its_effects(self) -> None:
        for number, batch in enumerate(self.batches):
            if any(self.progress.safe[at] >= position for at, position in batch.positions.items()):
                for earlier in self.batches[: number + 1]:
                    assert earlier.out_at is not None
                    assert earlier.out_at + MARGIN_S <= self.verified_at
                    assert all(effect.acknowledged for effect in earlier.effects)

    def teardown(self) -> None:
        """In the end, when all is sent, acknowledged and old enough, all of it is safe."""
        for effect in self.effects:
            effect.parcel = effect.parcel or self.progress.sent()
            effect.parcel.acknowledged += not effect.acknowledged
        self.progress.advance(self.now, None, self.now)
        self.progress.advance(self.now + MARGIN_S, None, self.now + MARGIN_S)
        assert self.progress.safe == self.progress.handled
        assert self.progress.unsafe_batches == 0


TestProgressMachine = ProgressMachine.TestCase
TestProgressMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
