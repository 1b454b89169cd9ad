"""The description of the API, and a page to try it: Swagger UI from a package, nothing from other sites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from services.gateway.parts import Parts

# Name -> package and media type. Anything else of the packages is not served.
_ASSETS = {
    "swagger-ui-bundle.js": ("fastapi_swagger.resources", "text/javascript"),
    "swagger-ui.css": ("fastapi_swagger.resources", "text/css"),
    "favicon-32x32.png": ("fastapi_swagger.resources", "image/png"),
    "docs.js": ("services.gateway.pages", "text/javascript"),
}
# Swagger UI sets styles from its script, and has its pictures as data.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def router(parts: Parts) -> APIRouter:
    """The routes."""
    del parts
    routes = APIRouter(include_in_schema=False)
    page = files("services.gateway.pages").joinpath("docs.html").read_bytes()

    @routes.get("/docs")
    async def docs() -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    @routes.get("/openapi.json")
    async def description(request: Request) -> Response:
        return JSONResponse(request.app.openapi())

    for name, (package, kind) in _ASSETS.items():
        content = files(package).joinpath(name).read_bytes()
        routes.add_api_route(f"/docs/{name}", _asset(content, kind), methods=["GET"])

    return routes


def _asset(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def asset() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "public, max-age=3600"})

    return asset
