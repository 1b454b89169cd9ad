"""Retraining: have a version trained, and see how that stands."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from millrace.events.build import now_ms
from millrace.registry.asking import retrain
from millrace.registry.retraining_as_json import started_as_dict, status_as_dict
from services.gateway import problems
from services.gateway.bodies import read_optional
from services.gateway.commands import ISSUED_BY
from services.gateway.documents import BODY_FAILURES, MODEL_HELP, PENDING, WAIT_HELP, answer, body, failures
from services.gateway.parts import Parts
from services.gateway.schemas.base import Reason
from services.gateway.schemas.models import RetrainingStarted, RetrainingStatus

Model = Annotated[str, Query(description=MODEL_HELP)]


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/mlops/retrain", tags=["models"])
    own = parts.settings.gateway

    @routes.post(
        "",
        summary="Have a new version trained now",
        responses={
            200: answer(RetrainingStarted, "It has begun."),
            202: PENDING,
            **BODY_FAILURES,
            **failures(problems.NOT_FOUND, problems.REFUSED, problems.UNAVAILABLE),
        },
        openapi_extra=body(Reason, optional=True),
    )
    async def start(
        request: Request,
        model: Model = "",
        idempotency_key: Annotated[str | None, Header(description="Id of the command.")] = None,
        wait_ms: Annotated[int | None, Query(ge=0, le=30_000, description=WAIT_HELP)] = None,
    ) -> Response:
        given = await read_optional(request, own.body_max_kib * 1_024, frozenset(Reason.model_fields))
        ledger = parts.ledger_of(model)
        command = retrain(ledger.model_name, ISSUED_BY, given["reason"])
        command.command_id = idempotency_key or command.command_id
        wait = own.command_wait_ms if wait_ms is None else wait_ms
        event = await parts.desk.ask_orchestrator(ledger, command, wait)
        if event is None:
            return JSONResponse({"command_id": command.command_id, "settled": False}, 202)
        return JSONResponse({"command_id": command.command_id, "settled": True, **started_as_dict(event)})

    @routes.get(
        "/status",
        summary="How retraining stands",
        responses={
            200: answer(RetrainingStatus, "From model-events and drift-signals."),
            **failures(problems.NOT_FOUND, problems.INVALID_FIELD),
        },
    )
    async def status(model: Model = "") -> Response:
        ledger, now = parts.ledger_of(model), now_ms()
        signals = parts.views.signals.holding(ledger.model_name, now)
        experiments = parts.views.experiments.values()
        return JSONResponse(status_as_dict(ledger, signals, experiments, parts.settings.retrain, now))

    return routes
