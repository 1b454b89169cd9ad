"""What users do."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from millrace.events.jsonl import read_interaction
from millrace.events.rules import check_id
from millrace.topics import INTERACTIONS
from millrace.v1.interaction_pb2 import Interaction
from services.gateway import problems
from services.gateway.bodies import read_json
from services.gateway.documents import BODY_FAILURES, answer, body, failures, header
from services.gateway.intake import Written
from services.gateway.parts import Parts
from services.gateway.schemas.shop import Event, Taken

# Read by hand: declared as a parameter it would take as long as the rest of the reading.
KEY = "Idempotency-Key"
KEY_HELP = (
    "Makes it safe to send the request again: it is the `event_id` of an event without one. In a batch it is followed "
    "by a dot and the place of the event, from 0."
)
ONE = {"user_id": "anna", "item_id": "sku-7", "type": "click", "request_id": "0199c2f4a7e3"}
BATCH = [
    {"event_id": "e-1", "user_id": "anna", "item_id": "sku-7", "type": "view", "context": {"device": "phone"}},
    {"event_id": "e-2", "user_id": "anna", "item_id": "sku-7", "type": "purchase", "value": 89.0},
]
TAKEN = {"accepted": 1, "ids": ["019aab3d21c4f7d8a1b2c3d4e5f60718"], "failed": []}


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["shop"])
    max_bytes = parts.settings.gateway.body_max_kib * 1_024

    @routes.post(
        "/event",
        summary="Publish what users do",
        status_code=202,
        responses={
            202: answer(Taken, "The broker has all of it.", TAKEN),
            207: answer(Taken, "The broker has some of it; `failed` says which not, and why."),
            **BODY_FAILURES,
            **failures(problems.UNAVAILABLE),
        },
        openapi_extra=body(Event, one=ONE, batch=BATCH) | {"parameters": [header(KEY, KEY_HELP)]},
    )
    async def publish(request: Request) -> Response:
        """One event, or a list of them. The answer comes when the broker has them, on all replicas.

        From there they change features, learning, drift and experiments, each in its own time.
        """
        key = request.headers.get(KEY)
        if key is not None:
            check_id(KEY, key)
        found = await read_json(request, max_bytes)
        batch = isinstance(found, list)

        def read(written: Written, place: int) -> Interaction:
            if key is not None and not written.keys() & {"event_id", "eventId"}:
                written = {**written, "event_id": f"{key}.{place}" if batch else key}
            return read_interaction(written)

        return await parts.intake.take(INTERACTIONS, found, read, lambda event: event.event_id)

    return routes
