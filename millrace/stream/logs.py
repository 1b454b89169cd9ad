"""Logs: structlog for ours, the standard library's for what libraries say, both in one form on stderr."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable

import structlog
import structlog.tracebacks
from structlog.typing import Processor

from millrace.settings import ObservabilitySettings

KAFKA_LOGGER = "librdkafka"

# With a broker away librdkafka writes some 20 lines a second, the same few again and again: one of each kind in
# this time tells as much.
_REPEAT_AFTER_S = 30.0
# Kinds remembered; there are a few dozen in librdkafka, so this only bounds memory.
_KINDS_MAX = 256

# What differs between two lines of the same kind: client names, addresses, ids, times.
_VARYING = re.compile(r"\d+")


class Repetition:
    """Tells which lines to write: of each kind (a text without its numbers) one in a while."""

    def __init__(self, repeat_after_s: float = _REPEAT_AFTER_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeat_after_s = repeat_after_s
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def left_out(self, text: str) -> int | None:
        """How many of this kind were left out since the last one that was written; None: leave this one out."""
        kind = _VARYING.sub("#", text)
        now = self._clock()
        last, left_out = self._seen.pop(kind, (float("-inf"), 0))
        if now - last < self._repeat_after_s:
            self._seen[kind] = (last, left_out + 1)
            return None
        if len(self._seen) >= _KINDS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[kind] = (now, 0)
        return left_out


class OncePerKind(logging.Filter):
    """Holds repeated lines of a library back."""

    def __init__(self, repetition: Repetition | None = None) -> None:
        super().__init__()
        self._repetition = repetition or Repetition()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; its text gets the number of those that were not."""
        text = record.getMessage()
        left_out = self._repetition.left_out(text)
        if left_out:
            record.msg, record.args = f"{text} ({left_out} more like this left out)", ()
        return left_out is not None


def kafka_logger() -> logging.Logger:
    """The logger to give to confluent-kafka's clients (``logger=``); repeated lines are held back."""
    logger = logging.getLogger(KAFKA_LOGGER)
    if not any(isinstance(known, OncePerKind) for known in logger.filters):
        logger.addFilter(OncePerKind())
    return logger


def configure(observability: ObservabilitySettings, process: str) -> None:
    """Set up the log of this process: one line per event on stderr, as text or JSON.

    Parameters
    ----------
    process
        Name of the process, in every line.
    """

    def name_process(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("process", process)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_process,
    ]
    as_json = observability.log_format == "json"
    form: list[Processor]
    # Both forms leave local variables out of tracebacks (structlog's defaults show them): they may hold secrets.
    if as_json:
        trace = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
        form = [trace, structlog.processors.JSONRenderer()]
    else:
        form = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *form],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(observability.log_level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # Installing the filter here covers clients made by libraries that find the logger by its name.
    kafka_logger()
