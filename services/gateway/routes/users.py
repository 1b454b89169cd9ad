"""What is known of a user, and its end."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from millrace.errors import InfrastructureError
from millrace.events.build import interaction, now_ms
from millrace.events.rules import check_id
from millrace.features.as_json import user_as_dict
from millrace.stream.retention import logs_end
from millrace.topics import INTERACTIONS
from services.gateway import problems
from services.gateway.documents import answer, failures
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, Problem
from services.gateway.schemas.shop import Forgotten, UserFeatures


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/users", tags=["shop"])

    @routes.get(
        "/{user_id:path}/features",
        summary="A user's features, and how stale they are",
        responses={
            200: answer(UserFeatures, "What the next answer for this user goes by."),
            **failures(problems.NOT_FOUND, problems.INVALID_FIELD, problems.UNAVAILABLE),
        },
    )
    async def features(user_id: str) -> Response:
        """`staleness_ms` is how long the oldest event of the user waits on the log that the features do not include.

        It is 0 when they include everything, and null while the log cannot be asked.
        """
        check_id("user_id", user_id)
        state = await parts.features.read(user_id)
        if state is None:
            raise Problem(NOT_FOUND, f"nothing is known of user {user_id!r}")
        staleness_ms, problem = None, ""
        try:
            waits_since_ms = await asyncio.to_thread(parts.backlog.oldest_ms, user_id, state.known)
            staleness_ms = 0 if waits_since_ms is None else max(0, now_ms() - waits_since_ms)
        except InfrastructureError as error:
            problem = str(error)
        shown = user_as_dict(user_id, state, now_ms(), parts.settings.features.user_half_life_ms)
        return JSONResponse(shown | {"staleness_ms": staleness_ms, "staleness_problem": problem or None})

    @routes.delete(
        "/{user_id:path}",
        summary="Forget a person",
        status_code=202,
        responses={
            202: answer(Forgotten, "The broker has the FORGET event."),
            **failures(problems.INVALID_FIELD, problems.UNAVAILABLE),
        },
    )
    async def forget(user_id: str) -> Response:
        """Sends FORGET: features go as soon as it is read, which takes milliseconds.

        What the person did before is joined no more, and no training learns it any more; what was learned already
        stays in the weights, which name nobody. The logs end by retention, and the answer says when. Harmless when
        repeated, and for people of whom nothing is known.
        """
        event = interaction(user_id, "", "forget")
        await parts.intake.put(INTERACTIONS, event)
        ends = logs_end(parts.settings.kafka, now_ms())
        return JSONResponse({"user_id": user_id, "event_id": event.event_id, "logs_end_ms": dict(ends)}, 202)

    return routes
