"""The pages of the console, a module for each."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from services.gateway.console.routes import assets, now, recommend, story, topics
from services.gateway.parts import Parts


def routers(parts: Parts) -> Sequence[APIRouter]:
    """The routes of every page; none if the console is off."""
    if not parts.settings.gateway.console:
        return ()
    return [module.router(parts) for module in (assets, now, topics, story, recommend)]
