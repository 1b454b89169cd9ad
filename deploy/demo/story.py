"""The script of the demo: what is done and said when, given what was seen. Pure.

Nothing is acted: the drift, the training, its gates and the promotion are those of the pipeline, and may take longer
than the story lasts, or go another way. Then that is what is said. Two things are done by hand because ten minutes are
no month, and are said to be: the first version is promoted once it has passed its gates, and so is the second if its
experiment has not decided near the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from millrace.registry.retraining import Retraining, State

TRAIN_AT, FRIDAY_AT, HAND_AT = 0.12, 0.36, 0.92
"""Moments of the story, as shares of its length: the first training, Black Friday, and the last for a decision."""
_STATES = {
    State.TRAINING: "The training job runs: it reads the outcomes, tries a dozen ways to fit, measures the best.",
    State.EVALUATING: "Version {version} has passed its gates.",
    State.CHALLENGER: "Version {version} is shown to a part of the shoppers, in an experiment.",
    State.PROMOTED: "Version {version} is the champion. Everybody gets it.",
    State.REJECTED: "Version {version} does not get traffic: {note}",
    State.FAILED: "No version came of it: {note}",
}


class Deed(Enum):
    """What the presenter does."""

    RETRAIN = "retrain"
    SHIFT = "shift"
    SELL_OUT = "sell out"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known at one moment.

    Attributes
    ----------
    share
        How far the story is, 0 to 1.
    click_through
        Of the last half minute; None before the first page.
    learned
        Slots learned so far.
    champion
        The version that serves.
    drifts
        What drifts by now in what shoppers do (labels), in words; empty if nothing does.
    retraining
        The newest retraining; None before the first.
    """

    share: float
    click_through: float | None
    learned: int
    champion: str
    drifts: str
    retraining: Retraining | None


@dataclass(frozen=True, slots=True)
class Line:
    """Something that is said, and what is done with it.

    Attributes
    ----------
    mark
        A word for the plot; empty for what needs none.
    version
        What a promotion is of.
    """

    text: str
    deed: Deed | None = None
    mark: str = ""
    version: str = ""


@dataclass
class Story:
    """Tells it. Give it what was seen, about once a second.

    Attributes
    ----------
    told
        What has happened, by name, for the end.
    """

    told: set[str] = field(default_factory=set)
    _before: float | None = None
    _served: str = ""
    _lowest: float | None = None
    _said: tuple[str, str] = ("", "")
    _promoted: set[str] = field(default_factory=set)

    def lines(self, seen: Seen) -> Iterator[Line]:
        """What is said now."""
        if self._once("open"):
            yield Line("The shop opens. Nobody is known, and the model is the first one: its weights are a guess.")
        if seen.learned > 0 and self._once("learns"):
            yield Line(f"{seen.learned:,} slots are learned: every click moves the weights that rank the next page.")
        if seen.share >= TRAIN_AT and self._once("trains"):
            yield Line(
                "The week before: a version is trained from scratch on what was seen, so that there is something to "
                "compare the big day with.",
                Deed.RETRAIN,
                "training",
            )
        yield from self._retraining(seen)
        if seen.share >= FRIDAY_AT and self._once("friday"):
            self._before, self._served = seen.click_through, seen.champion
            yield Line(
                "BLACK FRIDAY. Everybody wants something else than yesterday, from this moment on ...",
                Deed.SHIFT,
                "Black Friday",
            )
            yield Line("... and a third of the catalogue is sold out; other items take their places.", Deed.SELL_OUT)
        if "friday" in self.told:
            yield from self._after_friday(seen)

    def ending(self, seen: Seen) -> Iterator[str]:
        """What is said at the end: only what happened."""
        if seen.click_through is not None:
            yield f"Click-through at the end: {seen.click_through:.1%}."
        if self._before and self._lowest is not None:
            yield f"Before Black Friday it was {self._before:.1%}, and {self._lowest:.1%} at the lowest after it."
        if "friday" in self.told and "drift" not in self.told:
            yield "Drift was not found within the story: its false alarms are bounded, and that takes evidence."
        if not self._promoted and seen.champion in ("", "1"):
            yield "No trained version was promoted within the story."

    def _retraining(self, seen: Seen) -> Iterator[Line]:
        found = seen.retraining
        if found is None:
            return
        if (found.retraining_id, found.state) != self._said:
            self._said = found.retraining_id, found.state
            if found.signal_id and self._once(f"begins {found.retraining_id}"):
                yield Line(f"The orchestrator begins a retraining by itself: {found.reason}", mark="retraining")
            if found.state in _STATES:
                yield Line(
                    _STATES[found.state].format(version=found.version, note=found.note),
                    mark="promotion" if found.state == State.PROMOTED else "",
                )
            if found.state == State.PROMOTED:
                self._promoted.add(found.version)
        waits = found.state in (State.EVALUATING, State.CHALLENGER) and found.version not in self._promoted
        if waits and (found.command_id or seen.share >= HAND_AT):
            self._promoted.add(found.version)
            why = "A real shop would wait for its experiment" if found.command_id else "The experiment needs more time"
            yield Line(
                f"{why}; the demo has minutes, so the presenter promotes version {found.version} by hand.",
                Deed.PROMOTE,
                version=found.version,
            )

    def _after_friday(self, seen: Seen) -> Iterator[Line]:
        now = seen.click_through
        if now is None:
            return
        self._lowest = now if self._lowest is None else min(self._lowest, now)
        if self._before and now < 0.85 * self._before and self._once("falls"):
            yield Line(f"Click-through falls to {now:.1%}, from {self._before:.1%}: what was learned is of yesterday.")
        half = self._before and "falls" in self.told and now > (self._before + self._lowest) / 2
        if half and self._once("recovers"):
            alone = seen.champion == self._served
            why = ". Nothing was retrained since: live learning has followed" if alone else ""
            yield Line(
                f"It was {self._lowest:.1%} at the lowest, and half of what was lost is back: {now:.1%}{why}.",
                mark="half is back",
            )
        if seen.drifts and self._once("drift"):
            yield Line(f"Drift is found: {seen.drifts}.", mark="drift found")

    def _once(self, name: str) -> bool:
        if name in self.told:
            return False
        self.told.add(name)
        return True
