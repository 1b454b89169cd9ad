"""Guardrails through the tracker itself, many times: arms that are no worse than is borne, and arms that are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.tracked import run, two_arms
from millrace.v1.experiment_pb2 import DecisionKind, Guardrails


@dataclass(frozen=True, slots=True)
class Guarded:
    """Two arms and what they must not be.

    Attributes
    ----------
    reason
        How the tracker calls it.
    rate
        Click rate of both arms, on average over users.
    items
        How many items each shows.
    """

    guardrails: Guardrails
    reason: str
    rate: float
    items: Mapping[str, int] = field(default_factory=lambda: {"a": 20, "b": 20})


# No margin at all would not be looked at. Users' rates have a correlation of .09.
_COVERAGE, _FLOOR = Guardrails(coverage_margin=0.001), Guardrails(click_floor=0.08)
GUARDED = {
    "guardrail.coverage.alike": Guarded(_COVERAGE, "coverage", 0.1),
    "guardrail.coverage.8_of_20": Guarded(Guardrails(coverage_margin=0.1), "coverage", 0.1, {"a": 20, "b": 8}),
    "guardrail.floor.at_it": Guarded(_FLOOR, "floor", 0.08),
    "guardrail.floor.half": Guarded(_FLOOR, "floor", 0.04),
}


def watch_guardrail(guarded: Guarded, runs: int, seed: int) -> list[int]:
    """Slots after which the guardrail stopped each run; 0: it did not."""
    found = []
    for number, generator in enumerate(np.random.default_rng(seed).spawn(runs)):
        given = two_arms(f"{seed}-{number}")
        given.guardrails.CopyFrom(guarded.guardrails)
        record, _ = run(given, generator, rate=guarded.rate, items=guarded.items)
        decision = record.decision
        breach = decision.kind == DecisionKind.DECISION_KIND_STOP_FOR_HARM and guarded.reason in decision.reason
        found.append(sum(figures.slots for figures in record.figures) if breach else 0)
    return found
