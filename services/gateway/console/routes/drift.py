"""*Drift*: whether today's traffic is still what the model was made for, as the detector says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from millrace.stream import scrape
from millrace.topics import DRIFT_SIGNALS
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal
from services.gateway.console.asking import Said
from services.gateway.console.charts import HEIGHT, WIDTH, bars
from services.gateway.console.messages import word
from services.gateway.console.pages import page_routes
from services.gateway.console.reading import Found, Place, read_piece
from services.gateway.console.words import label
from services.gateway.parts import Parts

_HERE = "/console/drift"
_EVERY_S = 5.0
_MOST = 2_000
CHANNELS = {
    "input": "What comes in: features of the items shown",
    "prediction": "What the model says: its scores",
    "performance": "How right it is: clicks against what it expected",
}


def router(parts: Parts) -> APIRouter:
    """The page, and its stream."""
    console, settings = parts.console, parts.settings
    routes = page_routes(console, _HERE)

    @routes.get("")
    async def page() -> Response:
        return console.renderer.page("drift.html", _HERE, **await values())

    @routes.get("/stream")
    async def stream() -> Response:
        return console.live("drift_part.html", values, _EVERY_S)

    async def values() -> dict[str, Any]:
        def signals(found: Found) -> bool:
            return isinstance(found.record.message, DriftSignal)

        piece = await console.read(lambda: read_piece(settings, DRIFT_SIGNALS, Place(newest=_MOST), _MOST, signals))
        came = [one.record.message for one in piece.found if isinstance(one.record.message, DriftSignal)]
        return {"signals": put_together(came), "watching": watching(await console.pulse.once()), "channels": CHANNELS}

    return routes


def watching(said: Iterable[Said]) -> dict[str, Any] | None:
    """What the detector says of itself; None if it does not answer."""
    detector = next((one for one in said if one.process == "drift_detector" and one.answers), None)
    if detector is None:
        return None
    samples = detector.samples
    return {
        "watches": scrape.total(samples, "millrace_drift_watching") > 0,
        "looks": round(scrape.total(samples, "millrace_drift_looks_total")),
        "hours": round(scrape.total(samples, "millrace_drift_hours")),
    }


def put_together(came: Iterable[DriftSignal]) -> list[dict[str, Any]]:
    """Each signal once, as it stands now and as it came to that; those that hold come first, then the newest."""
    by_id: dict[str, list[DriftSignal]] = {}
    for signal in came:
        by_id.setdefault(signal.signal_id, []).append(signal)
    found = [_signal(repetitions) for repetitions in by_id.values()]
    return sorted(found, key=lambda one: (not one["holds"], -one["at_ms"]))


def _signal(repetitions: list[DriftSignal]) -> dict[str, Any]:
    last = repetitions[-1]
    # The last repetition of a drift that is over has no evidence any more.
    told = next((one for one in reversed(repetitions) if one.evidence), last)
    return {
        "id": last.signal_id,
        "channel": word(DriftChannel.DESCRIPTOR, last.channel),
        "model": last.model_name,
        "version": last.model_version,
        "segment": last.segment,
        "holds": last.holds,
        "first_at_ms": last.first_at_ms,
        "at_ms": last.at_ms,
        "times": len(repetitions),
        "evidence": [_evidence(one, repetitions) for one in told.evidence],
    }


def _evidence(last: DriftEvidence, repetitions: list[DriftSignal]) -> dict[str, Any]:
    scores = [
        (signal.at_ms, one.statistic / one.threshold)
        for signal in repetitions
        for one in signal.evidence
        if one.name == last.name and one.threshold
    ]
    return {
        "name": label(last.name),
        "method": last.method,
        "statistic": last.statistic,
        "threshold": last.threshold,
        "effect": last.effect_size,
        "weight": last.model_weight,
        "before": bars(list(last.before.counts)),
        "after": bars(list(last.after.counts)),
        "edges": list(last.before.edges),
        "line": score_line(scores),
    }


def score_line(scores: list[tuple[int, float]]) -> dict[str, Any] | None:
    """Scores over time against a threshold of 1, drawn; None of fewer than two."""
    if len(scores) < 2 or scores[-1][0] <= scores[0][0]:
        return None
    most = 1.15 * max(1.0, *(score for _, score in scores))
    began, lasted = scores[0][0], scores[-1][0] - scores[0][0]
    places = [f"{WIDTH * (at - began) / lasted:.1f} {HEIGHT * (1 - score / most):.1f}" for at, score in scores]
    return {"path": f"M{'L'.join(places)}", "threshold": round(HEIGHT * (1 - 1 / most), 1)}
