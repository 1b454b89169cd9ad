"""Whose outcomes a training job must not learn: those of people who asked to be forgotten, from before they did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from millrace.errors import MillraceError
from millrace.features.store import FeatureStore
from millrace.features.user_state import STATE, user_key
from millrace.settings import DAY_MS, Settings
from millrace.v1.outcome_pb2 import Outcome

# Place of the time of the last erasure in ``STATE``.
_ERASED_AT = 3


class Erasures:
    """Reads from Redis when users were erased last. A context manager.

    The time stands in the user's key, which lives as long as the settings say after its last write, the erasure
    included: it has to outlive what is learned from.

    Raises
    ------
    MillraceError
        Times of erasures would be gone while outcomes from before them are still learned.
    InfrastructureError
        Redis does not answer; so does every method.
    """

    def __init__(self, settings: Settings) -> None:
        kept, window = settings.features.user_ttl_ms, settings.training.window_ms
        if kept < window:
            raise MillraceError(
                f"MILLRACE_FEATURES_USER_TTL_MS={kept} ({kept / DAY_MS:g} days) must not be below "
                f"MILLRACE_TRAINING_WINDOW_MS={window} ({window / DAY_MS:g} days): who asked to be forgotten would be "
                "learned from again"
            )
        self._store = FeatureStore(settings.redis)

    def __enter__(self) -> Self:
        self._store.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._store.close()

    def of(self, user_ids: Iterable[str]) -> Mapping[str, int]:
        """When each of these was erased last, Unix milliseconds; who never was is left out. One round trip."""
        asked = sorted(set(user_ids))
        states = self._store.ask_all(("HGET", user_key(user_id), "state") for user_id in asked) if asked else []
        times = {
            user_id: int(STATE.unpack_from(state)[_ERASED_AT])
            for user_id, state in zip(asked, states, strict=True)
            if state
        }
        return {user_id: at_ms for user_id, at_ms in times.items() if at_ms}


def forgotten(outcome: Outcome, appended_ms: int, erased: Mapping[str, int]) -> bool:
    """Whether an outcome is from before its user's erasure.

    What was served or clicked before may be decided and appended a moment after: all of these times count.
    """
    erased_ms = erased.get(outcome.user_id)
    if erased_ms is None:
        return False
    return min(appended_ms, outcome.impression.served_at_ms or outcome.decided_at_ms) <= erased_ms
