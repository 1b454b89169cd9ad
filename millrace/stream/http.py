"""Metrics and health over HTTP: ``/metrics``, ``/healthz`` (the process lives), ``/readyz`` (it does its work)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from millrace.errors import MillraceError
from millrace.settings import ObservabilitySettings, home

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a process does its work, and what a person needs to see about it.

    Attributes
    ----------
    ready
        Whether it does its work. It may, and miss something all the same.
    missing
        What it waits for, or does without, in words.
    detail
        Whatever else ``/readyz`` shows (JSON).
    """

    ready: bool
    missing: Sequence[str] = ()
    detail: Mapping[str, object] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    """Answers the three paths; anything else is 404."""

    readiness: Callable[[], Readiness]
    process: str
    # Seconds until a silent client is dropped; each has a thread.
    timeout = 10

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(REGISTRY), content_type)
        elif path == "/healthz":
            self._answer_json(200, {"process": self.process, "pid": os.getpid(), "alive": True})
        elif path == "/readyz":
            state = type(self).readiness()
            body = {"process": self.process, "ready": state.ready, "missing": list(state.missing), **state.detail}
            self._answer_json(200 if state.ready else 503, body)
        else:
            self._answer_json(404, {"error": f"no {path}; there are /metrics, /healthz and /readyz"})

    def _answer_json(self, status: int, body: Mapping[str, object]) -> None:
        self._answer(status, json.dumps(body, indent=2).encode() + b"\n", "application/json")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""


class HealthServer:
    """The listening server; a context manager that stops it and removes its file.

    Attributes
    ----------
    address
        ``host:port`` that it listens on.
    """

    def __init__(
        self,
        observability: ObservabilitySettings,
        process: str,
        readiness: Callable[[], Readiness],
        grpc: str | None = None,
        http: str | None = None,
    ) -> None:
        handler = type("Handler", (_Handler,), {"readiness": staticmethod(readiness), "process": process})
        at = observability.metrics_host, observability.metrics_port
        try:
            self._server = ThreadingHTTPServer(at, handler)
        except OSError as error:
            raise MillraceError(
                f"metrics cannot listen on {at[0]}:{at[1]} ({error.strerror}); MILLRACE_METRICS_PORT=0: a free port"
            ) from error
        self._server.daemon_threads = True
        self.address = f"{observability.metrics_host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()
        self._file = run_file(process)
        self._target = target_file(process)
        listens = {"metrics": self.address, "grpc": grpc, "http": http}
        described = {"process": process, "pid": os.getpid(), **listens}
        _announce(self._file, {name: value for name, value in described.items() if value is not None})
        _announce(self._target, [{"targets": [self.address], "labels": {"process": process}}])
        log.info("metrics and health", metrics=f"http://{self.address}/metrics", ready=f"http://{self.address}/readyz")

    def close(self) -> None:
        """Stop listening."""
        self._file.unlink(missing_ok=True)
        self._target.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def run_file(process: str) -> Path:
    """Where this process says which addresses it listens on, for ``millrace run`` and ``stack status``."""
    return home() / "run" / f"{process}-{os.getpid()}.json"


def target_file(process: str) -> Path:
    """Where this process says the same for Prometheus, which looks into the folder (``file_sd_configs``)."""
    return home() / "run" / "targets" / f"{process}-{os.getpid()}.json"


def _announce(path: Path, content: object) -> None:
    """Write the file whole or not at all: others read it at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(path)


def serve_health(
    observability: ObservabilitySettings,
    process: str,
    readiness: Callable[[], Readiness],
    grpc: str | None = None,
    http: str | None = None,
) -> HealthServer:
    """Serve metrics and health from a thread of this process until the returned server is closed.

    Parameters
    ----------
    process
        Name of the process.
    readiness
        Called for each ``/readyz``, from another thread: must not block.
    grpc, http
        ``host:port`` of the process's own gRPC or HTTP service, for the announcement file.

    Raises
    ------
    MillraceError
        The port is taken.
    """
    return HealthServer(observability, process, readiness, grpc, http)
