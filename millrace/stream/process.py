"""A worker as a process of its own: log, metrics, health, signals."""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaException

from millrace.errors import MillraceError
from millrace.settings import Settings
from millrace.stream import logs
from millrace.stream.http import serve_health
from millrace.stream.runtime import Runtime
from millrace.stream.shutdown import Shutdown
from millrace.stream.tracing import TRACES
from millrace.stream.worker import Worker

log = structlog.stdlib.get_logger(__name__)


def run_worker(worker: Worker, settings: Settings) -> None:
    """Run a worker as this process: log, metrics, health, until SIGTERM or SIGINT.

    Exits with status 1 when the process cannot go on; the log says why.
    """
    logs.configure(settings.observability, worker.name)
    drain_timeout_s = settings.stream.drain_timeout_ms / 1_000
    log.info("starts", topics=[topic.name for topic in worker.topics], brokers=settings.kafka.bootstrap_servers)
    try:
        runtime = _make(worker, settings)
        with (
            TRACES.exported(settings.tracing, worker.name),
            serve_health(settings.observability, worker.name, runtime.readiness),
            Shutdown(runtime.stop, drain_timeout_s),
        ):
            runtime.run()
    except MillraceError as error:
        log.error("stops", problem=str(error))
        raise SystemExit(1) from error
    log.info("ended")


def _make(worker: Worker, settings: Settings) -> Runtime:
    try:
        return Runtime(worker, settings.kafka, settings.stream)
    except KafkaException as error:
        # No broker was asked yet: librdkafka refuses the settings themselves.
        raise MillraceError(f"kafka settings: {error.args[0].str()}") from error
