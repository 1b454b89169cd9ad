"""The document's part on the shift: what it cost each arm, and when each was back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.freshness_value.figures import BASE, FIGURES, NIGHTLY, lowest
from benchmarks.freshness_value.results import Month
from benchmarks.freshness_value.words import ARMS, TITLES, listed, rate, share, signed, table

SURE = 0.975
"""Share of the draws: what a 95 % interval leaves out on the other side."""


def recovery(one: Month) -> Iterator[str]:
    """A month's tables of the shift, and what they say."""
    yield f"### {one['world'].capitalize()}\n"
    for what in FIGURES:
        rows = []
        for arm, name in ARMS.items():
            own = one["figures"][what][arm]
            changes = share(_lowest(one, own)), signed(own["first_change"]), signed(own["after_change"])
            rows.append((name, rate(own["before"]), *changes, took(one, own["recovered"])))
        head = (TITLES[what], "before the shift", "lowest 3 days before", "first 3 days after", "all days after")
        yield table((*head, "back after"), rows)
    yield from _said(one)


def _lowest(one: Month, own: Mapping[str, Any]) -> float:
    return lowest(own["by_day"][: one["shift_after"]])


def took(one: Month, recovered: Sequence[int | None]) -> str:
    """Days until an arm is back; those that are not within the run as more than it has."""
    days = one["days"] - one["shift_after"]
    value, low, high = (f"> {days}" if one is None else str(one) for one in recovered)
    return f"{value} days ({low} to {high})"


def _said(one: Month) -> Iterator[str]:
    """What the click-through says of the shift."""
    arms = one["figures"]["click_through"]
    shown = {
        arm: own["first_change"][2] < 0 and own["first_change"][0] < _lowest(one, own)
        for arm, own in ((arm, arms[arm]) for arm in ARMS)
    }
    fell = [ARMS[arm] for arm in ARMS if shown[arm]]
    if not fell:
        yield (
            "**The shift does not show in click-through**: no arm's change in the first three days has an interval "
            "below 0 and is below its lowest three days before. That is no evidence that any arm recovers faster.\n"
        )
        return
    yield f"- The shift shows in the click-through of {listed(fell)}:"
    yield "  the interval of the first three days' change is below 0, the change below the lowest three days before."
    stood = [ARMS[arm] for arm in ARMS if not shown[arm]]
    if stood:
        yield f"  It does not show in that of {listed(stood)}."
    for arm in (arm for arm in ARMS if arm != BASE and shown[arm]):
        yield f"- {_against(ARMS[arm], *arms[arm]['live_back'])}"
    before, first, after = (signed(arms[NIGHTLY]["live_above"][span]) for span in ("before", "first", "after"))
    yield f"- Live against nightly: {before} before the shift, {first} in the three days after, {after} in all after.\n"


def _against(name: str, earlier: float, later: float) -> str:
    """Whether live is back earlier than an arm: by the shares of the draws in which it is, and in which it is later."""
    verdict = "earlier" if earlier >= SURE else "**later**" if later >= SURE else "no difference is shown"
    return (
        f"Live is back earlier than {name} in {earlier:.0%} of the draws of shoppers, later in {later:.0%}: {verdict}."
    )
