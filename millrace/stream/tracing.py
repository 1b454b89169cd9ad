"""Trace context in Kafka headers: each record says which request it comes from.

    POST /event ──► interactions ──► outcomes ──► model-updates
    Recommend ────► impressions ──────┘ joined: a span in both traces, linked to each other

The header is W3C's ``traceparent``, for sampled traces only. Where an endpoint is configured requests, records taken
and records made are spans of OpenTelemetry (``millrace.stream.spans``); where none is, a context that came with a
request travels on as it is, and OpenTelemetry's SDK is not imported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from millrace.settings import TracingSettings
from millrace.stream.causes import Causes
from millrace.stream.worker import Headers, Record

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from millrace.stream.spans import Spans

TRACEPARENT = "traceparent"
# Version 00, ids that are not zero, and the flag that says: sampled.
_SAMPLED = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")

_current: ContextVar[bytes | None] = ContextVar("traceparent", default=None)
_NO_REQUEST: AbstractContextManager[Span | None] = nullcontext()


def sampled(headers: Iterable[tuple[str, bytes | str | None]]) -> bytes | None:
    """The context in headers of a record, or in the metadata of a gRPC call; None where there is no sampled one."""
    for name, value in headers:
        if name == TRACEPARENT and value:
            return checked(value.encode() if isinstance(value, str) else value)
    return None


def checked(traceparent: bytes) -> bytes | None:
    """The context, if it is whole and sampled."""
    return traceparent if _SAMPLED.fullmatch(traceparent) else None


def outgoing() -> list[tuple[str, bytes]]:
    """The header of what is sent for the request in hand: one of ours, or a span of the application that we are in."""
    current = _current.get()
    # Libraries import the API of OpenTelemetry; who makes spans imports the SDK.
    if current is None and "opentelemetry.sdk.trace" in sys.modules:
        current = _of_the_application()
    return [] if current is None else [(TRACEPARENT, current)]


def outgoing_metadata() -> tuple[tuple[str, str], ...] | None:
    """The same as metadata of a gRPC call."""
    return tuple((name, value.decode()) for name, value in outgoing()) or None


def _of_the_application() -> bytes | None:
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if not get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return checked(carrier.get(TRACEPARENT, "").encode())


class Traces:
    """The traces that this process takes part in. One for a process (``TRACES``), as its metrics are."""

    def __init__(self) -> None:
        self._causes = Causes()
        self._spans: Spans | None = None
        # Of the batch in hand, by topic, partition and offset.
        self._taken: dict[tuple[str, int, int], Span] = {}

    @contextmanager
    def exported(self, settings: TracingSettings, process: str) -> Iterator[None]:
        """Send spans while the block runs, if an endpoint is configured."""
        if not settings.exporter_otlp_endpoint:
            yield
            return
        from millrace.stream.spans import Spans

        self._spans = spans = Spans(settings, process)
        try:
            yield
        finally:
            self._spans = None
            spans.close()

    def request(self, name: str, given: bytes | None) -> AbstractContextManager[Span | None]:
        """A request in hand: what is sent inside the block belongs to its trace.

        Parameters
        ----------
        given
            The context that it came with, sampled.
        """
        if self._spans is None and given is None:
            return _NO_REQUEST
        return self._request(name, given)

    @contextmanager
    def _request(self, name: str, given: bytes | None) -> Iterator[Span | None]:
        with ExitStack() as span_ends:
            span, context = None, given
            if self._spans is not None:
                from millrace.stream.spans import context_of

                span = span_ends.enter_context(_ended(self._spans.request(name, given)))
                context = context_of(span)
            token = _current.set(context)
            try:
                yield span
            finally:
                _current.reset(token)

    @contextmanager
    def taking(self, worker: str, records: Sequence[Record]) -> Iterator[None]:
        """A worker has these records in hand."""
        # Nearly every record has one header, its schema: one comparison tells.
        with_context = [record for record in records if len(record.headers) > 1 and sampled(record.headers)]
        if not with_context:
            yield
            return
        with ExitStack() as spans_end:
            for record in with_context:
                context = sampled(record.headers)
                assert context is not None
                if self._spans is not None:
                    from millrace.stream.spans import context_of

                    span = spans_end.enter_context(_ended(self._spans.taken(worker, record, context)))
                    self._taken[record.topic, record.partition, record.offset] = span
                    context = context_of(span) or context
                self._causes.keep(record, context)
            spans_end.callback(self._taken.clear)
            yield

    def rejected(self, record: Record, error: Exception) -> None:
        """A record in hand became a dead letter."""
        span = self._taken.get((record.topic, record.partition, record.offset))
        if span is not None:
            span.record_exception(error)
            _failed(span, error)

    def made(self, topic: str, message: Message) -> Headers:
        """The header of a record that a worker sends; none if nothing that led to it is traced."""
        if not self._causes:
            return []
        causes = self._causes.of(message)
        if not causes:
            return []
        return [(TRACEPARENT, causes[0] if self._spans is None else self._spans.made(topic, causes))]


TRACES = Traces()


@contextmanager
def _ended(span: Span) -> Iterator[Span]:
    try:
        yield span
    except BaseException as error:
        _failed(span, error)
        raise
    finally:
        span.end()


def _failed(span: Span, error: BaseException) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
