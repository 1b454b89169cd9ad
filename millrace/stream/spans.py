"""Spans of this process, sent to an OpenTelemetry collector. Imported only where an endpoint is configured."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from millrace.settings import TracingSettings
from millrace.stream.worker import Record

# A collector that does not answer holds up the end of a process for so long at most, once for what is being sent and
# once for what waits.
_TIMEOUT_S = 2.0
# Spans that wait for the collector; more are dropped by the SDK, which says so.
_WAITING_MAX = 2_048
# Of one record, in as many traces: more than that are links of the first.
_TRACES_MAX = 64

_W3C = TraceContextTextMapPropagator()
_TRACEPARENT = "traceparent"


class Spans:
    """Makes spans of this process and sends them.

    Parameters
    ----------
    process
        Name of the service, for example ``outcome_joiner``.
    """

    def __init__(self, settings: TracingSettings, process: str) -> None:
        resource = Resource.create({"service.name": process, "service.namespace": "millrace"})
        sampler = ParentBased(TraceIdRatioBased(settings.traces_sampler_arg))
        endpoint = f"{settings.exporter_otlp_endpoint.rstrip('/')}/v1/traces"
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, timeout=_TIMEOUT_S),
            max_queue_size=_WAITING_MAX,
            max_export_batch_size=_WAITING_MAX,
            schedule_delay_millis=1_000,
        )
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("millrace")

    def request(self, name: str, given: bytes | None) -> Span:
        """The span of a request, in the trace that it came with or in a new one."""
        return self._tracer.start_span(name, _context(given) if given else Context(), SpanKind.SERVER)

    def taken(self, worker: str, record: Record, context: bytes) -> Span:
        """The span of a worker's work on a record."""
        return self._tracer.start_span(
            f"process {record.topic}",
            _context(context),
            SpanKind.CONSUMER,
            _attributes(record.topic, "process")
            | {
                "messaging.consumer.group.name": worker,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
            },
        )

    def made(self, topic: str, causes: Sequence[bytes]) -> bytes:
        """Spans of a record that is sent, one in each trace that led to it; the context of the first.

        The first has links to all others, and the others to the first.
        """
        traces: dict[bytes, bytes] = {}
        for cause in causes:
            traces.setdefault(cause[3:35], cause)
        attributes = _attributes(topic, "send")
        first, *others = traces.values()
        links = [_link(cause) for cause in causes if cause is not first]
        span = self._tracer.start_span(f"send {topic}", _context(first), SpanKind.PRODUCER, attributes, links)
        back = [Link(span.get_span_context())]
        for cause in others[: _TRACES_MAX - 1]:
            self._tracer.start_span(f"send {topic}", _context(cause), SpanKind.PRODUCER, attributes, back).end()
        span.end()
        return context_of(span) or first

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()


def context_of(span: Span) -> bytes | None:
    """The span as a ``traceparent``; None if it is not sampled."""
    if not span.get_span_context().trace_flags.sampled:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return carrier[_TRACEPARENT].encode()


def _context(traceparent: bytes) -> Context:
    return _W3C.extract({_TRACEPARENT: traceparent.decode()}, Context())


def _link(traceparent: bytes) -> Link:
    return Link(get_current_span(_context(traceparent)).get_span_context())


def _attributes(topic: str, operation: str) -> dict[str, str | int]:
    """By OpenTelemetry's conventions for messaging."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
