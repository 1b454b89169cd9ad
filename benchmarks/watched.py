"""Thousands of simulated experiments, each looked at after every outcome, in numpy arrays.

The same sums and boundary as ``millrace.experiments`` (a test holds the two together, slot by slot). Runs lie along
the first axis, slots along the second; a block of slots is a period of Thompson sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from millrace.experiments.plan import Plan
from millrace.experiments.sequence import Boundary
from millrace.experiments.thompson import shares

Floats = npt.NDArray[np.float64]
Users = Literal["independent", "sessions", "returning"]

SLOTS, BLOCK = 40_000, 1_000
SLOTS_OF_A_USER = 20
# What the rule asks for before it looks, by arm (millrace.experiments.decide).
MINIMUM_USERS = 200
FLOOR = 0.1
# The naive rules are looked at 100 times, which is already too often for them.
NAIVE_EVERY = SLOTS // 100
# Fits the block of runs into the processor's cache.
RUNS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Scene:
    """A world in which arm B is compared with the control.

    Attributes
    ----------
    rate
        Of the control at a time in [0, 1).
    lift
        Of B, relative.
    share
        Of B; the first period's under Thompson sampling.
    users
        ``independent``: a slot each. ``sessions``: 20 slots one after the other. ``returning``: 20 slots, one in each
        round of all users.
    spread
        Users' own rates are Beta(rate / spread, (1 - rate) / spread): the correlation of a user's slots is
        spread / (1 + spread). 0: all alike.
    """

    rate: Callable[[Floats], Floats]
    lift: float = 0.0
    share: float = 0.5
    thompson: bool = False
    users: Users = "independent"
    spread: float = 0.0


@dataclass(slots=True)
class Seen:
    """When each run was first decided, in slots; 0: never. int64[runs] each.

    Attributes
    ----------
    better, worse
        Ours: promoted, stopped for harm.
    by_slot
        As ours, either way, with the variance of independent slots.
    bayes
        Either arm has P(better) > .95 under the pooled posterior, looked at 100 times.
    z
        The z test at .05, either way, looked at 100 times.
    """

    better: npt.NDArray[np.int64]
    worse: npt.NDArray[np.int64]
    by_slot: npt.NDArray[np.int64]
    bayes: npt.NDArray[np.int64]
    z: npt.NDArray[np.int64]


def watch(scene: Scene, runs: int, seed: int, alpha: float = 0.05) -> Seen:
    """Run the experiment many times."""
    generators = np.random.default_rng(seed).spawn(math.ceil(runs / RUNS_AT_ONCE))
    parts = []
    for number, generator in enumerate(generators):
        here = min(RUNS_AT_ONCE, runs - number * RUNS_AT_ONCE)
        parts.append(Runs(scene, here, generator, alpha).through())
    return Seen(*(np.concatenate([getattr(part, name) for part in parts]) for name in Seen.__slots__))


class Runs:
    """Some runs, side by side."""

    def __init__(self, scene: Scene, runs: int, rng: np.random.Generator, alpha: float) -> None:
        self.scene, self.runs, self.rng = scene, runs, rng
        # What a plan would say that expects +20 % on 5 %, and nothing of users, seasons or trends.
        self.boundary: Boundary = Plan(0.05, 0.2, scene.share, alpha).boundary(SLOTS)
        self.share: Floats = np.full((runs, 1), scene.share)
        self.seen = Seen(*(np.zeros(runs, dtype=np.int64) for _ in Seen.__slots__))
        # Sums so far: difference, square, product; square by slot; clicks; variance
        # over the assignment; and slots and clicks of each arm.
        self.sums: Floats = np.zeros((6, runs, 1))
        self.size = 0.0
        self.arm_slots: Floats = np.zeros((runs, 2))
        self.arm_clicks: Floats = np.zeros((runs, 2))
        people = SLOTS // SLOTS_OF_A_USER
        # Of users: weighted differences, and outcomes less the centre.
        self.totals: Floats = np.zeros((runs, people))
        self.outcomes: Floats = np.zeros((runs, people))
        # A user who comes once a period or less has an arm of their own for each slot.
        self._drawn_anew = scene.thompson and scene.users == "returning"
        self.fixed = rng.random((runs, people)) < scene.share
        self.rates: Floats = self._own_rates(people)
        by_user = SLOTS_OF_A_USER if scene.users == "sessions" else 1
        self.first_look = MINIMUM_USERS / min(scene.share, 1 - scene.share) * by_user

    def _own_rates(self, people: int) -> Floats:
        if not self.scene.spread:
            return np.empty((self.runs, 0))
        mean = float(self.scene.rate(np.zeros(1))[0])
        return self.rng.beta(mean / self.scene.spread, (1 - mean) / self.scene.spread, (self.runs, people))

    def through(self) -> Seen:
        for start in range(0, SLOTS, BLOCK):
            b, clicked = self.draw(start)
            self.look(start, b, clicked)
            if self.scene.thompson:
                self._move_shares()
        return self.seen

    def draw(self, start: int) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Whether each slot shows B, and whether it is clicked."""
        scene, shape = self.scene, (self.runs, BLOCK)
        place = self.places(start)
        if scene.users == "independent":
            b = self.rng.random(shape, dtype=np.float32) < self.share
        elif not scene.thompson:
            b = self.fixed[:, place]
        elif scene.users == "sessions":
            sessions = self.rng.random((self.runs, BLOCK // SLOTS_OF_A_USER)) < self.share
            b = np.repeat(sessions, SLOTS_OF_A_USER, axis=1)
        else:
            # The period is in the hash: a user's arm is drawn anew.
            b = self.rng.random(shape) < self.share
        rate = self.rates[:, place] if scene.spread else scene.rate((start + np.arange(BLOCK)) / SLOTS)
        chance = np.where(b, rate * (1 + scene.lift), rate) if scene.lift else rate
        return b, (self.rng.random(shape, dtype=np.float32) < chance).astype(float)

    def places(self, start: int) -> npt.NDArray[np.int64]:
        """The user of each slot."""
        slot = start + np.arange(BLOCK)
        people = SLOTS // SLOTS_OF_A_USER
        return slot % people if self.scene.users == "returning" else slot // SLOTS_OF_A_USER % people

    def look(self, start: int, b: npt.NDArray[np.bool_], clicked: Floats) -> None:
        """Take a block of slots and look after each of them."""
        n: Floats = start + 1.0 + np.arange(BLOCK, dtype=float)
        clicks = self.sums[4] + np.cumsum(clicked, axis=1)
        centre = (clicks - clicked) / np.maximum(n - 1, 1)
        surprise = clicked - centre
        step = np.where(b, 1 / self.share, -1 / (1 - self.share)) * surprise
        difference = self.sums[0] + np.cumsum(step, axis=1)
        by_slot = self.sums[3] + np.cumsum(step**2, axis=1)
        if self.scene.users == "independent":
            square, product, sizes = by_slot, difference, n
            outcomes = surprise**2
        else:
            before, size = self._of_users(start, step, self.totals)
            earlier = 0.0 if self._drawn_anew else self._of_users(start, surprise, self.outcomes)[0]
            outcomes = surprise * (2 * earlier + surprise)
            square = self.sums[1] + np.cumsum(step * (2 * before + step), axis=1)
            product = self.sums[2] + np.cumsum(step * (size + 1) + before, axis=1)
            sizes = self.size + np.cumsum(2 * size + 1)
        assigned = self.sums[5] + np.cumsum(outcomes, axis=1) / (self.share * (1 - self.share))
        effect: Floats = difference / n
        variance = np.maximum(square - 2 * effect * product + effect**2 * sizes, assigned)
        self._decide(n, difference, variance, by_slot - effect * difference)
        for place, sums in enumerate((difference, square, product, by_slot, clicks, assigned)):
            self.sums[place] = sums[:, -1:]
        self.size = float(sizes[-1])
        self._naive(start, b, clicked)

    def _of_users(self, start: int, step: Floats, totals: Floats) -> tuple[Floats, Floats]:
        """Sum and number of the user's slots before each slot."""
        if self.scene.users == "sessions":
            within = step.reshape(self.runs, -1, SLOTS_OF_A_USER)
            before = (np.cumsum(within, axis=2) - within).reshape(self.runs, BLOCK)
            return before, np.tile(np.arange(SLOTS_OF_A_USER, dtype=float), BLOCK // SLOTS_OF_A_USER)
        place = self.places(start)
        before = totals[:, place]
        totals[:, place] += step
        return before, np.full(BLOCK, float(start // (SLOTS // SLOTS_OF_A_USER)))

    def _decide(self, n: Floats, difference: Floats, variance: Floats, by_slot: Floats) -> None:
        allowed = n >= self.first_look
        outside = self._outside(difference, variance) & allowed
        _note(self.seen.better, outside & (difference > 0), n)
        _note(self.seen.worse, outside & (difference < 0), n)
        if self.scene.users != "independent":
            _note(self.seen.by_slot, self._outside(difference, by_slot) & allowed, n)

    def _outside(self, difference: Floats, variance: Floats) -> npt.NDArray[np.bool_]:
        # A logarithm is dear and the bound is never below this one, which few sums reach.
        least = -2 * math.log(self.boundary.alpha)
        outside = difference**2 > least * (variance + self.boundary.mixture)
        some = np.flatnonzero(outside.any(axis=1))
        outside[some] = difference[some] ** 2 > self.boundary.squared(variance[some])
        return outside

    def _naive(self, start: int, b: npt.NDArray[np.bool_], clicked: Floats) -> None:
        for first in range(0, BLOCK, NAIVE_EVERY // 2):
            part = slice(first, first + NAIVE_EVERY // 2)
            shown, hit = b[:, part], clicked[:, part]
            self.arm_slots += np.stack([(~shown).sum(axis=1), shown.sum(axis=1)], axis=1)
            self.arm_clicks += np.stack([(hit * ~shown).sum(axis=1), (hit * shown).sum(axis=1)], axis=1)
            seen = start + first + NAIVE_EVERY // 2
            if seen % NAIVE_EVERY == 0 and seen >= self.first_look:
                z, at = np.abs(self._z())[:, None], np.array([float(seen)])
                _note(self.seen.bayes, z > 1.645, at)
                _note(self.seen.z, z > 1.960, at)

    def _z(self) -> Floats:
        """B less control over its standard error, pooled; P(B better) is its normal distribution function."""
        slots = np.maximum(self.arm_slots, 1)
        rates = self.arm_clicks / slots
        errors = np.sqrt(np.maximum(rates * (1 - rates), 1e-4) / slots)
        return np.asarray((rates[:, 1] - rates[:, 0]) / np.hypot(errors[:, 0], errors[:, 1]))

    def _move_shares(self) -> None:
        best = ndtr(self._z())
        self.share = shares(np.stack([1 - best, best], axis=1), FLOOR)[:, 1:]


def _note(first: npt.NDArray[np.int64], outside: npt.NDArray[np.bool_], n: Floats) -> None:
    new = outside.any(axis=1) & (first == 0)
    first[new] = n[outside[new].argmax(axis=1)]
