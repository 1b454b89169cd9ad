"""What the gateway says of itself: its description tells what is true, and its page needs no other site."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import ASGIApp

from millrace.events.build import CONTEXT_FIELDS, RequestFields
from millrace.events.jsonl import INTERACTION_KEYS, ITEM_KEYS
from millrace.v1 import experiment_pb2
from services.gateway.app import create_app
from services.gateway.schemas import experiments, shop
from tests.gateway_support import call, parts_nowhere

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = {
    "/api/v1/event": {"post"},
    "/api/v1/items": {"post"},
    "/api/v1/recommend": {"get", "post"},
    "/api/v1/mlops/online-learning/trigger": {"post"},
    "/api/v1/mlops/online-learning/status": {"get"},
    "/api/v1/mlops/experiments": {"get", "post"},
    "/api/v1/mlops/experiments/{experiment_id}": {"get"},
    "/api/v1/mlops/experiments/{experiment_id}/start": {"post"},
    "/api/v1/mlops/experiments/{experiment_id}/stop": {"post"},
    "/api/v1/mlops/drift": {"get"},
    "/api/v1/mlops/models": {"get"},
    "/api/v1/mlops/models/{version}/promote": {"post"},
    "/api/v1/mlops/models/rollback": {"post"},
    "/api/v1/mlops/retrain": {"post"},
    "/api/v1/mlops/retrain/status": {"get"},
    "/api/v1/users/{user_id}/features": {"get"},
    "/health": {"get"},
    "/ready": {"get"},
    "/metrics": {"get"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app() -> AsyncIterator[ASGIApp]:
    async with parts_nowhere() as parts:
        yield create_app(parts)


async def described(app: ASGIApp) -> Any:
    return (await call(app, "GET", "/openapi.json")).json


async def test_it_has_these_paths_and_no_others(app: ASGIApp) -> None:
    paths = (await described(app))["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == PATHS


async def test_every_reference_leads_somewhere(app: ASGIApp) -> None:
    document = await described(app)
    names = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert names <= set(document["components"]["schemas"])
    assert {"Event", "Problem", "Taken"} <= names


async def test_every_path_says_what_may_go_wrong(app: ASGIApp) -> None:
    for path, methods in (await described(app))["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            for status, answer in operation["responses"].items():
                if path.startswith("/api") and int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)


async def test_the_page_needs_no_other_site(app: ASGIApp) -> None:
    page = await call(app, "GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    text = page.body.decode()
    assert "//" not in text
    linked = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(linked) == 5
    for name in linked:
        found = await call(app, "GET", f"/{name}")
        assert found.status == 200, name
        assert found.body
    script = (await call(app, "GET", "/docs/docs.js")).body.decode()
    assert '"openapi.json"' in script
    assert "//" not in script


def names(message: str) -> set[str]:
    return set(experiment_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name)


async def test_bodies_are_described_with_the_fields_that_are_read() -> None:
    """Else the description would promise, or hide, what the code does."""
    assert set(shop.Event.model_fields) == INTERACTION_KEYS
    assert set(shop.CatalogueItem.model_fields) == ITEM_KEYS
    asked = RequestFields.__annotations__.keys() | {"user_id", "k"}
    assert set(shop.Question.model_fields) == asked
    assert set(shop.Asked.model_fields) == (asked - {"context"}) | set(CONTEXT_FIELDS)
    assert set(experiments.Definition.model_fields) - {"reason"} == names("ExperimentDefinition")
    assert set(experiments.Arm.model_fields) == names("Arm")
    assert set(experiments.Guardrails.model_fields) == names("Guardrails")
