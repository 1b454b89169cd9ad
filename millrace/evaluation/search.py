"""Settings found on the past alone: a coordinate search, judged by passes over events that no figure counts.

    ├── past: what the protocol does not count ─────────────────────────────┤── counted, and never looked at ──►
    ├── learned ──────┤── searched: chooses ────────┤── a quarter: confirms ┤

From the settings in force, one setting after the other moves to the value beside its own as long as that is better; a
round without a move ends it. Better means: HR + MRR of the same events, by more than a standard error of the paired
difference (the one-standard-error rule; Breiman et al. (1984): Classification and regression trees). Of many
tries some look good by chance: how good the choice is, only events that did not choose can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from millrace.errors import MillraceError
from millrace.evaluation.figures import Rate, measure
from millrace.evaluation.intervals import of_ratio
from millrace.evaluation.lag import Lag
from millrace.evaluation.paired import Blocks
from millrace.evaluation.prequential import Prequential
from millrace.evaluation.protocols import counted_from, protocol
from millrace.evaluation.search_space import SPACE, Axis, Choice, chosen
from millrace.evaluation.stream import EventStream, checksum
from millrace.evaluation.trials import TrialFile
from millrace.settings import Settings

PAST_SHARE = 0.2
"""Of a stream all of whose events would be counted, so much is the past."""
SEARCHED_SHARE, LEARNED_SHARE = 0.75, 0.25
"""Of the past: what chooses and what comes before it; and what is learned at the beginning and not counted."""
ONE_ERROR = 0.68
"""Level of an interval of one standard error to both sides."""
SURE = 0.95

Trial: TypeAlias = Callable[[Choice], Blocks]


def _silent(what: str, events: int) -> Callable[[], None]:
    del what, events
    return lambda: None


@dataclass(frozen=True, slots=True)
class Gain:
    """A choice beside the settings in force, on the same events.

    Attributes
    ----------
    n
        Answers counted.
    before, after
        Metric -> its value with the settings in force, and with the choice.
    gain
        How much higher HR + MRR is, with its 95 % interval (value, low, high).
    """

    n: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    gain: Rate


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes
    ----------
    choice
        Settings that move; empty if none was better.
    past
        Events that the search saw.
    passes
        Passes made, those that confirm left out.
    searched, confirmed
        The choice on the events that chose it, and on those after them that did not.
    """

    choice: Choice
    past: int
    passes: int
    searched: Gain
    confirmed: Gain

    @property
    def holds(self) -> bool:
        """Whether the choice was better on events that did not choose it."""
        return self.confirmed.gain[0] > 0


def past_of(stream: EventStream, protocol_name: str, warm_up: int) -> EventStream:
    """The events before the first that the protocol counts; of a stream that has none, the first fifth."""
    end = counted_from(protocol_name, stream, warm_up) or int(len(stream.events) * PAST_SHARE)
    return _first(stream, end, int(end * SEARCHED_SHARE))


def search(
    stream: EventStream,
    protocol_name: str,
    settings: Settings,
    k: int,
    lag: Lag,
    every: int,
    seed: int,
    budget: int,
    warm_up: int = 0,
    axes: Sequence[Axis] = SPACE,
    begin: Callable[[str, int], Callable[[], object]] = _silent,
) -> Found:
    """Search for better settings on the past of a stream.

    Parameters
    ----------
    budget
        Most passes, the first of which is with the settings in force; two more confirm.
    begin
        Called before each pass with what it tries and its number of events; what it gives is called after each event.

    A search that was interrupted goes on where it was (``trials.py``).

    Raises
    ------
    MillraceError
        The past holds too few events to tell settings apart.
    """
    # Of protocols that count later periods alone the past may hold a single one: there the next item is asked for.
    name = "next-in-session" if protocol_name in ("ader", "serenade") else protocol_name
    past = past_of(stream, protocol_name, warm_up)
    searched = _first(past, past.tested_from, int(len(past.events) * LEARNED_SHARE))

    file = TrialFile(settings, past.checksum, list(past.starts), name, k, lag.text, every, seed)

    def blocks(part: EventStream, choice: Choice, what: str) -> Blocks:
        kept = file.get(len(part.events), choice)
        if kept is not None:
            return kept
        run = Prequential(part, protocol(name, part), chosen(settings, choice, axes), k, lag, every, seed)
        found = measure(run, False, k, begin(what, len(part.events)))
        if found is None or len(found.blocks.weights) < 2:
            raise MillraceError(
                f"{stream.name}: its first {len(past.events)} events are too few to tell settings apart; give more of "
                "them to the past with --warm-up, or ask more often with --every 1"
            )
        file.keep(len(part.events), choice, found.blocks)
        return found.blocks

    tried: list[Choice] = []

    def attempt(choice: Choice) -> Blocks:
        tried.append(choice)
        moved = ", ".join(f"{variable}={value:.15g}" for variable, value in choice.items()) or "settings in force"
        return blocks(searched, choice, f"pass {len(tried)} of at most {budget}: {moved}")

    start = {axis.variable: axis.now(settings) for axis in axes}
    choice, before, after = coordinate_search(attempt, axes, start, budget)
    confirms = [blocks(past, one, f"confirms: settings {what}") for one, what in (({}, "in force"), (choice, "chosen"))]
    file.drop()
    return Found(choice, len(past.events), len(tried), _gain(before, after), _gain(*confirms))


def coordinate_search(
    attempt: Trial, axes: Sequence[Axis], start: Choice, budget: int
) -> tuple[Choice, Blocks, Blocks]:
    """The best choice, and the passes with ``start`` and with it; at most ``budget`` attempts, each choice once."""
    best: Choice = {}
    before = after = attempt(best)
    known = [best]
    moves = True
    while moves:
        moves = False
        for axis in axes:
            for step in (1, -1):
                while len(known) < budget:
                    value = axis.beside(best.get(axis.variable, start[axis.variable]), step)
                    if value is None:
                        break
                    choice = {**best, axis.variable: value}
                    choice = {name: one for name, one in choice.items() if one != start[name]}
                    if choice in known:
                        break
                    known.append(choice)
                    blocks = attempt(choice)
                    if gain(after, blocks, ONE_ERROR)[1] <= 0:
                        break
                    best, after, moves = choice, blocks, True
    return best, before, after


def gain(before: Blocks, after: Blocks, level: float) -> Rate:
    """How much higher HR + MRR is, with its interval. Raises MillraceError unless both asked before the same events."""
    if before.events != after.events:
        raise MillraceError("settings that change which events are asked for cannot be compared")
    higher = after.sums["hr"] + after.sums["mrr"] - before.sums["hr"] - before.sums["mrr"]
    return float(higher.sum() / before.weights.sum()), *of_ratio(higher, before.weights, level=level)


def _gain(before: Blocks, after: Blocks) -> Gain:
    n = int(before.weights.sum())

    def means(blocks: Blocks) -> dict[str, float]:
        return {metric: float(blocks.sums[metric].sum() / n) for metric in ("hr", "mrr")}

    return Gain(n, means(before), means(after), gain(before, after, SURE))


def _first(stream: EventStream, end: int, tested_from: int) -> EventStream:
    events = stream.events[:end]
    return replace(
        stream,
        events=events,
        starts=[0, *(at for at in stream.starts if 0 < at < end)],
        tested_from=tested_from,
        checksum=checksum(events, stream.labels),
    )
