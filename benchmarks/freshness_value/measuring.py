"""What freshness is worth: one made-up month, once for each rhythm at which a recommender gets to know things.

Live, hourly, nightly and weekly features and learning, and the most clicked items, each with the shop to itself and
with the same visitors (``millrace.evaluation.month``): no servers, the functions of production in one process. Tastes
shift once. Intervals are by shopper, differences are paired (``millrace.simulation.paired``); they tell of shoppers,
not of other worlds.

The first week is no part of the figures: after it every rhythm has reached a boundary.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.environment import Say
from benchmarks.report import Row, append, estimate_row
from millrace.evaluation.month import WAYS, Size, month
from millrace.settings import Settings
from millrace.simulation.catalogue import Floats
from millrace.simulation.days import DaysPlan
from millrace.simulation.figures import Estimate
from millrace.simulation.paired import days_until_recovered, figure, relative

# None of the worlds that the sizes below were tried out in.
SEED = 7
WARM_UP_DAYS, DAYS = 7, 30
# Three days after a weekly boundary, four before the next: the middle of what may happen to the weekly arm.
SHIFT_ON = WARM_UP_DAYS + 17
# A visitor comes 2.7 times in ten days (2.6 on Globo.com).
SHOPPERS, SESSIONS_PER_DAY, ITEMS = 750, 200.0, 100
SIZE = Size(DaysPlan(WARM_UP_DAYS + DAYS, SESSIONS_PER_DAY, SHIFT_ON), SHOPPERS, ITEMS)
FIGURES = ("click_through", "conversion")
PREFIX = "freshness_value"
BASE = "live"

BY_DAY = Path(__file__).parent / "results" / "freshness-value.json"


def run(say: Say, size: Size = SIZE, seed: int = SEED, by_day: Path = BY_DAY) -> list[Row]:
    """Each arm's figures, live against the others, days until recovered. Each day's figures go into ``by_day``."""
    settings = Settings()
    counts: dict[str, Floats] = {}
    for name, way in WAYS.items():
        days = month(way, size, seed, settings)
        for day in days.run():
            say(f"{name}: day {day + 1} of {size.plan.days}")
        counts[name] = days.counts
    append([row for name in counts for row in _day_rows(name, counts[name], seed)], by_day)
    return [row for what in FIGURES for row in _rows(what, counts, seed)]


def _day_rows(name: str, counts: Floats, seed: int) -> list[Row]:
    """Days count from 1, the first after the warm-up."""
    return [
        _row(f"{what}.{name}.day_{day:02}", figure(totals, what), "share", totals, seed)
        for what in FIGURES
        for day, totals in enumerate(counts[WARM_UP_DAYS:], start=1)
    ]


def _rows(what: str, counts: dict[str, Floats], seed: int) -> list[Row]:
    rows = []
    spans = {"": slice(WARM_UP_DAYS, None), ".before": slice(WARM_UP_DAYS, SHIFT_ON), ".after": slice(SHIFT_ON, None)}
    for span, within in spans.items():
        totals = {name: of_days[within].sum(axis=0) for name, of_days in counts.items()}
        rows += [_row(f"{what}.{name}{span}", figure(own, what), "share", own, seed) for name, own in totals.items()]
        live = totals[BASE]
        rows += [
            _row(f"{what}.{BASE}_vs_{name}{span}", relative(live, own, what), "relative", live, seed)
            for name, own in totals.items()
            if name != BASE
        ]
    for name, of_days in counts.items():
        took = days_until_recovered(of_days, what, SHIFT_ON, SHIFT_ON - WARM_UP_DAYS)
        # A figure of its own unit says "not within the run": there is no number for it.
        value, unit = (float(took), "days") if took else (float(len(of_days) - SHIFT_ON), "days, not yet")
        rows.append(Row(f"{PREFIX}.{what}.{name}.recovered_after", value, unit, seed=seed))
    return rows


def _row(name: str, estimate: Estimate, unit: str, totals: Floats, seed: int) -> Row:
    shoppers = int((totals.sum(axis=1) > 0).sum())
    return estimate_row(f"{PREFIX}.{name}", estimate, unit, shoppers, seed)
