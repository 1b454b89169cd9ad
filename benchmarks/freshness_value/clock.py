"""How clicks are spread over items, people and days: the figures that the news world is held to Globo.com by."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from millrace.simulation.catalogue import Change, Floats, Ints
from millrace.simulation.days import DAY_S, Front, Visit
from millrace.simulation.sessions import Ask, Deed, Page

DAYS = 10
"""As long as the file of Globo.com's clicks."""
FIRST_CLICKED = (2, 6)
"""Items whose ages are looked at: those first clicked on days 3 to 6, so that they are new and seen to the end."""
AGE_S = 4 * DAY_S
"""Clicks that come later are left out: for the last of these items the file ends."""

Click = tuple[str, str, str, float]
"""Visitor, visit, item, and the moment in seconds."""


@dataclass
class ClickLog:
    """A ``Front`` that keeps all clicks and leaves the rest to another."""

    front: Front
    clicks: list[Click] = field(default_factory=list)

    def page(self, visit: Visit, ask: Ask, now_s: float) -> Page:
        """The other's page."""
        return self.front.page(visit, ask, now_s)

    def did(self, visit: Visit, deed: Deed, now_s: float) -> None:
        """Keep a click; tell the other."""
        if deed.type == "click":
            self.clicks.append((str(visit.shopper), f"{visit.shopper}-{visit.number}", deed.item_id, now_s))
        self.front.did(visit, deed, now_s)

    def changed(self, change: Change) -> None:
        """Tell the other."""
        self.front.changed(change)


def globo(folder: Path) -> Iterator[Click]:
    """The clicks of Globo.com."""
    with gzip.open(folder / "globo" / "clicks_2017-10-01_10.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for at_ms, user_id, session_id, item_id, *_ in rows:
            yield user_id, session_id, item_id, int(at_ms) / 1000


def clock(clicks: Sequence[Click], begin_s: float) -> dict[str, float]:
    """Figures of ten days of clicks; the names say what, shares are fractions of 1. Needs at least one click."""
    users, visits, items, times = zip(*(one for one in clicks if 0 <= one[3] - begin_s < DAYS * DAY_S), strict=True)
    user, visit, item = (np.unique(ids, return_inverse=True)[1] for ids in (users, visits, items))
    at_s = np.array(times) - begin_s
    of_visit, of_item = np.bincount(visit), np.bincount(item)
    visits_of = np.bincount(user[np.unique(visit, return_index=True)[1]])
    middle, late = _hours(item, at_s)
    pairs = np.unique(user * np.int64(len(of_item)) + item)
    return {
        "two_clicks": round(float((of_visit == 2).sum() / max(1, (of_visit >= 2).sum())), 4),
        "hours_median": middle,
        "hours_p90": late,
        "visits": round(float(visits_of.mean()), 2),
        "most_active": round(_top(visits_of), 4),
        "again": round(1 - len(pairs) / len(item), 4),
        "most_clicked": round(float(np.mean(list(_of_days(item, at_s)))), 4),
        "clicks_of_item": round(float(of_item.mean()), 1),
    }


def _hours(item: Ints, at_s: Floats) -> tuple[float, float]:
    """Hours from an item's first click to a click, the first one too: median and 90th percentile; NaN without any."""
    first_s = np.full(item.max() + 1, np.inf)
    np.minimum.at(first_s, item, at_s)
    since, until = (day * DAY_S for day in FIRST_CLICKED)
    age_s = at_s - first_s[item]
    ages = age_s[(first_s[item] >= since) & (first_s[item] < until) & (age_s < AGE_S)]
    if not ages.size:
        return float("nan"), float("nan")
    middle, late = np.percentile(ages / 3600, (50, 90))
    return round(float(middle), 1), round(float(late), 1)


def _of_days(item: Ints, at_s: Floats) -> Iterator[float]:
    day = (at_s // DAY_S).astype(np.int64)
    for number in range(DAYS):
        counts = np.bincount(item[day == number])
        if counts.any():
            yield _top(counts[counts > 0])


def _top(counts: Ints) -> float:
    """Share of the largest tenth, which is one at least."""
    ordered = np.sort(counts)[::-1]
    return float(ordered[: max(1, len(ordered) // 10)].sum() / ordered.sum())
