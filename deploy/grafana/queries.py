"""Queries and panels that dashboards have in common."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.grafana.panels import Panel, Query, Unit

# What Grafana makes of its own interval and the scrape interval, so that a rate always has samples.
OVER = "[$__rate_interval]"


def rate(metric: str, by: str = "", where: str = "") -> str:
    """By the second, summed up; ``where`` with its brackets."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{where}{OVER}))"


def quantiles(metric: str, where: str = "", shares: Sequence[float] = (0.5, 0.95, 0.99)) -> list[Query]:
    """Shares of a histogram of all processes."""
    buckets = rate(f"{metric}_bucket", "le", where)
    return [Query(f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}") for share in shares]


def quantile_by(metric: str, label: str, share: float = 0.95) -> Query:
    """A share of a histogram for each value of a label."""
    return Query(f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'le, {label}')})", f"{{{{{label}}}}}")


def mean(metric: str, by: str = "") -> str:
    """The mean of a histogram."""
    return f"{rate(f'{metric}_sum', by)} / {rate(f'{metric}_count', by)}"


def bounded(title: str, help: str, unit: Unit, held: str, most: str, by: str = "") -> Panel:
    """What a process holds beside the most that it may; of several processes, the fullest."""
    name = f"{{{{{by}}}}} " if by else ""
    grouping = f" by ({by})" if by else ""
    return Panel(
        title,
        help,
        unit,
        [Query(f"max{grouping} ({held})", f"{name}held"), Query(f"max{grouping} ({most})", f"{name}most")],
    )


def one(title: str, help: str, unit: Unit, expression: str, legend: str) -> Panel:
    """A panel with one query."""
    return Panel(title, help, unit, [Query(expression, legend)])
