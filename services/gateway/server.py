"""The process: puts the parts together, listens, drains."""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Iterator

import structlog
import uvicorn
import uvloop

from millrace.errors import MillraceError
from millrace.settings import GatewaySettings, Settings
from millrace.stream.http import serve_health
from millrace.stream.shutdown import Shutdown
from millrace.stream.threads import Indispensable
from millrace.stream.tracing import TRACES
from services.gateway.app import create_app
from services.gateway.parts import Parts
from services.gateway.protocol import BoundedProtocol

log = structlog.stdlib.get_logger(__name__)

PROCESS = "gateway"
# Connections that wait to be accepted, as many as uvicorn's own default.
_BACKLOG = 2_048


class _Server(uvicorn.Server):
    """Leaves signals to ``Shutdown``, as in every process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(own: GatewaySettings) -> socket.socket:
    """A socket at the settings' address. Raises MillraceError if it is taken."""
    family = socket.AF_INET6 if ":" in own.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((own.host, own.port))
        # Who reads the announcement may come at once: the system lets them wait for the server.
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise MillraceError(
            f"cannot listen on {own.host}:{own.port} ({error.strerror}); MILLRACE_GATEWAY_PORT=0: a free port"
        ) from error
    return listening


async def _serve(settings: Settings, listening: socket.socket) -> None:
    own = settings.gateway
    address = f"{own.host}:{listening.getsockname()[1]}"
    drain_s = own.drain_timeout_ms / 1_000
    parts = Parts.make(settings)
    config = uvicorn.Config(
        create_app(parts),
        http=BoundedProtocol,
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        server_header=False,
        # Half of the time for requests under way; the rest is for what they left with the broker.
        timeout_graceful_shutdown=math.ceil(drain_s / 2),
    )
    server = _Server(config)

    def ask_to_stop() -> None:
        parts.console.viewers.stopping = True
        server.should_exit = True

    with (
        TRACES.exported(settings.tracing, PROCESS),
        Indispensable(ask_to_stop),
        Shutdown(ask_to_stop, drain_s),
        serve_health(settings.observability, PROCESS, parts.readiness, http=address),
    ):
        parts.views.start()
        log.info("serving", rest=f"http://{address}", docs=f"http://{address}/docs", console=f"http://{address}/")
        try:
            await server.serve(sockets=[listening])
        finally:
            await parts.close()


def serve(settings: Settings) -> None:
    """Serve in this process until SIGTERM or SIGINT.

    Raises
    ------
    MillraceError
        The port is taken, a view's thread ended by an error, or what was sent last did not reach the broker.
    """
    with listen(settings.gateway) as listening:
        uvloop.run(_serve(settings, listening))
