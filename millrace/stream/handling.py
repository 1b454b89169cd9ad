"""A batch in the hands of the worker, also when one of its records breaks the worker's code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from millrace.errors import InfrastructureError
from millrace.stream.worker import Output, Record, Worker

log = structlog.stdlib.get_logger(__name__)

# Once in the batch, once alone.
_ATTEMPTS = 2


class BatchOutput(Output, Protocol):
    """An output that can take back the rejections of a batch."""

    def reject(self, record: Record, error: Exception, attempts: int = 1) -> None:
        """Hold the record for its dead-letter topic until the batch is through."""

    def discard(self) -> None:
        """Forget the rejections of this batch."""


def handle(worker: Worker, records: Sequence[Record], output: BatchOutput) -> None:
    """Give the batch to the worker; where that raises, give it record by record and bury those that raise alone.

    Workers are idempotent by contract, so that what the first try did before it raised does no harm.

    Raises
    ------
    InfrastructureError
        A system is away: no record is at fault, all have to come again.
    """
    try:
        worker.on_batch(records, output)
        return
    except InfrastructureError:
        raise
    except Exception:  # any bug of the worker: which record it is about is found below
        log.exception("batch failed; its records are tried one by one", records=len(records))
    output.discard()
    for record in records:
        try:
            worker.on_batch([record], output)
        except InfrastructureError:
            raise
        except Exception as error:  # noqa: BLE001  the record's own dead letter tells it
            output.reject(record, error, attempts=_ATTEMPTS)
