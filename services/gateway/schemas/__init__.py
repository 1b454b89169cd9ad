"""The bodies as the API's description tells them. They describe: what is valid is said by ``millrace.events.rules``."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getmembers, isclass

from pydantic import BaseModel

from services.gateway.schemas import base, drift, experiments, models, operations, shop

__all__ = ["described"]


def described() -> Iterator[type[BaseModel]]:
    """Every body that the description tells of."""
    for module in (base, shop, experiments, models, drift, operations):
        for _, found in getmembers(module, isclass):
            if issubclass(found, BaseModel) and found.__module__ == module.__name__ and found.model_fields:
                yield found
