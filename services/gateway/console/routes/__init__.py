"""The pages of the console, a module for each."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from services.gateway.console.routes import (
    assets,
    dead_letters,
    drift,
    experiments,
    learning,
    models,
    now,
    recommend,
    story,
    topics,
)
from services.gateway.parts import Parts

_PAGES = (assets, now, topics, story, recommend, learning, experiments, models, drift, dead_letters)


def routers(parts: Parts) -> Sequence[APIRouter]:
    """The routes of every page; none if the console is off."""
    if not parts.settings.gateway.console:
        return ()
    return [module.router(parts) for module in _PAGES]
