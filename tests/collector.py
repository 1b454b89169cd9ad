"""What receives spans as an OpenTelemetry collector does: OTLP over HTTP, in protobuf."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, slots=True)
class Got:
    """A span as it arrived; ids in hexadecimal digits."""

    process: str
    name: str
    trace: str
    span: str
    parent: str
    failed: bool
    links: frozenset[tuple[str, str]]
    """Trace and span of each."""
    attributes: dict[str, object] = field(hash=False)


class Collector:
    """A collector that keeps everything."""

    def __init__(self) -> None:
        self._spans: list[Got] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                collector._spans += _spans(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Receive while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def of(self, trace: str) -> list[Got]:
        """Spans of a trace that have arrived."""
        return [one for one in list(self._spans) if one.trace == trace]

    def one(self, trace: str, process: str, name: str) -> Got:
        """The one span of a process by this name."""
        found = [one for one in self.of(trace) if (one.process, one.name) == (process, name)]
        assert len(found) == 1, (process, name, self.of(trace))
        return found[0]


def _spans(request: ExportTraceServiceRequest) -> Iterator[Got]:
    for resource in request.resource_spans:
        of = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Got(
                    process=of["service.name"],
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    links=frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    attributes={
                        one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes
                    },
                )
