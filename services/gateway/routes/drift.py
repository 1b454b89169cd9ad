"""Whether what the champion meets is still what it was made for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from services.gateway import problems
from services.gateway.documents import MODEL_HELP, answer, failures
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, Problem
from services.gateway.schemas.drift import Drift


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/mlops/drift", tags=["models"])

    @routes.get(
        "",
        summary="Drift: what is watched, what was found, what was said",
        responses={
            200: answer(Drift, "As the drift detector wrote it last."),
            **failures(problems.NOT_FOUND, problems.INVALID_FIELD),
        },
    )
    async def drift(model: Annotated[str, Query(description=MODEL_HELP)] = "") -> Response:
        """Features and scores (the last look, an hour old at most), labels (seconds old), signals, the newest first.

        A version that was not trained is not watched, and `problem` says so.
        """
        name = model or parts.settings.drift.model_name
        status = parts.views.drift.get(name)
        if status is None:
            raise Problem(NOT_FOUND, f"the drift detector has written nothing of model {name!r}")
        return JSONResponse(status.as_dict())

    return routes
