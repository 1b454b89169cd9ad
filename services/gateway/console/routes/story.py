"""The story of an answer: what was shown, what the user did, what came of it, what was learned."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse, Response

from millrace.events.build import now_ms
from millrace.events.rules import check_id
from services.gateway.console.pages import page_routes
from services.gateway.console.rendering import HEADERS
from services.gateway.parts import Parts


def router(parts: Parts) -> APIRouter:
    """The page, and the same as a part of other pages."""
    console, settings = parts.console, parts.settings
    routes = page_routes(console)

    def told(request_id: str, user_id: str) -> dict[str, Any]:
        # What reads parameters is compiled when it is imported first; who starts a gateway need not wait for it.
        from millrace.story.plain import as_plain
        from millrace.story.search import StorySearch

        found = StorySearch(settings, lambda *_: None).find(request_id, user_id or None, now_ms())
        return as_plain(found, settings.joiner.attribution_window_ms, now_ms())

    @routes.get("/console/story")
    async def story(request_id: Annotated[str, Query(alias="request")], user: str = "", part: bool = False) -> Response:
        check_id("request", request_id)
        if user:
            check_id("user", user)
        plain = await console.read(lambda: told(request_id, user))
        if part:
            return HTMLResponse(console.renderer.fragment("story_part.html", story=plain), headers=dict(HEADERS))
        return console.renderer.page("story.html", "/console/topics", story=plain)

    return routes
