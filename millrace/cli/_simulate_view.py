"""How ``millrace simulate`` shows its figures: a line as it goes, tables and JSON at the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from millrace.cli._output import print_table

if TYPE_CHECKING:
    from millrace.simulation.figures import Estimate
    from millrace.simulation.storefront import Storefront


class Progress:
    """Lines about the time since the last line, and in total."""

    def __init__(self, storefront: Storefront) -> None:
        self._storefront = storefront
        self._at_s = 0.0
        self._events = 0
        self._sums = [[0.0, 0.0, 0.0] for _ in storefront.arms]

    def line(self, at_s: float) -> str:
        """The next line.

        Parameters
        ----------
        at_s
            Seconds since the beginning.
        """
        from millrace.simulation.figures import Count

        shop = self._storefront
        sums = [[counts[what] for what in (Count.PAGES, Count.SLOTS, Count.CLICKS)] for counts in self._all()]
        events = shop.traffic.events.total()
        seconds = at_s - self._at_s
        pages = sum(newer[0] - before[0] for newer, before in zip(sums, self._sums, strict=True))
        parts = [
            f"{at_s:5.0f} s",
            f"{pages / seconds:,.1f} pages/s",
            f"{(events - self._events) / seconds:,.0f} events/s",
            *(
                f"{arm.name} {_share(now[2] - before[2], now[1] - before[1])} click-through "
                f"(in total {_share(now[2], now[1])})"
                for arm, now, before in zip(shop.arms, sums, self._sums, strict=True)
            ),
        ]
        troubles = {
            "requests failed": sum(shop.figures.failed),
            "events lost": shop.traffic.lost,
            "late": shop.traffic.late,
            "turned away": shop.traffic.turned_away,
            "shifts": shop.world.people.shifts,
        }
        parts += [f"{count:,} {name}" for name, count in troubles.items() if count]
        self._at_s, self._events, self._sums = at_s, events, sums
        return "   ".join(parts)

    def _all(self) -> list[list[float]]:
        return [list(self._storefront.figures.sums(arm)) for arm in range(len(self._storefront.arms))]


def report(storefront: Storefront, seconds: float) -> dict[str, Any]:
    """Everything that was counted, as plain values; figures that nobody tells are None.

    Each figure has ``value`` and the ends of its 95 % interval ``low`` and ``high``; ``differences`` are each further
    arm's against the first.
    """
    from millrace.simulation.figures import RATIOS, Count

    figures, traffic = storefront.figures, storefront.traffic
    estimates = [{name: figures.estimate(place, name) for name in RATIOS} for place in range(len(storefront.arms))]
    arms = []
    for place, arm in enumerate(storefront.arms):
        counts = dict(zip((what.name.lower() for what in Count), figures.told(place), strict=True))
        arms.append(
            {
                "name": arm.name,
                "policy": arm.policy,
                "target": arm.target,
                "shoppers": figures.shoppers(place),
                **{name: round(count, 2) if name == "revenue" else int(count) for name, count in counts.items()},
                "requests": figures.asked[place],
                "requests_failed": figures.failed[place],
                **{name: _values(estimate) for name, estimate in estimates[place].items()},
            }
        )
    return {
        "seed": storefront.world.seed,
        "seconds": round(seconds, 3),
        "warm_up_seconds": storefront.plan.warm_up_s,
        "arms": arms,
        "differences": [
            {
                "arm": arm.name,
                "against": storefront.arms[0].name,
                **{name: _values(own.minus(estimates[0][name])) for name, own in estimates[place].items()},
            }
            for place, arm in enumerate(storefront.arms)
            if place
        ],
        "events": dict(traffic.events),
        "organic": traffic.organic,
        "lost": traffic.lost,
        "late": traffic.late,
        "turned_away": traffic.turned_away,
        "shifts": storefront.world.people.shifts,
    }


def print_report(said: dict[str, Any]) -> None:
    """The tables at the end."""
    figures = ("click_through", "click_through_examined", "conversion", "revenue_per_session")
    print_table(
        ("arm", "shoppers", "sessions", "pages", "requests failed", *(name.replace("_", " ") for name in figures)),
        [
            (
                arm["name"],
                f"{arm['shoppers']:,}",
                f"{arm['sessions']:,}",
                f"{arm['pages']:,}",
                f"{arm['requests_failed']:,}",
                *(_figure(name, arm[name]) for name in figures),
            )
            for arm in said["arms"]
        ],
    )
    if said["differences"]:
        click.echo()
        print_table(
            ("difference", *(name.replace("_", " ") for name in figures)),
            [
                (f"{one['arm']} - {one['against']}", *(_figure(name, one[name]) for name in figures))
                for one in said["differences"]
            ],
        )
    events = ", ".join(f"{count:,} {name}" for name, count in said["events"].items())
    click.echo(
        f"\n{said['seconds']:,.1f} s; sent {events or 'nothing'}; {said['organic']:,} organic, {said['lost']:,} lost; "
        f"{said['late']:,} late, {said['turned_away']:,} turned away; {said['shifts']} shifts of taste"
        + (f"; figures without the first {said['warm_up_seconds']:g} s" if said["warm_up_seconds"] else "")
    )


def _values(estimate: Estimate) -> dict[str, float | None]:
    ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: round(end, 6) if math.isfinite(end) else None for name, end in ends.items()}


def _figure(name: str, values: dict[str, float | None]) -> str:
    value, high = values["value"], values["high"]
    if value is None:
        return "-"
    scale, unit = (1, "") if name == "revenue_per_session" else (100, " %")
    spread = "" if high is None else f" ± {scale * (high - value):.2f}"
    return f"{scale * value:.2f}{spread}{unit}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "no"
