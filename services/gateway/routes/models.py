"""Versions of the ranker: who serves, and how to change that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from millrace.events.rules import check_id
from millrace.registry.as_json import event_as_dict, ledger_as_dict
from millrace.registry.asking import promote, roll_back
from millrace.registry.ledger import Ledger
from millrace.v1.command_pb2 import Command
from services.gateway import problems
from services.gateway.bodies import read_optional
from services.gateway.commands import ISSUED_BY
from services.gateway.documents import BODY_FAILURES, MODEL_HELP, PENDING, WAIT_HELP, answer, body, failures
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, Problem
from services.gateway.schemas.base import Reason
from services.gateway.schemas.models import Models, Reign, RollBack

Model = Annotated[str, Query(description=MODEL_HELP)]
Key = Annotated[str | None, Header(description="Id of the command: sent again with it, it is acted on once.")]
Wait = Annotated[int | None, Query(ge=0, le=30_000, description=WAIT_HELP)]
RESPONSES = {
    200: answer(Reign, "The promotion or rollback that it led to."),
    202: PENDING,
    **BODY_FAILURES,
    **failures(problems.NOT_FOUND, problems.REFUSED, problems.UNAVAILABLE),
}


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/mlops/models", tags=["models"])
    own = parts.settings.gateway
    max_bytes = own.body_max_kib * 1_024

    async def obeyed(ledger: Ledger, command: Command, key: str | None, wait_ms: int | None) -> Response:
        """The promotion or rollback that a command leads to."""
        command.command_id = key or command.command_id
        wait = own.command_wait_ms if wait_ms is None else wait_ms
        event = await parts.desk.ask_orchestrator(ledger, command, wait)
        if event is None:
            return JSONResponse({"command_id": command.command_id, "settled": False}, 202)
        return JSONResponse({"command_id": command.command_id, "settled": True, **event_as_dict(event)})

    @routes.get(
        "",
        summary="Every version, and who serves",
        responses={200: answer(Models, "From model-events."), **failures(problems.NOT_FOUND, problems.INVALID_FIELD)},
    )
    async def listing(model: Model = "") -> Response:
        return JSONResponse(ledger_as_dict(parts.ledger_of(model)))

    @routes.post(
        "/rollback",
        summary="Go back to an earlier champion, or to a checkpoint",
        responses=RESPONSES,
        openapi_extra=body(RollBack, optional=True),
    )
    async def rollback(
        request: Request, model: Model = "", idempotency_key: Key = None, wait_ms: Wait = None
    ) -> Response:
        given = await read_optional(request, max_bytes, frozenset(RollBack.model_fields))
        ledger = parts.ledger_of(model)
        command = roll_back(ledger.model_name, given["version"], ISSUED_BY, given["reason"], given["checkpoint_id"])
        return await obeyed(ledger, command, idempotency_key, wait_ms)

    @routes.post(
        "/{version:path}/promote",
        summary="Make a version the champion",
        responses=RESPONSES,
        openapi_extra=body(Reason, optional=True),
    )
    async def make_champion(
        version: str, request: Request, model: Model = "", idempotency_key: Key = None, wait_ms: Wait = None
    ) -> Response:
        given = await read_optional(request, max_bytes, frozenset(Reason.model_fields))
        check_id("version", version)
        ledger = parts.ledger_of(model)
        if version not in ledger.versions:
            raise Problem(NOT_FOUND, f"model {ledger.model_name!r} has no version {version!r}")
        command = promote(ledger.model_name, version, ISSUED_BY, given["reason"])
        return await obeyed(ledger, command, idempotency_key, wait_ms)

    return routes
