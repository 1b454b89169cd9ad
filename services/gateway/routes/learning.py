"""Online learning: have it learn now, and see how it does."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from millrace.events.build import now_ms
from millrace.registry.as_json import checkpoint_as_dict
from millrace.registry.asking import trigger_update
from millrace.v1.model_pb2 import ParameterUpdate
from services.gateway import problems
from services.gateway.bodies import read_optional
from services.gateway.commands import ISSUED_BY
from services.gateway.documents import BODY_FAILURES, MODEL_HELP, PENDING, WAIT_HELP, answer, body, failures
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, Problem
from services.gateway.schemas.base import Reason
from services.gateway.schemas.models import LearningStatus, Update


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/mlops/online-learning", tags=["models"])
    max_bytes = parts.settings.gateway.body_max_kib * 1_024

    @routes.post(
        "/trigger",
        summary="Learn what is in the buffer now",
        status_code=202,
        responses={
            202: PENDING,
            200: answer(Update, "With `wait_ms`: the update that answers it."),
            **BODY_FAILURES,
            **failures(problems.REFUSED, problems.UNAVAILABLE),
        },
        openapi_extra=body(Reason, optional=True),
    )
    async def trigger(
        request: Request,
        model: Annotated[str, Query(description=MODEL_HELP)] = "",
        idempotency_key: Annotated[str | None, Header(description="Id of the command.")] = None,
        wait_ms: Annotated[int, Query(ge=0, le=30_000, description=f"{WAIT_HELP} [default: 0]")] = 0,
    ) -> Response:
        given = await read_optional(request, max_bytes, frozenset(Reason.model_fields))
        name = model or parts.settings.learner.model_name
        command = trigger_update(name, ISSUED_BY, given["reason"])
        command.command_id = idempotency_key or command.command_id

        def answered() -> ParameterUpdate | None:
            learning = parts.views.learning.get(name)
            return learning.answers.get(command.command_id) if learning else None

        update = await parts.desk.ask(name, command, answered, wait_ms)
        if update is None:
            return JSONResponse({"command_id": command.command_id, "settled": False}, 202)
        return JSONResponse({"command_id": command.command_id, "settled": True, **update_as_dict(update)}, 200)

    @routes.get(
        "/status",
        summary="How a model learns",
        responses={200: answer(LearningStatus, "As of the newest update."), **failures(problems.NOT_FOUND)}
        | failures(problems.INVALID_FIELD),
    )
    async def status(model: Annotated[str, Query(description=MODEL_HELP)] = "") -> Response:
        name = model or parts.settings.learner.model_name
        learning, ledger = parts.views.learning.get(name), parts.views.ledgers.get(name)
        if learning is None and ledger is None:
            raise Problem(NOT_FOUND, f"no model {name!r} learns")
        last, now = (learning.last if learning else None), now_ms()
        checkpoints = reversed(ledger.checkpoints.values()) if ledger else ()
        return JSONResponse(
            {
                "model": name,
                "last_update": last and {**update_as_dict(last), "age_ms": now - last.created_at_ms},
                "updates_per_s": learning.updates_per_s(now) if learning else 0.0,
                "buffer": last
                and {
                    "slots": last.buffer_slots,
                    "slots_max": last.buffer_slots_max,
                    "utilisation": last.buffer_slots / last.buffer_slots_max if last.buffer_slots_max else None,
                },
                "checkpoints": [checkpoint_as_dict(event) for event in checkpoints],
            }
        )

    return routes


def update_as_dict(update: ParameterUpdate) -> dict[str, object]:
    """What an update says of itself."""
    return {
        "version": update.model_version,
        "epoch": update.epoch,
        "sequence": update.sequence,
        "examples": update.examples,
        "at_ms": update.created_at_ms,
    }
