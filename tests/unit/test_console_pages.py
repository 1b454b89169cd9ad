"""The console's pages with nothing behind them: what a browser is told, what is escaped, who may change something."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from starlette.types import ASGIApp

from millrace.stream.worker import Record
from millrace.topics import INTERACTIONS
from millrace.v1.experiment_pb2 import Arm, Experiment, ExperimentDefinition, ExperimentState
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from services.gateway.app import create_app
from services.gateway.console.rendering import (
    PAGES,
    POLICY,
)
from services.gateway.console.sse import Event, Viewers
from services.gateway.console.tail import FIRST_ROWS, Tail
from services.gateway.parts import Parts
from services.gateway.problems import Problem
from tests.gateway_support import Answer, call, parts_nowhere

HOSTILE = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
HOST = {"host": "console.example", "origin": "http://console.example"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts() -> AsyncIterator[Parts]:
    async with parts_nowhere() as made:
        made.views.apply(
            [
                _record(event("REGISTERED", "1", reason=HOSTILE)),
                _record(event("PROMOTED", "1", reason=HOSTILE)),
                _record(event("REGISTERED", "2", figures={"better.gain": 0.1})),
                _record(event("REJECTED", "3", reason=HOSTILE)),
                _record(Experiment(definition=definition(), state=ExperimentState.EXPERIMENT_STATE_DRAFT)),
            ]
        )
        yield made


@pytest.fixture(scope="module")
def app(parts: Parts) -> ASGIApp:
    return create_app(parts)


def event(kind: str, version: str, reason: str = "", figures: dict[str, float] | None = None) -> ModelEvent:
    return ModelEvent(
        event_id=f"{kind} {version}",
        model_name="ranker",
        model_version=version,
        type=ModelEventType.Value(f"MODEL_EVENT_TYPE_{kind}"),
        reason=reason,
        figures=figures,
    )


def definition() -> ExperimentDefinition:
    arms = [Arm(name=HOSTILE, share=0.5, control=True), Arm(name="other", share=0.5, model_version="2")]
    return ExperimentDefinition(experiment_id=f"a/{HOSTILE}", description=HOSTILE, model_name="ranker", arms=arms)


def _record(message: object, offset: int = 0) -> Record:
    return Record(INTERACTIONS.name, 0, offset, b"key", message, 1_000 + offset, (), b"")  # type: ignore[arg-type]


def is_page(answer: Answer) -> str:
    """The page, which allows no script, style or address but ours, and holds none that would need it."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    text = answer.body.decode()
    assert "<script>" not in text
    assert not re.search(r"""\son\w+=|\sstyle=|javascript:|(?:src|href|action)=["'](?:https?:)?//""", text)
    return text


@pytest.mark.parametrize("path", ["/", "/console/recommend", "/console/topics", "/console/learning"])
async def test_pages_come_whole_with_nothing_behind_them(app: ASGIApp, path: str) -> None:
    answer = await call(app, "GET", path)
    assert answer.status == 200
    text = is_page(answer)
    assert text.count("<h1") == 1
    assert text.count('aria-current="page"') == 1
    for address, name in PAGES:
        assert f'<a href="{address}"' in text
        assert name in text


async def test_what_a_page_loads_is_served(app: ASGIApp) -> None:
    page = (await call(app, "GET", "/")).body.decode()
    loaded = set(re.findall(r'(?:src|href)="(/console/assets/[^"]+)"', page))
    assert len(loaded) == 3
    for path in (*loaded, "/favicon.ico", *(f"/console/assets/{name}.js" for name in ("charts", "tail", "recommend"))):
        assert (await call(app, "GET", path)).status == 200, path
    assert (await call(app, "GET", "/console/assets/..%2Fconsole.py")).status == 404


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/console/topics/nothing", 404, "no topic"),
        ("/console/topics/items?partition=x&at=1", 422, "a whole number from 0"),
        ("/console/topics/items?offset=1", 422, "the number of the partition"),
        ("/console/topics/items/one/2", 422, "partition"),
        ("/console/experiments/none", 404, "no experiment"),
        ("/console/models/confirm?action=burn", 422, "promote or rollback"),
        ("/console/models/confirm?action=promote&version=9", 404, "no version"),
        ("/console/models/confirm?action=promote&version=3", 404, "failed a gate"),
        ("/console/models/confirm?action=rollback", 404, "no earlier champion"),
        ("/console/models/confirm?action=rollback&checkpoint=1.2", 404, "not kept"),
        ("/console/dead-letters/item-state/0/0", 404, "no topic"),
        ("/console/recommend?user=anna", 504, "recommender"),
        ("/console/topics/%3Cscript%3E", 404, "&lt;script&gt;"),
    ],
)
async def test_what_goes_wrong_is_told_on_a_page(app: ASGIApp, path: str, status: int, told: str) -> None:
    answer = await call(app, "GET", path)
    assert answer.status == status
    assert told in is_page(answer)


async def test_what_comes_from_outside_is_escaped(app: ASGIApp) -> None:
    for path in ("/console/models", "/console/experiments"):
        assert ESCAPED in is_page(await call(app, "GET", path))
    text = is_page(await call(app, "GET", f"/console/topics/items?user={HOSTILE}&kind=%22%3E"))
    assert f'value="{ESCAPED}"' in text
    assert "&#34;&gt;" in text
    # In the address of the stream too.
    assert "user=%3Cscript%3E" in text


async def test_a_promotion_is_asked_for_twice(app: ASGIApp) -> None:
    text = is_page(await call(app, "GET", "/console/models/confirm?action=promote&version=2"))
    assert "Promote version 2?" in text
    assert 'method="post" action="/console/models/act"' in text
    assert "in place of version 1" in text


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "console.example"},
        {"host": "console.example", "origin": "http://evil.example"},
        {"host": "console.example", "origin": "null"},
        {"host": "console.example", "origin": "http://console.example.evil.example"},
        {**HOST, "sec-fetch-site": "cross-site"},
        {**HOST, "sec-fetch-site": "same-site"},
    ],
)
async def test_a_page_of_another_site_changes_nothing(app: ASGIApp, headers: dict[str, str]) -> None:
    for path, body in (
        ("/console/models/act", b"action=promote&version=2"),
        ("/console/recommend/deed", b"user=a&item=b&kind=click"),
    ):
        answer = await call(app, "POST", path, body, {**headers, **FORM})
        assert answer.status == 403
        assert "not from a page of" in is_page(answer)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/console/models/act", b"action=burn", 422),
        ("/console/models/act", b"action=promote&version=9", 404),
        ("/console/models/act", b"x" * 20_000, 413),
        ("/console/recommend/deed", b"user=a&item=b&kind=forget", 422),
        ("/console/recommend/deed", b"user=&item=b&kind=click", 422),
    ],
)
async def test_forms_that_are_wrong(app: ASGIApp, path: str, body: bytes, status: int) -> None:
    answer = await call(app, "POST", path, body, {**HOST, **FORM, "sec-fetch-site": "same-origin"})
    assert answer.status == status
    is_page(answer)
    assert (await call(app, "POST", path, b"{}", {**HOST, "content-type": "application/json"})).status == 415


async def test_the_console_can_be_off(app: ASGIApp) -> None:
    async with parts_nowhere(console=False) as made:
        without = create_app(made)
        for path in ("/", "/console/topics", "/console/assets/console.css"):
            assert (await call(without, "GET", path)).status == 404
        assert (await call(without, "GET", "/health")).status == 200


async def test_only_so_many_pages_are_kept_up_to_date() -> None:
    viewers = Viewers(1)
    sent: list[str] = []

    async def events() -> AsyncIterator[Event | None]:
        while True:
            yield "one", {"text": "line\nline"}
            yield None

    body = viewers.stream(events()).body_iterator  # type: ignore[attr-defined]
    sent = [await anext(body), await anext(body)]
    assert sent[1] == 'event: one\ndata: {"text":"line\\nline"}\n\n'
    with pytest.raises(Problem):
        viewers.stream(events())
    viewers.stopping = True
    assert [one async for one in body] == []
    viewers.stopping = False
    viewers.stream(events())


async def test_a_tail_shows_what_can_be_followed_and_counts_the_rest(parts: Parts) -> None:
    from services.gateway.console.messages import Wanted

    tail = Tail(parts.settings, INTERACTIONS, Wanted(user="ann"), None)
    for user in ("ann", "ben"):
        tail.take([_record(Interaction(user_id=user, item_id=HOSTILE), offset) for offset in range(500)])
    shown = tail.drain(10)
    assert (shown["seen"], shown["matched"], shown["left_out"]) == (1_000, 500, 490)
    assert [row["offset"] for row in shown["rows"]] == list(range(490, 500))
    assert tail.drain(10)["rows"] == []
    tail.take([_record(Interaction(user_id="ann"), offset) for offset in range(500)])
    assert len(tail.drain(1_000)["rows"]) == FIRST_ROWS
    await asyncio.sleep(0)
