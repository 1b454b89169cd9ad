"""The catalogue."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from millrace.events.jsonl import read_item
from millrace.topics import ITEMS
from services.gateway import problems
from services.gateway.bodies import read_json
from services.gateway.documents import BODY_FAILURES, answer, body, failures
from services.gateway.parts import Parts
from services.gateway.schemas.shop import CatalogueItem, Taken

ONE = {"item_id": "sku-7", "title": "Rain jacket", "category": "outdoor", "tags": ["waterproof"], "price": 89.0}
TAKEN = {"accepted": 1, "ids": ["sku-7"], "failed": []}


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["shop"])
    max_bytes = parts.settings.gateway.body_max_kib * 1_024

    @routes.post(
        "/items",
        summary="Publish catalogue entries",
        status_code=202,
        responses={
            202: answer(Taken, "The broker has all of it.", TAKEN),
            207: answer(Taken, "The broker has some of it; `failed` says which not, and why."),
            **BODY_FAILURES,
            **failures(problems.UNAVAILABLE),
        },
        openapi_extra=body(CatalogueItem, one=ONE, batch=[ONE, {"item_id": "sku-8", "available": False}]),
    )
    async def publish(request: Request) -> Response:
        """One entry, or a list of them, each in place of the item's earlier one. Answered when the broker has them."""
        found = await read_json(request, max_bytes)
        return await parts.intake.take(
            ITEMS, found, lambda written, _place: read_item(written), lambda item: item.item_id
        )

    return routes
