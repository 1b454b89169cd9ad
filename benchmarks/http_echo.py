"""The limit of the gateway: an HTTP service that only gives a body back. ``python -m benchmarks.http_echo``"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from benchmarks.environment import ROOT
from deploy.embedded.member import stop


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    del scope
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sys.stdout.write(f"127.0.0.1:{listening.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            _echo, http="httptools", loop="none", ws="none", lifespan="off", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        await server.serve(sockets=[listening])


@contextmanager
def http_echo() -> Iterator[str]:
    """A running echo; its ``host:port``."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http_echo"], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert popen.stdout is not None
        yield popen.stdout.readline().decode().strip()
    finally:
        stop(popen)
        assert popen.stdout is not None
        popen.stdout.close()


if __name__ == "__main__":
    uvloop.run(_serve())
