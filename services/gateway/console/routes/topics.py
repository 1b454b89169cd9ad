"""*Topics*: messages as they come, or from a place on; one message whole."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from millrace.topics import ALL, BY_NAME, INTERACTIONS, Topic
from millrace.v1.interaction_pb2 import Interaction
from services.gateway.console.asked import AGO_MS, FILTERS, Asked
from services.gateway.console.change import change_of
from services.gateway.console.messages import Wanted, gist, written
from services.gateway.console.pages import page_routes
from services.gateway.console.reading import Found, Place, read_piece
from services.gateway.console.tail import Tail, row_of
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, Problem

ROWS = 50
"""Of a look at a place."""
ABOUT = {
    "interactions": "What users do: views, clicks, purchases.",
    "items": "The catalogue: titles, prices, what may be recommended.",
    "impressions": "Every answer of the recommender, with the features that its scores were made of.",
    "outcomes": "What became of each item shown: clicked, not clicked, not seen.",
    "item-state": "What is known of each item: counts, popularity, neighbours.",
    "model-updates": "The weights of the model, as they are learned.",
    "model-events": "The life of model versions: registered, promoted, rolled back.",
    "drift-signals": "Evidence that the world is not what the model was made for.",
    "outcome-joiner-changelog": "What the outcome joiner needs to start again.",
    "commands": "What people and programs asked for: promote, roll back, start, stop.",
    "experiments": "Definition, figures and decision of each experiment.",
    "experiment-tracker-changelog": "What the experiment tracker needs to start again.",
    "drift-detector-changelog": "What the drift detector needs to start again.",
}


def router(parts: Parts) -> APIRouter:
    """The pages, and the stream of a topic."""
    routes = page_routes(parts.console, "/console/topics")
    console, settings = parts.console, parts.settings

    @routes.get("")
    async def first() -> Response:
        return show(INTERACTIONS, Asked())

    @routes.get("/{name}")
    async def topic(name: str, asked: Annotated[Asked, Query()]) -> Response:
        found = known(name)
        place = asked.place()
        if place is None:
            return show(found, asked)
        wanted, number, key = asked.wanted, asked.number(), key_of(found, asked.wanted)
        piece = await console.read(
            lambda: read_piece(
                settings, found, place, ROWS, lambda one: wanted.takes(gist(one.record.message)), number, key
            )
        )
        rows = [row_of(one.record, gist(one.record.message)) | {"problem": one.problem} for one in piece.found]
        return show(found, asked, rows=rows, piece=piece, later=asked.later(found.name, piece))

    @routes.get("/{name}/stream")
    async def stream(name: str, asked: Annotated[Asked, Query()]) -> Response:
        tail = Tail(settings, known(name), asked.wanted, asked.number())
        return console.viewers.stream(tail.events())

    @routes.get("/{name}/{partition}/{offset}")
    async def message(name: str, partition: int, offset: int) -> Response:
        found = await console.read(lambda: look(known(name), partition, offset))
        record = found.record
        change = await console.read(lambda: change_of(settings, record))
        short = gist(record.message)
        values: dict[str, Any] = {
            "topic": known(name),
            "about": ABOUT[name],
            "found": found,
            "gist": short,
            "row": row_of(record, short),
            "text": written(record.message) if record.message is not None else "",
            "headers": [(name, _text(value)) for name, value in record.headers],
            "key": _text(record.key or b""),
            "change": change,
            "is_event": isinstance(record.message, Interaction),
            "story": f"/console/story?{urlencode({'request': short.request_id, 'user': short.user})}",
        }
        return console.renderer.page("message.html", "/console/topics", **values)

    def show(topic: Topic, asked: Asked, **values: Any) -> Response:
        here = f"/console/topics/{topic.name}"
        filters = urlencode({name: getattr(asked, name) for name in FILTERS if getattr(asked, name)})
        empty: dict[str, Any] = {"rows": None, "piece": None, "later": ""}
        return console.renderer.page(
            "topics.html",
            "/console/topics",
            topics=ALL,
            topic=topic,
            about=ABOUT[topic.name],
            asked=asked,
            ago=AGO_MS,
            stream=f"{here}/stream?{filters}",
            live=f"{here}?{filters}",
            **(empty | values),
        )

    def look(topic: Topic, partition: int, offset: int) -> Found:
        piece = read_piece(settings, topic, Place(offsets={partition: offset}), 1, lambda _: True, partition)
        if not piece.found or piece.found[0].record.offset != offset:
            raise Problem(NOT_FOUND, f"{topic.name}, partition {partition} holds no message {offset} any more, or yet")
        return piece.found[0]

    return routes


def known(name: str) -> Topic:
    """The topic. Raises Problem if there is none."""
    if name not in BY_NAME:
        raise Problem(NOT_FOUND, f"no topic {name!r}")
    return BY_NAME[name]


def key_of(topic: Topic, wanted: Wanted) -> bytes | None:
    """The key of what is wanted, where the filters say it."""
    text = {"user_id": wanted.user, "item_id": wanted.item}.get(topic.key, "")
    return text.encode() or None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
