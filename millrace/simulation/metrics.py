"""Prometheus metrics of a simulated shop, read from its own counts when they are scraped."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from millrace.simulation.figures import Count
from millrace.simulation.storefront import Storefront

PREFIX = "millrace_simulation"
_COUNTS = {
    Count.SESSIONS: "sessions",
    Count.PAGES: "pages",
    Count.SLOTS: "slots",
    Count.EXAMINED: "examined",
    Count.CLICKS: "clicks",
    Count.PURCHASES: "purchases",
    Count.REVENUE: "revenue",
}
_BY_ARM = {
    "sessions": "Sessions begun, by arm.",
    "pages": "Pages shown, by arm.",
    "slots": "Slots shown, by arm.",
    "examined": "Slots examined, by arm.",
    "clicks": "Clicks on slots, by arm.",
    "purchases": "Purchases, by arm.",
    "revenue": "Money earned, by arm.",
    "requests": "Requests to a recommender, by arm.",
    "requests_failed": "Requests without an answer, by arm.",
}
_BY_TYPE = {"events": "Interactions sent, by type."}
_ALONE = {
    "organic": "Interactions that name no answer.",
    "lost": "Records that the broker did not take.",
    "late": "Sessions that began late: the machine does not keep up.",
    "turned_away": "Sessions beyond the bound.",
    "shifts": "Times that all tastes were shifted.",
}
_GAUGES = {"sessions_under_way": "Sessions now.", "sessions_under_way_max": "Most sessions."}


def families() -> Iterator[Metric]:
    """What a storefront shows, without values: for the list of all metrics."""
    for names, labels in ((_BY_ARM, ("arm",)), (_BY_TYPE, ("type",)), (_ALONE, ())):
        for name, help_line in names.items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", help_line, labels=labels)
    for name, help_line in _GAUGES.items():
        yield GaugeMetricFamily(f"{PREFIX}_{name}", help_line)


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
        for what, name in _COUNTS.items():
            family = CounterMetricFamily(f"{PREFIX}_{name}", _BY_ARM[name], labels=("arm",))
            for arm, counted in zip(names, sums, strict=True):
                family.add_metric((arm,), counted[what])
            yield family
        for name, counts in (("requests", figures.asked), ("requests_failed", figures.failed)):
            family = CounterMetricFamily(f"{PREFIX}_{name}", _BY_ARM[name], labels=("arm",))
            for arm, count in zip(names, counts, strict=True):
                family.add_metric((arm,), count)
            yield family
        events = CounterMetricFamily(f"{PREFIX}_events", _BY_TYPE["events"], labels=("type",))
        for kind, count in traffic.events.copy().items():
            events.add_metric((kind,), count)
        yield events
        for name, value in (
            ("organic", traffic.organic),
            ("lost", traffic.lost),
            ("late", traffic.late),
            ("turned_away", traffic.turned_away),
            ("shifts", self._storefront.world.people.shifts),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", _ALONE[name], value=value)
        for name, value in (
            ("sessions_under_way", traffic.under_way),
            ("sessions_under_way_max", self._storefront.plan.sessions_max),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", _GAUGES[name], value=value)
