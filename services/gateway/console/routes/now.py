"""*Now*: how fast events come, how fresh everything is, who is behind, who is well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from services.gateway.console.charts import Chart
from services.gateway.console.pages import page_routes
from services.gateway.console.pulse import Reading, parts_of
from services.gateway.parts import Parts

RATES = (
    Chart("rates", "events", "Events", "/s", "What users did: views, clicks, purchases, taken into features."),
    Chart("rates", "answers", "Recommendations", "/s", "Answers to “what should this user see now?”."),
    Chart("rates", "outcomes", "Outcomes", "/s", "Items shown of which it is decided now: clicked or not."),
    Chart("rates", "learned", "Learned", "/s", "Outcomes that moved the model's weights."),
)
FRESHNESS = (
    Chart("freshness", "features", "Click → features", "ms", "Until what is known of the user includes a click."),
    Chart(
        "freshness",
        "recommendation",
        "Click → recommendation",
        "ms",
        "Until an answer that knows the click can be on the screen.",
    ),
    Chart("freshness", "model", "Outcome → model", "ms", "Until the model that answers has learned from an outcome."),
)


def router(parts: Parts) -> APIRouter:
    """The page, and its stream."""
    console = parts.console
    routes = page_routes(console)
    pulse = console.pulse

    @routes.get("/")
    async def page() -> Response:
        return console.renderer.page("now.html", "/", rates=RATES, freshness=FRESHNESS, **await values())

    @routes.get("/console/now/stream")
    async def stream() -> Response:
        return console.beating("now_parts.html", values)

    async def values() -> dict[str, Any]:
        return shown(pulse.readings[-1] if pulse.readings else None)

    return routes


def shown(reading: Reading | None) -> dict[str, Any]:
    """Parts and lags, for the template."""
    if reading is None:
        return {"parts": parts_of(()), "asked": False, "lags": {}, "knew": None, "worst": 0}
    lags: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in reading["lags"]:
        lags.setdefault((one["process"], one["topic"]), []).append(one)
    return {
        "parts": reading["parts"],
        "asked": True,
        "lags": lags,
        "knew": reading["knew"],
        "worst": _worst(reading["lags"]),
    }


def _worst(lags: Sequence[Mapping[str, Any]]) -> int:
    return max((one["records"] for one in lags), default=0)
