"""*Experiments*: what is compared, what is known of it by now, and what was decided and why."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from millrace.events.build import now_ms
from millrace.experiments.life import ENDING
from millrace.experiments.outlook import in_words, on_guardrails, relative_intervals
from millrace.v1.experiment_pb2 import Arm, DecisionKind, Experiment, ExperimentState
from services.gateway.console.charts import Point, band
from services.gateway.console.history import history, points
from services.gateway.console.messages import word
from services.gateway.console.pages import page_routes
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, Problem

_HERE = "/console/experiments"
# Records come every second; a page is for people.
_EVERY_S = 2.0
RAILS = {
    "fallback": "answers that fell back",
    "slow": "slow answers",
    "coverage": "variety of items",
    "click_floor": "least clicks",
    "clicks": "least clicks",
}


def router(parts: Parts) -> APIRouter:
    """The pages, and their streams."""
    console, settings, views = parts.console, parts.settings, parts.views
    routes = page_routes(console, _HERE)

    @routes.get("")
    async def page() -> Response:
        return console.renderer.page("experiments.html", _HERE, **await listed())

    @routes.get("-stream")
    async def stream(experiment: str = "") -> Response:
        if not experiment:
            return console.live("experiments_part.html", listed, _EVERY_S)
        known(experiment)
        lines = await console.read(lambda: history(settings, experiment))

        async def values() -> dict[str, Any]:
            record = known(experiment)
            for arm, came in points([record]).items():
                line = lines.setdefault(arm, [])
                line += [one for one in came if not line or one.at_ms > line[-1].at_ms]
            return shown(record, lines)

        return console.live("experiment_part.html", values, _EVERY_S)

    @routes.get("/{experiment_id:path}")
    async def one(experiment_id: str) -> Response:
        record = known(experiment_id)
        lines = await console.read(lambda: history(settings, experiment_id))
        return console.renderer.page("experiment.html", _HERE, **shown(record, lines))

    def known(experiment_id: str) -> Experiment:
        found = views.experiments.get(experiment_id)
        if found is None:
            raise Problem(NOT_FOUND, f"no experiment {experiment_id!r}")
        return found

    async def listed() -> dict[str, Any]:
        newest = sorted(views.experiments.values(), key=lambda one: -(one.started_at_ms or now_ms()))
        return {"experiments": [in_short(one) for one in newest]}

    return routes


def in_short(record: Experiment) -> dict[str, Any]:
    """A line of the list."""
    kind = record.decision.kind
    return {
        "id": record.definition.experiment_id,
        "state": word(ExperimentState.DESCRIPTOR, record.state),
        "started_at_ms": record.started_at_ms,
        "stopped_at_ms": record.stopped_at_ms,
        "arms": [arm.name for arm in record.definition.arms],
        "users": sum(figures.users for figures in record.figures),
        "decision": "" if not kind else word(DecisionKind.DESCRIPTOR, kind),
        "ended": kind in ENDING,
        "words": in_words(record),
    }


def shown(record: Experiment, lines: dict[str, list[Point]]) -> dict[str, Any]:
    """What the page of an experiment shows."""
    figures = {one.name: one for one in record.figures}
    intervals = relative_intervals(record)
    widest = max((max(abs(low), abs(high)) for _, low, high in intervals.values()), default=0.0)
    scale = next((one for one in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if one >= widest), 5.0)
    return {
        "short": in_short(record),
        "definition": record.definition,
        "record": record,
        "scale": scale,
        "arms": [
            {
                "arm": arm,
                "what": what(arm),
                "figures": figures.get(arm.name),
                "interval": intervals.get(arm.name),
                "drawn": drawn(intervals.get(arm.name), scale),
                "band": band(lines.get(arm.name, [])),
            }
            for arm in record.definition.arms
        ],
        "rails": [
            (arm, RAILS.get(name, name.replace("_", " ")), worse, surely, borne)
            for arm, rails in on_guardrails(record).items()
            for name, (worse, surely, borne) in rails.items()
        ],
    }


def what(arm: Arm) -> str:
    """What an arm shows, in words."""
    settings = dict(arm.settings)
    name = f"version {arm.model_version}" if arm.model_version else "the champion, as it learns"
    if settings.pop("parameters", "") == "registered":
        name = f"{'version ' + arm.model_version if arm.model_version else 'the champion'}, as it was registered"
    if "checkpoint" in settings:
        name = f"checkpoint {settings.pop('checkpoint')}"
    if settings.pop("ranking", "") == "popular":
        name = "what is popular"
    return ", ".join((name, *(f"{key} {value}" for key, value in sorted(settings.items()))))


def drawn(interval: tuple[float, float, float] | None, scale: float) -> dict[str, float] | None:
    """Where an interval stands on a scale from -scale to +scale, of a drawing 100 wide."""
    if interval is None:
        return None
    value, low, high = (50 + 50 * min(max(one / scale, -1.0), 1.0) for one in interval)
    return {"value": round(value, 2), "low": round(low, 2), "width": round(max(0.6, high - low), 2)}
