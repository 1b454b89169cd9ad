"""What a dead letter carries beside the original, and how a replay of it finds the one worker that failed.

A dead letter says where the record stood and why it could not be handled. A replay (``millrace dlq replay``) is the
original record again, at the end of its partition, with ``replay.*`` headers that name the worker and the place of the
original: all others had their chance with the original, and pass over it. A *mark* in the dead-letter topic says what
became of a letter; it has no value and is nobody's record.
"""

from __future__ import annotations

from millrace.errors import InvalidField
from millrace.stream.worker import Headers, Record

PREFIX = "dlq."
REPLAY_PREFIX = "replay."
REPLAY_WORKER = REPLAY_PREFIX + "worker"
MARK = PREFIX + "mark"
NOBODY = b""
"""Who reads for itself, as mirrors do: no replay is for it."""
# Enough for a field, a value and a rule; a reason that quotes a whole record would double the record.
_REASON_MAX_CHARS = 2_000


def dead_letter_headers(record: Record, error: Exception, worker: str, attempts: int) -> list[tuple[str, bytes]]:
    """The original headers, then ``dlq.*`` ones.

    A record that was a dead letter before loses the headers of that time.

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
    if origin := replay_of(record.headers):
        facts["replay_of"] = origin
    return [
        *without_ours(record.headers),
        *((PREFIX + name, fact.encode("utf-8", "replace")) for name, fact in facts.items()),
    ]


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InvalidField) else f"{type(error).__name__}: {error}"


def without_ours(headers: Headers) -> list[tuple[str, bytes]]:
    """The headers that the record came with before it was a dead letter, or a replay."""
    return [header for header in headers if not header[0].startswith((PREFIX, REPLAY_PREFIX))]


def replay_of(headers: Headers) -> str:
    """Where the original of a replay stands, ``topic[partition]@offset``; empty for other records."""
    facts = {
        name: value.decode("utf-8", "replace") for name, value in headers if name.startswith(REPLAY_PREFIX) and value
    }
    if REPLAY_WORKER not in facts:
        return ""
    topic, partition, offset = (facts.get(REPLAY_PREFIX + name, "?") for name in ("topic", "partition", "offset"))
    return f"{topic}[{partition}]@{offset}"


def is_for_others(headers: Headers, worker: bytes) -> bool:
    """Whether a record is a replay for another worker, or a mark, which is for none."""
    for name, value in headers:
        if name == REPLAY_WORKER:
            return value != worker
        if name == MARK:
            return True
    return False
