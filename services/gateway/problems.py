"""Errors as RFC 9457 has them: ``application/problem+json``, with a type that programs can tell apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millrace.client import DeliveryFailed, RecommenderUnavailable
from millrace.errors import InfrastructureError, InvalidField

MEDIA_TYPE = "application/problem+json"
# A name and not an address: nothing has to be served there for programs to compare it.
_TYPE = "urn:problem-type:millrace:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of problem."""

    name: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """What stands in ``type``."""
        return _TYPE + self.name


INVALID_JSON = Kind("invalid-json", 400, "The body is not JSON")
FORBIDDEN = Kind("forbidden", 403, "Only a page of this console may ask for that")
NOT_FOUND = Kind("not-found", 404, "Nothing is known of it")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "The path has no such method")
TOO_SLOW = Kind("too-slow", 408, "The body did not come in time")
REFUSED = Kind("refused", 409, "The command was refused")
INCOMPLETE = Kind("incomplete", 400, "The client went away before the end of the body")
TOO_LARGE = Kind("too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body has to be application/json")
INVALID_FIELD = Kind("invalid-field", 422, "A value breaks its rule")
INTERNAL = Kind("internal", 500, "The gateway failed")
UNAVAILABLE = Kind("unavailable", 503, "A system does not answer")
OVERLOADED = Kind("overloaded", 503, "Too much is under way")
TIMEOUT = Kind("timeout", 504, "A system did not answer in time")

_BY_STATUS = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED, 413: TOO_LARGE, 415: UNSUPPORTED_MEDIA_TYPE}
_RETRY = {"Retry-After": "1"}
# A value that breaks a rule may be as long as the body.
_TEXT_MAX_CHARS = 500


class Problem(Exception):
    """Ends a request with an answer of this kind; further members of the answer by name."""

    def __init__(self, kind: Kind, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.kind = kind
        self.members: Mapping[str, object] = {"detail": detail, **members}


class ProblemResponse(JSONResponse):
    """The answer to a request that failed."""

    media_type = MEDIA_TYPE

    def render(self, content: object) -> bytes:
        """As ASCII: what was wrong may be text that no encoding takes."""
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def problem_of(error: Exception) -> Problem:
    """An error of ours as a problem; INTERNAL for one that nobody foresaw, which tells nothing of itself."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidField):
        field, problem, allowed = (_cut(text) for text in (error.field, error.problem, error.allowed))
        return Problem(
            INVALID_FIELD, f"{field}: {problem}; allowed: {allowed}", field=field, problem=problem, allowed=allowed
        )
    if isinstance(error, RecommenderUnavailable):
        kinds = {"RESOURCE_EXHAUSTED": OVERLOADED, "DEADLINE_EXCEEDED": TIMEOUT}
        return Problem(kinds.get(error.code, UNAVAILABLE), str(error), system="recommender")
    if isinstance(error, DeliveryFailed):
        return Problem(UNAVAILABLE, f"the broker did not take it: {error}", system="kafka")
    if isinstance(error, InfrastructureError):
        return Problem(UNAVAILABLE, str(error), system=error.system)
    return Problem(INTERNAL, "the gateway's log says more, by the request's id")


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAX_CHARS else f"{text[:_TEXT_MAX_CHARS]}…"


def as_dict(problem: Problem) -> dict[str, object]:
    """The members of the answer, without the request's id."""
    kind = problem.kind
    return {"type": kind.uri, "title": kind.title, "status": kind.status, **problem.members}


def respond(problem: Problem, request_id: str) -> ProblemResponse:
    """The answer."""
    headers = _RETRY if problem.kind in (UNAVAILABLE, OVERLOADED, TIMEOUT) else None
    return ProblemResponse(as_dict(problem) | {"request_id": request_id}, problem.kind.status, headers=headers)


def install(app: FastAPI) -> None:
    """Have every error of the app answered so."""

    async def ours(request: Request, error: Exception) -> ProblemResponse:
        return respond(problem_of(error), request.scope["request_id"])

    async def of_parameters(request: Request, error: Exception) -> ProblemResponse:
        """What a query or a header got wrong; the first is told apart, for one at a time is mended."""
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        field = str(first["loc"][-1])
        problem = Problem(INVALID_FIELD, f"{field}: {first['msg']}", field=field, problem=first["msg"])
        return respond(problem, request.scope["request_id"])

    async def of_http(request: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, HTTPException)
        kind = _BY_STATUS.get(error.status_code) or Kind("http", error.status_code, "The request was not understood")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        answer = respond(Problem(kind, detail), request.scope["request_id"])
        answer.headers.update(error.headers or {})
        return answer

    for kind in (Problem, InvalidField, RecommenderUnavailable, DeliveryFailed, InfrastructureError, Exception):
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(RequestValidationError, of_parameters)
    app.add_exception_handler(HTTPException, of_http)
