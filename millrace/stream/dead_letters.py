"""What a dead letter carries beside the original: where the record stood, and why it could not be handled."""

from __future__ import annotations

from millrace.errors import InvalidField
from millrace.stream.worker import Record

PREFIX = "dlq."
# Enough for a field, a value and a rule; a reason that quotes a whole record would double the record.
_REASON_MAX_CHARS = 2_000


def dead_letter_headers(record: Record, error: Exception, worker: str, attempts: int) -> list[tuple[str, bytes]]:
    """The original headers, then ``dlq.*`` ones.

    A record that was a dead letter before loses the ``dlq.*`` headers of that time.

    Parameters
    ----------
    error
        Why: an :class:`InvalidField` names the field, any other error its type.
    attempts
        How often the worker was given the record.
    """
    facts = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.append_time_ms),
        "worker": worker,
        "reason": _reason(error)[:_REASON_MAX_CHARS],
        "attempts": str(attempts),
    }
    if isinstance(error, InvalidField):
        facts["field"] = error.field
    original = [header for header in record.headers if not header[0].startswith(PREFIX)]
    return [*original, *((PREFIX + name, fact.encode("utf-8", "replace")) for name, fact in facts.items())]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InvalidField) else f"{type(error).__name__}: {error}"
