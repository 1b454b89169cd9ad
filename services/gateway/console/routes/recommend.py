"""*Recommend*: what a user would see, why, and what a click changes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from millrace.client import Recommendation
from millrace.errors import InfrastructureError, InvalidField
from millrace.events.build import now_ms
from millrace.events.jsonl import read_interaction
from millrace.events.rules import check_id
from millrace.features.as_json import user_as_dict
from millrace.topics import IMPRESSIONS
from millrace.v1.impression_pb2 import Impression
from services.gateway.console.origin import read_form
from services.gateway.console.pages import page_routes
from services.gateway.console.reading import Found, Place, read_piece
from services.gateway.console.rendering import HEADERS
from services.gateway.console.weights import Explained, explain
from services.gateway.parts import Parts

K = 8
"""Items of an answer: what fits on a screen with its reasons."""
DEEDS = {"click": "clicked", "dislike": "did not want"}
LATELY = 12
"""Users who are offered to be looked at."""
# The features that a click leads to come within milliseconds.
_LOOK_EVERY_S = 0.002


def router(parts: Parts) -> APIRouter:
    """The page, and what a click in it does."""
    console, settings = parts.console, parts.settings
    routes = page_routes(console, "/console/recommend")

    @routes.get("")
    async def page(user: str = "") -> Response:
        if not user:
            return console.renderer.page("recommend.html", "/console/recommend", user="", lately=await lately())
        check_id("user", user)
        values = await answered(user, ())
        return console.renderer.page("recommend.html", "/console/recommend", **values)

    @routes.post("/deed")
    async def deed(request: Request) -> Response:
        """The user does something with an item of an answer: a real event. Then the next answer, and what changed."""
        form = await read_form(request)
        user, item, kind = (form.get(name, "") for name in ("user", "item", "kind"))
        if kind not in DEEDS:
            raise InvalidField("kind", repr(kind), ", ".join(DEEDS))
        written = {"user_id": user, "item_id": item, "type": kind, "request_id": form.get("request", "")}
        event = read_interaction(written)
        before = await parts.features.read(user)
        began_s = time.perf_counter()
        for problem in (await parts.events.deliver([event])).values():
            raise problem
        acknowledged_s = time.perf_counter()
        known = await taken_in(user, before.known if before else None)
        counted_s = time.perf_counter()
        values = await answered(user, shown_before(form.get("shown", "[]")))
        values["deed"] = {
            "words": DEEDS[kind],
            "item": (await parts.features.items([item])).get(item),
            "item_id": item,
            "acknowledged_ms": (acknowledged_s - began_s) * 1_000,
            "known": known,
            "counted_ms": (counted_s - began_s) * 1_000,
            "answered_ms": (counted_s - began_s) * 1_000 + values["answer"].serve_micros / 1_000,
        }
        if request.headers.get("x-part"):
            return HTMLResponse(console.renderer.fragment("recommend_answer.html", **values), headers=dict(HEADERS))
        return console.renderer.page("recommend.html", "/console/recommend", **values)

    async def taken_in(user: str, before: object) -> bool:
        """Wait until what is known of the user moves; False if it does not in time."""
        give_up = time.monotonic() + settings.gateway.delivery_timeout_ms / 1_000
        while time.monotonic() < give_up:
            state = await parts.features.read(user)
            if state is not None and state.known != before:
                return True
            await asyncio.sleep(_LOOK_EVERY_S)
        return False

    async def answered(user: str, shown: Sequence[str]) -> dict[str, Any]:
        """An answer as the template shows it."""
        answer = await parts.recommender.recommend(user, K, explain=True)
        catalogue = await parts.features.items([one.item_id for one in answer.items])
        state = await parts.features.read(user)
        why = await explanations(answer)
        places = {item_id: place for place, item_id in enumerate(shown, 1)}
        here = {one.item_id for one in answer.items}
        return {
            "user": user,
            "lately": (),
            "answer": answer,
            "known": state and user_as_dict(user, state, now_ms(), parts.settings.features.user_half_life_ms),
            "items": [
                {
                    "item": one,
                    "entry": catalogue.get(one.item_id),
                    "why": why.get(one.item_id),
                    "was": places.get(one.item_id),
                    "new": bool(shown) and one.item_id not in places,
                }
                for one in answer.items
            ],
            "gone": [item_id for item_id in shown if item_id not in here],
            "shown": json.dumps([one.item_id for one in answer.items]),
            "deed": None,
        }

    async def explanations(answer: Recommendation) -> Mapping[str, Explained]:
        """Of each item, why it has its score; empty if no parameters are published."""
        ledger = parts.views.ledgers.get(answer.model_name)
        if ledger is None or ledger.reign is None or not answer.feature_names:
            return {}
        async with console.weights.watched.looking():
            line = console.weights.line(ledger.reign.event_id)
        if line is None or tuple(line.template.feature_names) != tuple(answer.feature_names):
            return {}
        model = line.model()
        return {one.item_id: explain(model, one.features, one.score) for one in answer.items}

    async def lately() -> Sequence[str]:
        """Users who were answered just now."""

        def answers(found: Found) -> bool:
            return isinstance(found.record.message, Impression)

        try:
            piece = await console.read(lambda: read_piece(settings, IMPRESSIONS, Place(newest=20), 100, answers))
        except InfrastructureError:
            # The page is of use without.
            return ()
        users = [one.record.message.user_id for one in reversed(piece.found)]
        return list(dict.fromkeys(users))[:LATELY]

    return routes


def shown_before(text: str) -> list[str]:
    """The items of the answer that the deed was done with. Raises InvalidField."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidField("shown", str(error), "a JSON list of item ids") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidField("shown", "something else", "a JSON list of item ids")
    return found[:K]
