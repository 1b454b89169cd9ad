"""In front of every request: its id, its trace, a bound on how many are under way, and what is measured of it."""

from __future__ import annotations

import re
import time
import uuid
from typing import NamedTuple

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace.stream.tracing import TRACES, checked
from services.gateway import metrics
from services.gateway.problems import INTERNAL, OVERLOADED, Problem, respond

log = structlog.stdlib.get_logger(__name__)

HEADER = "X-Request-ID"
_METHODS = ("GET", "POST")
# Pages of the console and probes are no part of what happens to a click.
_TRACED = "/api/v1/"
# What comes back in a header and stands in logs: printable, no space, no more than a line.
_ACCEPTED = re.compile(rb"[\x21-\x7e]{1,128}")


class _Meters(NamedTuple):
    """Of one route, method and status."""

    requests: Counter
    seconds: Histogram


class Front:
    """An ASGI application around another one.

    A request is named by its own ``X-Request-ID`` if that is 1 to 128 printable characters without space, else by a
    new one; the answer carries it.

    Parameters
    ----------
    concurrent_max
        Most requests under way; more are answered with OVERLOADED.
    """

    def __init__(self, app: ASGIApp, concurrent_max: int) -> None:
        self._app = app
        self._concurrent_max = concurrent_max
        self._under_way = 0
        self._meters: dict[tuple[str, str, int], _Meters] = {}
        metrics.UNDER_WAY.set_function(lambda: self._under_way)
        metrics.UNDER_WAY_MAX.set(concurrent_max)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        began = time.perf_counter()
        request_id, given = _named(scope)
        scope["request_id"] = request_id
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        self._under_way += 1
        try:
            if self._under_way > self._concurrent_max:
                problem = Problem(OVERLOADED, f"{self._concurrent_max} requests are under way")
                await respond(problem, request_id)(scope, receive, sending)
            else:
                await self._traced(scope, receive, sending, given)
        finally:
            self._under_way -= 1
            # A caller may make paths and methods up; a label for each would have no bound.
            route = getattr(scope.get("route"), "path", "")
            method = scope["method"] if route and scope["method"] in _METHODS else ""
            meters = self._meters_of(route, method, status)
            meters.requests.inc()
            meters.seconds.observe(time.perf_counter() - began)

    def _meters_of(self, route: str, method: str, status: int) -> _Meters:
        """Kept, because looking labels up takes longer than counting."""
        found = self._meters.get((route, method, status))
        if found is None:
            found = self._meters[route, method, status] = _Meters(
                metrics.REQUESTS.labels(route, method, status or "none"), metrics.REQUEST_SECONDS.labels(route, method)
            )
        return found

    async def _traced(self, scope: Scope, receive: Receive, send: Send, given: bytes | None) -> None:
        """Answer, as a part of a trace."""
        if not scope["path"].startswith(_TRACED):
            await self._answer(scope, receive, send)
            return
        with TRACES.request(scope["method"], given) as span:
            if span is None:
                await self._answer(scope, receive, send)
                return

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._answer(scope, receive, sending)
            route = getattr(scope.get("route"), "path", "")
            span.update_name(f"{scope['method']} {route}".rstrip())
            span.set_attributes({"http.request.method": scope["method"], "http.route": route})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            # The application has answered with INTERNAL, and raises it again for whoever logs.
            log.exception(INTERNAL.title, method=scope["method"], path=scope["path"], request_id=scope["request_id"])


def _named(scope: Scope) -> tuple[str, bytes | None]:
    """The request's id, and the sampled trace context that it came with."""
    request_id, given = "", None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTED.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent":
            given = checked(value)
    return request_id or uuid.uuid4().hex, given
