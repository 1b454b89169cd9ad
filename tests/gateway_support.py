"""Asks the gateway's application without a server, byte for byte as a server would pass it on."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

from millrace.settings import GatewaySettings, KafkaSettings, RedisSettings, Settings, home
from services.gateway.parts import Parts
from tests.conftest import Child

TIMEOUT_S = 60
JSON = {"content-type": "application/json"}
# Pieces of a body in place of which nothing comes any more, and before which the client goes away.
SILENCE, GONE = b"silence", b"gone"
NOWHERE = "127.0.0.1:1"


@dataclass(slots=True)
class Answer:
    """What came back, and how many pieces of the body were asked for."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces_read: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def call(
    app: ASGIApp,
    method: str,
    target: str,
    body: bytes | Iterable[bytes] = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request; a body in pieces has no length that is told before."""
    path, _, query = target.partition("?")
    raw = {name.lower().encode(): value.encode("latin-1") for name, value in (headers or {}).items()}
    if isinstance(body, bytes):
        raw[b"content-length"] = str(len(body)).encode()
    pieces = iter([body] if isinstance(body, bytes) else body)
    answer = Answer()

    async def receive() -> Message:
        piece = next(pieces, None)
        if piece is SILENCE:
            await asyncio.Event().wait()
        if piece is GONE:
            return {"type": "http.disconnect"}
        answer.pieces_read += piece is not None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(raw.items()),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8_000),
    }
    await app(scope, receive, send)
    return answer


@asynccontextmanager
async def parts_nowhere(**own: Any) -> AsyncIterator[Parts]:
    """The gateway's parts with nothing behind them: no broker, no Redis, no recommender."""
    settings = Settings()
    settings.kafka = KafkaSettings(bootstrap_servers=NOWHERE)
    settings.redis = RedisSettings(url=f"redis://{NOWHERE}/0")
    settings.client = settings.client.model_copy(update={"recommender_target": NOWHERE})
    settings.gateway = GatewaySettings(**({"delivery_timeout_ms": 200, "recommend_timeout_ms": 200} | own))
    parts = Parts.make(settings)
    try:
        yield parts
    finally:
        await parts.close()


class Gateway:
    """A running gateway."""

    def __init__(self, child: Child) -> None:
        self.child = child
        announced = home() / "run" / f"gateway-{child.pid}.json"
        child.until(announced.exists)
        self.address: str = json.loads(announced.read_text())["http"]

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request on a connection of its own, with a body in JSON if there is one."""
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, content, sent if body is None else JSON | sent)
            got = connection.getresponse()
            told = {name.lower(): value for name, value in got.getheaders()}
            return Answer(got.status, told, got.read())
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.ask("GET", "/ready").status == 200
