"""Prometheus metrics of a simulated shop, read from its own counts when they are scraped."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from millrace.simulation.figures import Count
from millrace.simulation.storefront import Storefront

PREFIX = "millrace_simulation"
_COUNTS = {
    Count.SESSIONS: ("sessions", "Sessions begun, by arm."),
    Count.PAGES: ("pages", "Pages shown, by arm."),
    Count.SLOTS: ("slots", "Slots shown, by arm."),
    Count.EXAMINED: ("examined", "Slots examined, by arm."),
    Count.CLICKS: ("clicks", "Clicks on slots, by arm."),
    Count.PURCHASES: ("purchases", "Purchases, by arm."),
    Count.REVENUE: ("revenue", "Money earned, by arm."),
}


class StorefrontCollector(Collector):
    """What ``/metrics`` shows of a storefront."""

    def __init__(self, storefront: Storefront) -> None:
        self._storefront = storefront

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the registry need not look."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Everything as of now."""
        figures, traffic = self._storefront.figures, self._storefront.traffic
        names = [arm.name for arm in self._storefront.arms]
        sums = [figures.sums(arm) for arm in range(len(names))]
        for what, (name, help_line) in _COUNTS.items():
            family = CounterMetricFamily(f"{PREFIX}_{name}", help_line, labels=("arm",))
            for arm, counted in zip(names, sums, strict=True):
                family.add_metric((arm,), counted[what])
            yield family
        for name, help_line, counts in (
            ("requests", "Requests to a recommender, by arm.", figures.asked),
            ("requests_failed", "Requests without an answer, by arm.", figures.failed),
        ):
            family = CounterMetricFamily(f"{PREFIX}_{name}", help_line, labels=("arm",))
            for arm, count in zip(names, counts, strict=True):
                family.add_metric((arm,), count)
            yield family
        events = CounterMetricFamily(f"{PREFIX}_events", "Interactions sent, by type.", labels=("type",))
        for kind, count in traffic.events.copy().items():
            events.add_metric((kind,), count)
        yield events
        for name, help_line, value in (
            ("organic", "Interactions that name no answer.", traffic.organic),
            ("lost", "Records that the broker did not take.", traffic.lost),
            ("late", "Sessions that began late: the machine does not keep up.", traffic.late),
            ("turned_away", "Sessions beyond the bound.", traffic.turned_away),
            ("shifts", "Times that all tastes were shifted.", self._storefront.world.people.shifts),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", help_line, value=value)
        yield GaugeMetricFamily(f"{PREFIX}_sessions_under_way", "Sessions now.", value=traffic.under_way)
        yield GaugeMetricFamily(
            f"{PREFIX}_sessions_under_way_max", "Most sessions.", value=self._storefront.plan.sessions_max
        )
