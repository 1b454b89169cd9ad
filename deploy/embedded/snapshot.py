"""What ``millrace run`` knows of its pipeline at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

EXPERIMENT_ID = "live-learning"
"""The experiment of runs with simulated shoppers (``deploy.embedded.trial``)."""


@dataclass(frozen=True, slots=True)
class ProcessView:
    """How a process does.

    Attributes
    ----------
    state
        ``ready``, ``starting`` (or started again) or ``dead`` (crashed too often).
    metrics, grpc
        host:port, empty while not known or where there is none.
    lag
        Records that it has not handled yet; None for a process without such a figure.
    problem
        What it says is missing; empty when it is ready.
    """

    name: str
    state: Literal["ready", "starting", "dead"]
    pid: int
    metrics: str = ""
    grpc: str = ""
    lag: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One item of an answer."""

    item_id: str
    score: float
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody was shown, as the recommender logged it: the first items of an answer."""

    user_id: str
    items: tuple[ShownItem, ...]
    model_version: str
    fallback: str


@dataclass(frozen=True, slots=True)
class Learning:
    """How far learning has come.

    Attributes
    ----------
    outcomes_per_s
        Slots that the joiner decided, since the last snapshot.
    learned
        Slots learned since the watch began.
    model_version
        The version that ranks; empty while none does.
    epoch, sequence
        Of the parameters that it ranks with; 0 as registered.
    """

    outcomes_per_s: float = 0.0
    learned: int = 0
    model_version: str = ""
    epoch: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Shop:
    """What the simulated shop says of all its arms together.

    Attributes
    ----------
    click_through, conversion
        Clicks per slot and purchases per session, since it opened; None before the first.
    click_through_recent
        Of the last half minute.
    """

    pages: int
    click_through: float | None
    click_through_recent: float | None
    conversion: float | None


@dataclass(frozen=True, slots=True)
class TrialArm:
    """What is known of an arm of the run's experiment; None where nothing is.

    Attributes
    ----------
    against
        The control that it is compared with; empty if it is the control.
    click_through, true_click_through
        Clicks per slot that counts as seen: as counted, and as the click model expects of what was shown.
    effect, low, high
        Estimated relative difference to the control, with its confidence sequence.
    true_effect
        Relative difference of the true click-throughs.
    """

    name: str
    against: str
    users: int
    slots: int
    click_through: float | None = None
    true_click_through: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    true_effect: float | None = None


@dataclass(frozen=True, slots=True)
class TrialView:
    """The experiment of a run with simulated shoppers.

    Attributes
    ----------
    state
        ``not started``, ``draft``, ``running`` or ``stopped``.
    in_words
        What is known of each arm that is compared, a sentence each.
    problem
        Why it is not started; empty if nothing is wrong.
    """

    experiment_id: str
    state: str
    arms: tuple[TrialArm, ...] = ()
    in_words: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pipeline at one moment.

    Attributes
    ----------
    events
        Interactions handled since the watch began.
    events_per_s
        The same, of the time since the last snapshot.
    freshness_ms
        Median and 99th percentile of the time from the broker's append of a click to the end of its handling (its
        effect is in Redis then, where the next request reads it), since the last snapshot; None without events.
    shop
        None without simulated shoppers.
    shown
        The newest answer; None before the first.
    trial
        None without simulated shoppers, and until it was looked at.
    """

    at_s: float
    events: int
    events_per_s: float
    freshness_ms: tuple[float, float] | None
    processes: Sequence[ProcessView]
    learning: Learning = Learning()
    shop: Shop | None = None
    shown: Shown | None = None
    trial: TrialView | None = None

    @property
    def healthy(self) -> bool:
        """Whether every process does its work."""
        return all(process.state == "ready" for process in self.processes)
