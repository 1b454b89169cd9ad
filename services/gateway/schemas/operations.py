"""What the gateway says of itself."""

from __future__ import annotations

from pydantic import BaseModel

from services.gateway.schemas.base import Told


class Health(BaseModel):
    """Which process it is."""

    process: str
    pid: int
    alive: bool


class Ready(Told):
    """Whether it does its work."""

    process: str
    ready: bool
    missing: list[str]
