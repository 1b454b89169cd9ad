"""The gateway's edges, with nothing behind it: what is refused is refused before anything else is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from millrace.events.jsonl import read_interaction
from millrace.settings import GatewaySettings
from millrace.topics import INTERACTIONS
from services.gateway import bodies, problems
from services.gateway.app import create_app
from services.gateway.front import Front
from services.gateway.intake import Intake
from services.gateway.parts import Parts
from tests.gateway_support import GONE, JSON, SILENCE, Answer, call, parts_nowhere

EVENT = b'{"user_id": "ann", "item_id": "shoe"}'
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts() -> AsyncIterator[Parts]:
    async with parts_nowhere() as made:
        yield made


@pytest.fixture(scope="module")
def app(parts: Parts) -> ASGIApp:
    return create_app(parts)


def is_problem(answer: Answer, kind: problems.Kind) -> bool:
    """Whether it is an answer as RFC 9457 has it, of this kind, with the request's id."""
    assert (answer.status, answer.json.get("type")) == (kind.status, kind.uri), answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    return True


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"user_id": 1' + b"0" * 5_000 + b"}"])
async def test_what_is_no_json_is_said_to_be_none(app: ASGIApp, body: bytes) -> None:
    for path in ("/api/v1/event", "/api/v1/items", "/api/v1/recommend", "/api/v1/mlops/experiments"):
        assert is_problem(await call(app, "POST", path, body, JSON), problems.INVALID_JSON)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_page_of_another_site_cannot_post(app: ASGIApp, kind: str) -> None:
    answer = await call(app, "POST", "/api/v1/event", EVENT, {"content-type": kind} if kind else {})
    assert is_problem(answer, problems.UNSUPPORTED_MEDIA_TYPE)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("3", "body"),
        ("null", "body"),
        ('"text"', "body"),
        ("[]", "body"),
        ("{}", "user_id"),
        ('{"user_id": 7, "item_id": "shoe"}', "user_id"),
        ('{"user_id": "ann", "item_id": ["shoe"]}', "item_id"),
        ('{"user_id": "ann", "item_id": "shoe", "type": "stare"}', "type"),
        ('{"user_id": "ann", "item_id": "shoe", "type": {}}', "type"),
        ('{"user_id": "ann", "item_id": "shoe", "value": NaN}', "value"),
        ('{"user_id": "ann", "item_id": "shoe", "value": 1e999}', "value"),
        ('{"user_id": "ann", "item_id": "shoe", "occurred_at": "soon"}', "occurred_at"),
        ('{"user_id": "ann", "item_id": "shoe", "occurred_at_ms": 9000000000000}', "occurred_at_ms"),
        ('{"user_id": "ann", "item_id": "shoe", "context": []}', "context"),
        ('{"user_id": "a\\nb", "item_id": "shoe"}', "user_id"),
        ('{"user_id": "\\ud800", "item_id": "shoe"}', "user_id"),
        ('{"user_id": "ann", "item_id": "shoe", "\\ud800": 1}', "\ud800"),
        (json.dumps({"user_id": "x" * 257, "item_id": "shoe"}), "user_id"),
    ],
)
async def test_an_event_that_breaks_a_rule_is_named_by_its_field(app: ASGIApp, body: str, field: str) -> None:
    answer = await call(app, "POST", "/api/v1/event", body.encode(), JSON)
    assert is_problem(answer, problems.INVALID_FIELD)
    assert answer.json["field"] == field
    assert answer.json["allowed"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"item_id": "shoe", "price": -1}, "price"),
        ({"item_id": "shoe", "tags": "red"}, "tags"),
        ({"item_id": "shoe", "available": "no"}, "available"),
        ({"item_id": ""}, "item_id"),
    ],
)
async def test_so_is_an_item(app: ASGIApp, body: object, field: str) -> None:
    answer = await call(app, "POST", "/api/v1/items", json.dumps(body).encode(), JSON)
    assert is_problem(answer, problems.INVALID_FIELD)
    assert answer.json["field"] == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"user_id": ["ann"]}, "user_id"),
        ({"user_id": "ann", "k": 0}, "k"),
        ({"user_id": "ann", "k": 10**30}, "k"),
        ({"user_id": "ann", "k": "many"}, "k"),
        ({"user_id": "ann", "exclude": "shoe"}, "exclude"),
        ({"user_id": "ann", "exclude": [7]}, "exclude_item_ids[0]"),
        ({"user_id": "ann", "context": "phone"}, "context"),
        ({"user_id": "ann", "context": {"device": 7}}, "context.device"),
        ({"user_id": "ann", "repeats": ["learned"]}, "repeats"),
        ({"user_id": "ann", "repeats": "never"}, "repeat_policy"),
        ({"user_id": "ann", "viewport": -1}, "viewport"),
        ({"user_id": "ann", "as_of": {}}, "as_of"),
        ({"user_id": "ann", "top": 3}, "top"),
    ],
)
async def test_so_is_a_question(app: ASGIApp, body: object, field: str) -> None:
    answer = await call(app, "POST", "/api/v1/recommend", json.dumps(body).encode(), JSON)
    assert is_problem(answer, problems.INVALID_FIELD)
    assert answer.json["field"] == field


@pytest.mark.parametrize(
    ("query", "field"),
    [("", "user_id"), ("user_id=ann&k=many", "k"), ("user_id=ann&k=201", "k"), ("user_id=%00", "user_id")],
)
async def test_so_is_a_question_in_an_address(app: ASGIApp, query: str, field: str) -> None:
    answer = await call(app, "GET", f"/api/v1/recommend?{query}")
    assert is_problem(answer, problems.INVALID_FIELD)
    assert answer.json["field"] == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"experiment_id": ""}, "experiment_id"),
        ({"arms": 3}, "definition"),
        ({"arms": [{"name": "a", "share": 1.0, "control": True}]}, "arms"),
        ({"traffic": "NaN"}, "traffic"),
        ({"traffic": 2}, "traffic"),
        ({"no_such_field": 1}, "definition"),
        ({"policy": "BY_CHANCE"}, "definition"),
        ({"alpha": 1e308}, "alpha"),
        ({"minimum_users": -1}, "definition"),
    ],
)
async def test_so_is_an_experiment(app: ASGIApp, change: dict[str, object], field: str) -> None:
    arms = [{"name": "a", "share": 0.5, "control": True}, {"name": "b", "share": 0.5, "model_version": "2"}]
    body = {"experiment_id": "new", "traffic": 0.5, "arms": arms} | change
    answer = await call(app, "POST", "/api/v1/mlops/experiments", json.dumps(body).encode(), JSON)
    assert answer.status == 422, answer.body
    assert answer.json["field"].startswith(field)


async def test_a_body_of_ten_megabytes_is_refused_without_being_read(app: ASGIApp) -> None:
    told = await call(app, "POST", "/api/v1/event", b" " * 10_000_000, JSON)
    assert is_problem(told, problems.TOO_LARGE)
    assert told.pieces_read == 0

    def pieces() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * 1_000_000

    untold = await call(app, "POST", "/api/v1/event", pieces(), JSON)
    assert is_problem(untold, problems.TOO_LARGE)
    assert untold.pieces_read == 5, "4 MiB and what shows that there is more"


async def test_a_body_that_does_not_come_is_not_waited_for(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_TIMEOUT_S", 0.05)
    assert is_problem(await call(app, "POST", "/api/v1/event", [b"{", SILENCE], JSON), problems.TOO_SLOW)
    assert is_problem(await call(app, "POST", "/api/v1/event", [b"{", GONE], JSON), problems.INCOMPLETE)


async def test_more_events_than_a_batch_takes_are_refused(app: ASGIApp) -> None:
    answer = await call(app, "POST", "/api/v1/event", b"[" + b",".join([b"{}"] * 10_001) + b"]", JSON)
    assert is_problem(answer, problems.INVALID_FIELD)
    assert (answer.json["problem"], answer.json["allowed"]) == ("10001 entries", "1 to 10000")


async def test_a_batch_of_which_nothing_is_valid_says_so_of_each(app: ASGIApp) -> None:
    answer = await call(app, "POST", "/api/v1/event", b'[{}, 3, {"user_id": "ann"}]', JSON)
    assert is_problem(answer, problems.INVALID_FIELD)
    assert [(one["index"], one["field"]) for one in answer.json["failed"]] == [
        (0, "user_id"),
        (1, "body"),
        (2, "item_id"),
    ]


@pytest.mark.parametrize("key", ["", "a\r\nX-Other: 1", "a\x00b", "x" * 257, "\x85"])
async def test_a_key_that_is_no_id_is_refused(app: ASGIApp, key: str) -> None:
    answer = await call(app, "POST", "/api/v1/event", EVENT, {**JSON, "Idempotency-Key": key})
    assert is_problem(answer, problems.INVALID_FIELD)
    assert answer.json["field"] == "Idempotency-Key"
    assert "x-other" not in answer.headers


@pytest.mark.parametrize("given", ["", "a b", "a\r\nSet-Cookie: x", "x" * 129, "ü"])
async def test_a_request_id_that_could_do_harm_is_replaced(app: ASGIApp, given: str) -> None:
    answer = await call(app, "GET", "/health", headers={"X-Request-ID": given})
    assert answer.status == 200
    assert answer.headers["x-request-id"].isalnum()
    assert "set-cookie" not in answer.headers


async def test_a_request_id_comes_back(app: ASGIApp) -> None:
    for path in ("/health", "/nowhere"):
        answer = await call(app, "GET", path, headers={"X-Request-ID": "trace-1/2"})
        assert answer.headers["x-request-id"] == "trace-1/2"


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/docs/..%2F..%2Fpyproject.toml",
        "/docs/%2e%2e/%2e%2e/app.py",
        "/docs/__init__.py",
        "/api/v1/users//features/..",
        "/api/v1/mlops/experiments/..%2F..%2Fetc%2Fpasswd",
    ],
)
async def test_paths_lead_nowhere_else(app: ASGIApp, path: str) -> None:
    assert is_problem(await call(app, "GET", path), problems.NOT_FOUND)


async def test_a_method_that_a_path_has_not(app: ASGIApp) -> None:
    answer = await call(app, "PUT", "/api/v1/event", EVENT, JSON)
    assert is_problem(answer, problems.METHOD_NOT_ALLOWED)
    assert answer.headers["allow"] == "POST"


async def test_who_does_not_answer_is_named(app: ASGIApp) -> None:
    for method, path, system in (
        ("POST", "/api/v1/event", "kafka"),
        ("GET", "/api/v1/recommend?user_id=ann", "recommender"),
        ("GET", "/api/v1/users/ann/features", "redis"),
    ):
        answer = await call(app, method, path, EVENT if method == "POST" else b"", JSON if method == "POST" else {})
        assert answer.status in (503, 504), answer.body
        assert answer.json["system"] == system
        assert answer.headers["retry-after"] == "1"


async def test_it_is_not_ready_without_a_broker(app: ASGIApp) -> None:
    answer = await call(app, "GET", "/ready")
    assert answer.status == 503
    assert answer.json["missing"] == [
        "view of records is not read yet (kafka)",
        "view of drift is not read yet (kafka)",
        "view of signals is not read yet (kafka)",
        "view of updates is not read yet (kafka)",
        "view of drift is not read yet (kafka)",
    ]


async def test_what_nobody_foresaw_is_logged_and_tells_nothing_of_itself(parts: Parts, app: ASGIApp) -> None:
    before, parts.views.experiments = parts.views.experiments, None  # type: ignore[assignment]
    try:
        with structlog.testing.capture_logs() as logged:
            answer = await call(app, "GET", "/api/v1/mlops/experiments")
    finally:
        parts.views.experiments = before
    assert is_problem(answer, problems.INTERNAL)
    assert "None" not in answer.json["detail"]
    assert [(one["log_level"], one["path"]) for one in logged] == [("error", "/api/v1/mlops/experiments")]


async def test_more_requests_than_it_bears_are_refused_at_once() -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await released.wait()
        await Response("done")(scope, receive, send)

    front = Front(slow, concurrent_max=1)
    first = asyncio.ensure_future(call(front, "GET", "/health"))
    await entered.wait()
    second = await call(front, "GET", "/health")
    assert is_problem(second, problems.OVERLOADED)
    assert second.headers["retry-after"] == "1"
    released.set()
    assert (await first).status == 200
    assert (await call(front, "GET", "/health")).status == 200


async def test_more_events_than_may_wait_are_refused_at_once(parts: Parts) -> None:
    small = Intake(parts.events, GatewaySettings(events_pending_max=2))
    entries = [json.loads(EVENT)] * 3
    with pytest.raises(problems.Problem) as refused:
        await small.take(INTERACTIONS, entries, lambda written, _: read_interaction(written), lambda one: one.event_id)
    assert refused.value.kind is problems.OVERLOADED
