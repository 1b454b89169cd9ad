"""The application: its routes, its errors, its description."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from services.gateway import documents, problems
from services.gateway.console import routes as pages
from services.gateway.front import Front
from services.gateway.parts import Parts
from services.gateway.routes import (
    docs,
    drift,
    events,
    experiments,
    items,
    learning,
    models,
    operations,
    recommend,
    retraining,
    users,
)

ROUTES = (
    events,
    items,
    recommend,
    experiments,
    learning,
    models,
    retraining,
    drift,
    users,
    operations,
    docs,
)


def create_app(parts: Parts) -> ASGIApp:
    """The application that answers with these parts."""
    # The pages that FastAPI brings load their scripts from other sites: ours are in routes/docs.py.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for module in ROUTES:
        app.include_router(module.router(parts))
    for routes in pages.routers(parts):
        app.include_router(routes)
    problems.install(app)
    documents.install(app)
    return Front(app, parts.settings.gateway.concurrent_max)
