"""What a user should see now."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from millrace.client import Recommendation
from millrace.errors import InvalidField
from millrace.events.build import CONTEXT_FIELDS, RequestFields
from millrace.events.columns import time_ms
from services.gateway import problems
from services.gateway.bodies import read_object
from services.gateway.documents import BODY_FAILURES, answer, body, failures
from services.gateway.parts import Parts
from services.gateway.schemas.shop import Answer, Asked, Question

KEYS = frozenset(Question.model_fields)
ONE = {"user_id": "anna", "k": 5, "exclude": ["sku-7"], "context": {"device": "phone"}}
FAILURES = failures(problems.INVALID_FIELD, problems.UNAVAILABLE, problems.TIMEOUT)
HELP = """The best first. Put the answer's `request_id` into the events that it leads to.

An unknown user gets what is trending, and `fallback` says so."""


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["shop"])
    max_bytes = parts.settings.gateway.body_max_kib * 1_024

    async def ask(user_id: str, k: int, fields: RequestFields) -> Response:
        return JSONResponse(as_dict(await parts.recommender.recommend(user_id, k, **fields)))

    @routes.get(
        "/recommend",
        summary="Recommend, asked in the address",
        description=HELP,
        responses={200: answer(Answer, "What to show."), **FAILURES},
    )
    async def get(asked: Annotated[Asked, Query()]) -> Response:
        return await ask(
            asked.user_id,
            asked.k,
            {
                "exclude": asked.exclude,
                "restrict_to": asked.restrict_to,
                "session_id": asked.session_id,
                "request_id": asked.request_id,
                "as_of": time_ms(asked.as_of, "auto", "as_of") if asked.as_of else None,
                "repeats": asked.repeats,  # type: ignore[typeddict-item]  # checked where the request is built
                "viewport": asked.viewport,
                "explain": asked.explain,
                "context": {name: text for name in CONTEXT_FIELDS if (text := getattr(asked, name))},
            },
        )

    @routes.post(
        "/recommend",
        summary="Recommend, asked in the body",
        description=HELP,
        responses={
            200: answer(Answer, "What to show."),
            **FAILURES,
            **BODY_FAILURES,
        },
        openapi_extra=body(Question, one=ONE),
    )
    async def post(request: Request) -> Response:
        asked = await read_object(request, max_bytes)
        if unknown := asked.keys() - KEYS:
            raise InvalidField(min(unknown), "unknown field", ", ".join(sorted(KEYS)))
        fields = {name: value for name, value in asked.items() if value is not None}
        _check_shapes(fields)
        if "as_of" in fields:
            fields["as_of"] = time_ms(fields["as_of"], "auto", "as_of")
        user_id, k = fields.pop("user_id", ""), fields.pop("k", 10)
        return await ask(user_id, k, fields)  # type: ignore[arg-type]  # checked where the request is built

    return routes


def _check_shapes(fields: dict[str, Any]) -> None:
    """Lists and maps; what is in them, and the rest, is checked where the request is built."""
    for name, kind, allowed in (
        ("exclude", list, "a list of text"),
        ("restrict_to", list, "a list of text"),
        ("context", dict, "a JSON object"),
        ("repeats", str, "learned, exclude, or empty for the service's setting"),
    ):
        if not isinstance(fields.get(name, kind()), kind):
            raise InvalidField(name, f"a JSON {type(fields[name]).__name__}", allowed)


def as_dict(found: Recommendation) -> dict[str, object]:
    """The answer for JSON, by the names of the client."""
    known = found.known
    return {
        "request_id": found.request_id,
        "items": [
            {"item_id": item.item_id, "score": item.score, "sources": item.sources, "features": item.features}
            for item in found.items
        ],
        "model_name": found.model_name,
        "model_version": found.model_version,
        "feature_schema": found.feature_schema,
        "feature_names": found.feature_names,
        "known": known
        and {
            "topic": known.topic,
            "topic_id": known.topic_id,
            "partition": known.partition,
            "offset": known.offset,
        },
        "status": found.status,
        "fallback": found.fallback,
        "served_at_ms": found.served_at_ms,
        "experiment_id": found.experiment_id,
        "arm": found.arm,
        "serve_micros": found.serve_micros,
    }
