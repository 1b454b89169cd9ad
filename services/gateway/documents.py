"""The API's description (OpenAPI): what a route's answers, problems and body look like."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.gateway import problems
from services.gateway.problems import Kind
from services.gateway.schemas import described
from services.gateway.schemas.base import Problem, Sent

VERSION = "1"
DESCRIPTION = """For shops: publish what users do, ask what they should see. For operators: models and experiments.

Errors are `application/problem+json` (RFC 9457). Every answer carries `X-Request-ID`, yours if you send one. Times are
Unix milliseconds. Who may call is for what stands in front of the gateway to say: it lets everyone in."""
MODEL_HELP = "Registered model; empty: the one of the settings."
WAIT_HELP = "Longest wait for what comes of the command, milliseconds; it stands, whatever the wait."

_REF = "#/components/schemas/{model}"


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model.__name__)}


def body(model: type[BaseModel], *, one: object = None, batch: object = None, optional: bool = False) -> dict[str, Any]:
    """A route's body: an object, or a list of them if there is an example of a batch."""
    schema: dict[str, Any] = _ref(model)
    examples = {} if one is None else {"one": {"value": one}}
    if batch is not None:
        schema = {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}
        examples["batch"] = {"value": batch}
    content: dict[str, Any] = {"schema": schema} | ({"examples": examples} if examples else {})
    return {"requestBody": {"required": not optional, "content": {"application/json": content}}}


def header(name: str, description: str) -> dict[str, Any]:
    """One of a route's headers."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def answer(model: type[BaseModel], description: str, example: object = None) -> dict[str, Any]:
    """One of a route's answers."""
    content = {"schema": _ref(model)} | ({} if example is None else {"example": example})
    return {"description": description, "content": {"application/json": content}}


PENDING = answer(Sent, "It stands on its topic; nothing was heard of it in the time.")


def failures(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """A route's problems, by status."""
    return {
        kind.status: {
            "description": kind.title,
            "content": {problems.MEDIA_TYPE: {"schema": _ref(Problem)}},
        }
        for kind in kinds
    }


BODY_FAILURES = failures(
    problems.INVALID_JSON,
    problems.TOO_SLOW,
    problems.TOO_LARGE,
    problems.UNSUPPORTED_MEDIA_TYPE,
    problems.INVALID_FIELD,
)
"""Of every route that reads a body."""


def install(app: FastAPI) -> None:
    """Have the app describe itself so."""
    description: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not description:
            description.update(_described(app))
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _described(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title="Millrace", version=VERSION, description=DESCRIPTION, routes=app.routes)
    _, definitions = models_json_schema([(model, "validation") for model in described()], ref_template=_REF)
    found["components"] = {"schemas": definitions["$defs"]}
    return found
