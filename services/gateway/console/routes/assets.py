"""Style, scripts and the picture in the browser's tab: ours, and nothing of other sites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from services.gateway.parts import Parts

_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOLDER = "services.gateway.console"


def router(parts: Parts) -> APIRouter:
    """A route for each file of the folder ``assets``, and the address that browsers ask for by themselves."""
    del parts
    routes = APIRouter(include_in_schema=False)
    folder = files(_FOLDER).joinpath("assets")
    icon = _asset(folder.joinpath("wheel.svg").read_bytes(), _KINDS["svg"])
    routes.add_api_route("/favicon.ico", icon, methods=["GET"])
    for file in folder.iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            path = f"/console/assets/{file.name}"
            routes.add_api_route(path, _asset(file.read_bytes(), kind), methods=["GET"])
    return routes


def _asset(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def asset() -> Response:
        # Asked for again each time: what is served changes with the version, and stands in memory.
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return asset
