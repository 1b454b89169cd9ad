"""Routes that answer people: what goes wrong is told on a page, not as JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from millrace.errors import MillraceError
from services.gateway.console.console import Console
from services.gateway.problems import Problem, as_dict, problem_of


def page_routes(console: Console, prefix: str = "") -> APIRouter:
    """A router for pages, which the description of the API does not have."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def answered(request: Request) -> Response:
                try:
                    return await answer(request)
                except RequestValidationError as error:
                    first = error.errors()[0]
                    return told("A value breaks its rule", f"{first['loc'][-1]}: {first['msg']}", 422)
                except (Problem, MillraceError) as error:
                    content = as_dict(problem_of(error))
                    detail = str(content.get("detail") or error)
                    if content["status"] == 500 and isinstance(error, MillraceError):
                        # Such an error is written for people; what it tells is not found, or not right.
                        return told("It cannot be shown", str(error), 404)
                    return told(str(content["title"]), detail, int(str(content["status"])))

            return answered

    def told(title: str, detail: str, status: int) -> Response:
        return console.renderer.page("problem.html", "", status, title=title, detail=detail)

    return APIRouter(prefix=prefix, include_in_schema=False, route_class=PageRoute)
