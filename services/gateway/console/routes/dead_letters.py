"""*Dead letters*: messages that a worker could not take, why, and what became of them; replayed when asked twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from google.protobuf.message import DecodeError
from starlette.responses import Response

from millrace.errors import InfrastructureError, InvalidField, MillraceError
from millrace.inspection.letters import Choice
from millrace.inspection.settling import Settled, foreseen, settle
from millrace.stream.dead_letters import MARK, PREFIX
from millrace.stream.worker import Record
from millrace.topics import ALL, BY_NAME, Topic
from services.gateway.console.messages import gist, written
from services.gateway.console.origin import read_form
from services.gateway.console.pages import page_routes
from services.gateway.console.reading import Place, read_piece
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, REFUSED, Problem

_HERE = "/console/dead-letters"
NEWEST = 100
"""Of a partition that are looked at."""
_BYTES_SHOWN = 512


@dataclass(frozen=True, slots=True)
class Which:
    """Letters that somebody wants replayed, as forms and addresses say it: one, or open ones that are alike.

    Attributes
    ----------
    place
        Offset of the one; empty: all that the rest chooses.
    reason
        A part of their reason.
    until
        Offset of the last one that the question was about: a form that is sent again does not replay what has failed
        again since.
    """

    topic: str
    place: str = ""
    worker: str = ""
    reason: str = ""
    until: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        """Those of a form."""
        return cls(*(fields.get(name, "") for name in ("topic", "place", "worker", "reason", "until")))

    @property
    def href(self) -> str:
        """Where it is asked again."""
        fields = {name: getattr(self, name) for name in ("topic", "place", "worker", "reason")}
        return f"{_HERE}/confirm?{urlencode({name: text for name, text in fields.items() if text})}"

    def choices(self) -> list[tuple[Topic, Choice]]:
        """The same for those who settle. Raises Problem or InvalidField."""
        topic = _buried(self.topic)
        place, until = _offset("place", self.place), _offset("until", self.until)
        places = frozenset(() if place is None else {place})
        return [(topic, Choice(places=places, worker=self.worker or None, reason=self.reason or None, until=until))]


def router(parts: Parts) -> APIRouter:
    """The pages."""
    console, settings = parts.console, parts.settings
    routes = page_routes(console, _HERE)

    @routes.get("")
    async def page() -> Response:
        rows, missing = await console.read(look)
        reasons = Counter(Which(row["topic"], "", row["worker"], _alike(row["reason"])) for row in rows)
        return console.renderer.page(
            "dead_letters.html",
            _HERE,
            rows=rows,
            missing=missing,
            reasons=reasons.most_common(6),
            replayable={Which(row["topic"], "", row["worker"], _alike(row["reason"])) for row in rows if _is_open(row)},
            newest=NEWEST,
        )

    @routes.get("/confirm")
    async def confirm(topic: str, place: str = "", worker: str = "", reason: str = "") -> Response:
        which = Which(topic, place, worker, reason)
        choices = which.choices()
        counts = (await console.read(lambda: foreseen(settings.kafka, "replay", choices)))[topic]
        if not counts.done:
            return settled(which, Settled(0, counts.before))
        return console.renderer.page("replay.html", _HERE, which=which, counts=counts)

    @routes.post("/replay")
    async def replay(request: Request) -> Response:
        which = Which.of(await read_form(request))
        choices = which.choices()
        try:
            done = await console.read(lambda: settle(settings.kafka, "replay", choices))
        except InfrastructureError:
            raise
        except MillraceError as error:
            raise Problem(REFUSED, str(error)) from error
        return settled(which, done[which.topic])

    def settled(which: Which, counts: Settled) -> Response:
        return console.renderer.page("replayed.html", _HERE, which=which, counts=counts)

    @routes.get("/{name}/{partition}/{offset}")
    async def one(name: str, partition: int, offset: int) -> Response:
        topic = _buried(name)
        place = Place(offsets={partition: offset})
        piece = await console.read(
            lambda: read_piece(settings, topic, place, 1, lambda _: True, partition, dead_letters=True)
        )
        if not piece.found or piece.found[0].record.offset != offset:
            raise Problem(NOT_FOUND, f"{topic.dlq}, partition {partition} holds no message {offset} any more, or yet")
        record = piece.found[0].record
        since = Place(offsets={partition: offset})
        later = await console.read(
            lambda: read_piece(
                settings, topic, since, NEWEST, lambda found: _is_mark(found.record), partition, dead_letters=True
            )
        )
        row = row_of(topic, record, marks_of(found.record for found in later.found))
        return console.renderer.page("dead_letter.html", _HERE, row=row, **content(topic, record))

    def look() -> tuple[list[dict[str, Any]], list[str]]:
        """The newest of every topic, and topics that are not there yet."""
        rows: list[dict[str, Any]] = []
        missing: list[str] = []
        for topic in (one for one in ALL if one.dead_letters):
            try:
                piece = read_piece(settings, topic, Place(newest=NEWEST), NEWEST, lambda _: True, dead_letters=True)
                marks = marks_of(found.record for found in piece.found)
                rows += [row_of(topic, found.record, marks) for found in piece.found if not _is_mark(found.record)]
            except InfrastructureError as error:
                missing.append(str(error))
        if len(missing) == sum(topic.dead_letters for topic in ALL):
            raise InfrastructureError("kafka", missing[0])
        return sorted(rows, key=lambda row: -row["at_ms"]), missing

    return routes


def marks_of(records: Iterable[Record]) -> dict[tuple[str, ...], str]:
    """Which letter was replayed or dropped, by what tells letters apart."""
    return {
        _identity(record): dict(record.headers)[MARK].decode("utf-8", "replace")
        for record in records
        if _is_mark(record)
    }


def row_of(topic: Topic, record: Record, marks: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """A dead letter, by what its headers say, and what became of it."""
    facts = _facts(record)
    return {
        "state": marks.get(_identity(record), "open"),
        "name": f"{topic.name}@{record.offset}",
        "topic": topic.name,
        "at_ms": record.append_time_ms,
        "worker": facts.get("worker", ""),
        "field": facts.get("field", ""),
        "reason": facts.get("reason", "no reason given"),
        "attempts": facts.get("attempts", ""),
        "key": (record.key or b"").decode("utf-8", "backslashreplace"),
        "place": f"{facts.get('partition', '?')} @ {facts.get('offset', '?')}",
        "original": f"/console/topics/{topic.name}/{facts.get('partition', '0')}/{facts.get('offset', '0')}",
        "href": f"{_HERE}/{topic.name}/{record.partition}/{record.offset}",
        "replay": Which(topic.name, str(record.offset)).href,
    }


def content(topic: Topic, record: Record) -> dict[str, Any]:
    """What the letter holds: as a message of its topic if it is one, and its first bytes."""
    value = record.value or b""
    message = topic.message()
    try:
        message.ParseFromString(value)
        text, short = written(message), gist(message)
    except (DecodeError, UnicodeDecodeError):
        text, short = "", None
    shown = value[:_BYTES_SHOWN]
    lines = [shown[at : at + 16] for at in range(0, len(shown), 16)]
    return {
        "text": text,
        "gist": short,
        "bytes": len(value),
        "hex": "\n".join(
            f"{16 * number:04x}  {line.hex(' '):<47}  {_printable(line)}" for number, line in enumerate(lines)
        ),
        "headers": [(name, value.decode("utf-8", "backslashreplace")) for name, value in record.headers],
    }


def _offset(field: str, text: str) -> int | None:
    if text and not (text.isdecimal() and len(text) <= 18):
        raise InvalidField(field, repr(text), "an offset")
    return int(text) if text else None


def _buried(name: str) -> Topic:
    topic = BY_NAME.get(name)
    if topic is None or not topic.dead_letters:
        raise Problem(NOT_FOUND, f"no topic {name!r} has dead letters")
    return topic


def _alike(reason: str) -> str:
    """What is wrong, without what would be right; the value itself, which differs, is cut off."""
    return reason.partition(";")[0][:80]


def _is_open(row: Mapping[str, Any]) -> bool:
    return bool(row["state"] == "open")


def _facts(record: Record) -> Mapping[str, str]:
    return {
        name.removeprefix(PREFIX): value.decode("utf-8", "replace")
        for name, value in record.headers
        if name.startswith(PREFIX)
    }


def _is_mark(record: Record) -> bool:
    return any(name == MARK for name, _ in record.headers)


def _identity(record: Record) -> tuple[str, ...]:
    """As ``millrace.inspection.letters`` tells letters apart."""
    facts = _facts(record)
    return tuple(facts.get(name, "") for name in ("worker", "partition", "offset", "timestamp"))


def _printable(line: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in line)
