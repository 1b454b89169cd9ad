"""What a dashboard is made of, and its JSON as Grafana imports it. No more than we use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

# Grafana's grid has 24 columns; three panels side by side can be read on a laptop.
_COLUMNS = 24
_WIDTH, _HEIGHT = 8, 8
# Of Grafana 11, which imports it as it is; later ones migrate it.
_SCHEMA_VERSION = 39
_SOURCE = {"type": "prometheus", "uid": "${source}"}

Unit = Literal["s", "bytes", "percentunit", "reqps", "short", "none", "bool"]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and how its series are named (``{{label}}``)."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart over time.

    Attributes
    ----------
    help
        What it means, and what is well; shown at the panel's title.
    """

    title: str
    help: str
    unit: Unit
    queries: Sequence[Query]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page; ``name`` is that of its file."""

    name: str
    title: str
    rows: Sequence[Row]

    @property
    def queries(self) -> Sequence[Query]:
        """All of them, in the order of the page."""
        return [query for row in self.rows for panel in row.panels for query in panel.queries]


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it; its data source is a variable."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        place = {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        y += 1
        for number, panel in enumerate(row.panels):
            x = number % (_COLUMNS // _WIDTH) * _WIDTH
            place = {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y + number // (_COLUMNS // _WIDTH) * _HEIGHT}
            panels.append(_panel(panel, len(panels) + 1, place))
        y += -(-len(row.panels) // (_COLUMNS // _WIDTH)) * _HEIGHT
    return {
        "uid": f"millrace-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["millrace"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + place_),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for place_, query in enumerate(panel.queries)
        ],
    }
