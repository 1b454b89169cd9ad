"""*Learning*: how fast the model learns, how well it knew beforehand, and what it makes of each feature."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from millrace.events.build import now_ms
from services.gateway.console.charts import Chart
from services.gateway.console.pages import page_routes
from services.gateway.console.words import label_of
from services.gateway.parts import Parts

SHOWN = 16
"""Weights, the largest: half of the model, and nearly all of what it says."""
CHARTS = (
    Chart(
        "rates", "learned", "Learned", "/s", "Outcomes that moved the weights: items clicked, and seen but not clicked."
    ),
    Chart(
        "learning",
        "loss",
        "Surprise",
        "nats",
        "Log loss: how wrong the model was about each outcome just before learning it. Lower is better.",
    ),
    Chart("learning", "buffer", "Buffer", "%", "Outcomes that wait to be learned together, of the most that may."),
)
FRESH = Chart(
    "freshness", "model", "Outcome → model", "ms", "Until the model that answers has learned from an outcome."
)


def router(parts: Parts) -> APIRouter:
    """The page, and its stream."""
    console, views = parts.console, parts.views
    routes = page_routes(console, "/console/learning")
    name = parts.settings.learner.model_name

    @routes.get("")
    async def page() -> Response:
        values = told() | {"weights": (), "line": None, "charts": CHARTS, "fresh": FRESH, "asked": False}
        return console.renderer.page("learning.html", "/console/learning", **values)

    @routes.get("/stream")
    async def stream() -> Response:
        before: dict[str, float] = {}

        async def values() -> dict[str, Any]:
            async with console.weights.watched.looking():
                return told() | weights(before) | {"asked": True}

        return console.beating("learning_part.html", values)

    def told() -> dict[str, Any]:
        learning, ledger, now = views.learning.get(name), views.ledgers.get(name), now_ms()
        last = learning.last if learning else None
        return {
            "name": name,
            "last": last,
            "idle_s": (now - last.created_at_ms) // 1_000 if last else 0,
            "updates_per_s": learning.updates_per_s(now) if learning else 0.0,
            "champion": ledger.champion if ledger else "",
        }

    def weights(before: dict[str, float]) -> dict[str, Any]:
        """The largest weights, beside what they were when ``before`` was filled, which the first call does."""
        ledger = views.ledgers.get(name)
        reign = ledger.reign.event_id if ledger and ledger.reign else ""
        line = console.weights.line(reign)
        if line is None:
            return {"weights": (), "line": None}
        now = dict(zip(line.template.columns, line.vector.tolist(), strict=False))
        if before.keys() != now.keys():
            before.clear()
            before.update(now)
        largest = sorted(now, key=lambda column: -abs(now[column]))[:SHOWN]
        rows = [(label_of(column), now[column], now[column] - before[column]) for column in largest]
        return {"weights": rows, "line": line}

    return routes
