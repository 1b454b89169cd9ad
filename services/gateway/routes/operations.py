"""Health, readiness and metrics of the gateway itself."""

from __future__ import annotations

import os

from fastapi import APIRouter, Request
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.responses import JSONResponse, Response

from services.gateway.documents import answer
from services.gateway.parts import Parts
from services.gateway.schemas.operations import Health, Ready

TEXT = {"text/plain": {"schema": {"type": "string"}}}


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health", summary="The process lives", responses={200: answer(Health, "It does.")})
    async def health() -> Response:
        return JSONResponse({"process": "gateway", "pid": os.getpid(), "alive": True})

    @routes.get(
        "/ready",
        summary="The process does its work",
        responses={200: answer(Ready, "It does."), 503: answer(Ready, "Not yet; `missing` says what for.")},
    )
    async def ready() -> Response:
        state = parts.readiness()
        body = {"process": "gateway", "ready": state.ready, "missing": list(state.missing), **state.detail}
        return JSONResponse(body, 200 if state.ready else 503)

    @routes.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"description": "As the Accept header asks.", "content": TEXT}},
    )
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(REGISTRY), headers={"Content-Type": content_type})

    return routes
