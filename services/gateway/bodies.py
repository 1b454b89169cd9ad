"""Reads bodies: JSON, and no more of it than is allowed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from millrace.errors import InvalidField
from services.gateway.problems import (
    INCOMPLETE,
    INVALID_JSON,
    TOO_LARGE,
    TOO_SLOW,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
)

# Who is slower keeps a place among the requests under way from others. 4 MiB in this time are 3.4 Mbit/s.
_TIMEOUT_S = 10.0


async def read_json(request: Request, max_bytes: int) -> Any:
    """What the body holds. Raises Problem.

    Only JSON media types are taken: a page of another site cannot have a browser send one without asking first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(UNSUPPORTED_MEDIA_TYPE, f"the content type is {kind or 'missing'!r}; send application/json")
    body = await _read(request, max_bytes)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(INVALID_JSON, str(error)) from error


async def read_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """The object in the body; InvalidField if it is something else."""
    found = await read_json(request, max_bytes)
    if not isinstance(found, dict):
        raise InvalidField("body", f"a JSON {type(found).__name__}", "a JSON object")
    return found


async def read_optional(request: Request, max_bytes: int, known: frozenset[str]) -> dict[str, str]:
    """Texts in the object that the body may hold, by name; all are empty without one.

    Raises
    ------
    Problem, InvalidField
        It is no such object.
    """
    found: dict[str, Any] = {}
    if request.headers.get("content-type") or request.headers.get("content-length", "0") != "0":
        found = await read_object(request, max_bytes)
    for name, value in found.items():
        if name not in known:
            raise InvalidField(name, "unknown field", ", ".join(sorted(known)))
        if not isinstance(value, str):
            raise InvalidField(name, f"a JSON {type(value).__name__}", "text")
    return dict.fromkeys(known, "") | found


async def _read(request: Request, max_bytes: int) -> bytes:
    problem = Problem(TOO_LARGE, f"more than {max_bytes} bytes", max_bytes=max_bytes)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise problem
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise problem
                chunks.append(chunk)
    except TimeoutError as error:
        raise Problem(TOO_SLOW, f"{size} bytes came within {_TIMEOUT_S:g} s") from error
    except ClientDisconnect as error:
        raise Problem(INCOMPLETE, f"{size} bytes came") from error
    return b"".join(chunks)
