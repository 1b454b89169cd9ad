"""What the arms of experiments truly bring: for every page that an arm filled, what the click model expects of it.

The recommender says of each answer which arm it is. Sums of what is expected of the pages shown have none of the
clicks' chance in them, so that an experiment's estimate can be held against them. Each process that simulates keeps a
file of its own in ``home()/simulation``: whatever is killed or started again, nothing is counted twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from millrace.events.build import now_ms
from millrace.settings import home
from millrace.simulation.clicks import Looked, expected


@dataclass(frozen=True, slots=True)
class Truth:
    """Of one arm.

    Attributes
    ----------
    slots
        Expected number of slots that are examined: those that the joiner counts as seen.
    clicks
        Expected number of clicks.
    """

    pages: int = 0
    slots: float = 0.0
    clicks: float = 0.0

    def __add__(self, other: Truth) -> Truth:
        return Truth(self.pages + other.pages, self.slots + other.slots, self.clicks + other.clicks)

    @property
    def rate(self) -> float:
        """Clicks of a slot; 0 without slots."""
        return self.clicks / self.slots if self.slots else 0.0


class Truths:
    """What this process knows of the arms of all experiments, and its file."""

    def __init__(self) -> None:
        self._arms: dict[tuple[str, str], Truth] = {}
        self._path = _folder() / f"{now_ms()}-{os.getpid()}.json"
        self._changed = False

    def add(self, experiment_id: str, arm: str, looked: Looked) -> None:
        """Take a page that was looked at."""
        average = expected(looked.chances)
        at = experiment_id, arm
        self._arms[at] = self._arms.get(at, Truth()) + Truth(1, average.examined, average.clicks)
        self._changed = True

    def save(self) -> None:
        """Write the file whole or not at all, if there is something new."""
        if not self._changed:
            return
        self._changed = False
        arms = [{"experiment": name, "arm": arm, **asdict(truth)} for (name, arm), truth in self._arms.items()]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"until_ms": now_ms(), "arms": arms}))
        part.replace(self._path)


def read_truths(experiment_id: str, started_at_ms: int) -> dict[str, Truth]:
    """The truth about each arm of an experiment that simulated shoppers met, by its name.

    Files that were written last before it started, Unix milliseconds, are about another one of the same name, on a
    broker that is gone.
    """
    found: dict[str, Truth] = {}
    for path in sorted(_folder().glob("*.json")):
        content = json.loads(path.read_text())
        for one in content["arms"] if content["until_ms"] >= started_at_ms else ():
            if one["experiment"] == experiment_id:
                truth = Truth(one["pages"], one["slots"], one["clicks"])
                found[one["arm"]] = found.get(one["arm"], Truth()) + truth
    return found


def true_effects(truths: Mapping[str, Truth], control: str) -> dict[str, float]:
    """Relative difference of each other arm to the control, by name; empty while nothing is known of the control."""
    rate = truths.get(control, Truth()).rate
    if not rate:
        return {}
    return {name: truth.rate / rate - 1 for name, truth in sorted(truths.items()) if name != control and truth.slots}


def _folder() -> Path:
    return home() / "simulation"
